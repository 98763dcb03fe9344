"""What calls of the library take beside ever more leases: ``library.py LIBRARY``, run on a node by ``scale``.

No executable, no engine, no kernel: the store and what the IPAM plugin does with it. A network for each number of
leases, all at once, and calls by turns. Prints milliseconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [sys.argv[1], str(Path(__file__).resolve().parents[2])]

from cni_v6.allocation.policy import AFTER  # noqa: E402
from cni_v6.attachments import allocate  # noqa: E402
from cni_v6.attachments.context import Context  # noqa: E402
from cni_v6.config.ipam import IpamConf  # noqa: E402
from cni_v6.errors import ADDRESSES_EXHAUSTED, CniError  # noqa: E402
from cni_v6.kernel.fake.kernel import FakeKernel  # noqa: E402
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk.store import ATTACHMENTS  # noqa: E402
from cni_v6.leases.memory import MemoryDataDirs  # noqa: E402
from cni_v6.leases.store import Transaction  # noqa: E402
from cni_v6.plugins.registry import PLUGINS  # noqa: E402
from cni_v6.protocol.invocation import Invocation  # noqa: E402
from cni_v6.protocol.names import Owner  # noqa: E402
from cni_v6.protocol.valid import valid_attachments  # noqa: E402
from tests.bench.filled import SETS, WAYS, Filled  # noqa: E402
from tests.stores import pool  # noqa: E402

FULL_SET = pool("10.255.0.0/22")  # of the last /16 of SETS: no lease of a million is in it
FULL_INDEX = len(SETS)
SEED = 6
COLLECTIONS = 5
STALE = "stale"  # containers that a GC is to find

Step = Callable[[], object]
Samples = dict[str, list[list[float]]]  # what -> for each network its times


@dataclass(frozen=True, slots=True)
class Network:
    """A network with so many leases, and a set besides that is full."""

    filled: Filled
    leases: int

    def calls(self, number: int, chance: Random) -> Iterator[tuple[str, Step]]:
        """One round, in order: each with a name."""
        name = self.owner(f"c{number}")
        known = self.filled.attachment(chance.randrange(self.leases // 2)) if self.leases else None
        yield "reserve", lambda: self.reserve(name)
        yield "lookup by owner", lambda: self.get(known.owner if known else name)
        yield "lookup by address", lambda: self.holder(known.addresses[0] if known else "10.0.0.1")
        yield "release", lambda: self.drop(name)
        yield "choose from a full /22", self.exhaust
        yield "status of a set that is not full", self.status

    def reserve(self, owner: Owner) -> None:
        with self.filled.leases.transaction() as work:
            addresses = tuple(work.choose(index, each) for index, each in enumerate(SETS))
            work.put(Attachment(owner, addresses, "veth0", (4, 17), time.time(), self.filled.leases.boot, reuse=WAYS))

    def drop(self, owner: Owner) -> None:
        with self.filled.leases.transaction() as work:
            _require(work.drop(owner), owner)

    def get(self, owner: Owner) -> None:
        with self.filled.leases.transaction() as work:
            _require(work.get(owner), owner)

    def holder(self, address: str) -> None:
        with self.filled.leases.transaction() as work:
            work.holder(address)

    def exhaust(self) -> None:
        with self.filled.leases.transaction() as work:
            if (address := _chosen(work)) is not None:
                raise RuntimeError(f"{address} was free")

    def status(self) -> None:
        allocate.check_capacity(IpamConf(self.owner("").network, "", SETS, (), (), ""), self.filled.leases)

    def owner(self, container: str) -> Owner:
        return Owner(self.filled.folder.name, container, "eth0")

    def fill_set(self) -> None:
        """Lease all of the small set, each address to a container of its own."""
        boot = self.filled.leases.boot
        with self.filled.leases.transaction() as work:
            while (address := _chosen(work)) is not None:
                work.put(Attachment(self.owner(f"full-{address}"), (address,), boot=boot, reuse=(AFTER,)))

    def collect(self, stale: int, plugin: str = "cni-v6-ipam") -> float:
        """Milliseconds of a plugin's GC that frees so many and keeps all others. An engine has served one before."""
        for number in range(stale):
            self.reserve(self.owner(f"{STALE}{number}"))
        with self.filled.leases.transaction() as work:
            everything = [each.owner for each in work.attachments()]
        valid = [{"containerID": each.container_id, "ifname": each.ifname} for each in everything
                 if not each.container_id.startswith(STALE)]
        config = {"cniVersion": "1.1.0", "name": self.filled.folder.name, "type": plugin,
                  "ipam": {"type": "cni-v6-ipam", "ranges": [[{"subnet": "10.0.0.0/8"}]]},
                  "cni.dev/valid-attachments": valid}
        node = _node(self.filled)

        def gc() -> None:
            name, listed = self.filled.folder.name, valid_attachments(config)
            PLUGINS[plugin].commands["GC"](Invocation(plugin, "GC", "1.1.0", name, config, valid=listed), node)

        taken = _milliseconds(gc)
        with self.filled.leases.transaction() as work:
            left = sum(1 for _ in work.attachments())
        if left != len(valid):
            raise RuntimeError(f"{left} attachments after GC where {len(valid)} are valid")
        return taken

    def names(self) -> float:
        """Milliseconds of what no GC can do without: the runtime's list and the folder as two sets of names."""
        with self.filled.leases.transaction() as work:
            owners = [each.owner for each in work.attachments()]
        config = {"cni.dev/valid-attachments": [
            {"containerID": each.container_id, "ifname": each.ifname} for each in owners]}
        return _milliseconds(lambda: frozenset(os.listdir(self.filled.folder / ATTACHMENTS))
                             - (valid_attachments(config) or frozenset()))


def measure(networks: list[Network], rounds: int, patience: float) -> Samples:
    """Rounds of all calls by turns; a call that has taken ``patience`` seconds in all is not made again."""
    samples: Samples = {}
    chance = Random(SEED)
    for number in range(rounds):
        for at, network in enumerate(networks if number % 2 else networks[::-1]):
            at = at if number % 2 else len(networks) - 1 - at
            for name, step in network.calls(number, chance):
                times = samples.setdefault(name, [[] for _ in networks])[at]
                if sum(times) < patience * 1e3:
                    times.append(_milliseconds(step))
    return samples


def _chosen(work: Transaction) -> str | None:
    """An address of the small set; None where it is full."""
    try:
        return work.choose(FULL_INDEX, FULL_SET)
    except CniError as error:
        if error.code != ADDRESSES_EXHAUSTED:
            raise
        return None


def _milliseconds(step: Step) -> float:
    begin = time.perf_counter_ns()
    step()
    return (time.perf_counter_ns() - begin) / 1e6


def _require(found: object, owner: Owner) -> None:
    if not found:
        raise RuntimeError(f"nothing is known of {owner}")


def _node(filled: Filled) -> Context:
    def nothing(*_: Any) -> Any:
        raise RuntimeError("GC asks for leases and the kernel alone")

    return Context(
        kernel=FakeKernel(),
        leases=lambda _name, _folder: filled.leases,
        data_dirs=MemoryDataDirs(),
        delegate=nothing,
        read_file=nothing,
        boot="boot",
        id="id",
        now=time.time,
    )


def main() -> None:
    asked = json.load(sys.stdin)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    networks = []
    for name, leases in asked["networks"]:
        filled = Filled(name, asked["folder"], boot)
        filled.fill(leases)
        networks.append(Network(filled, leases))
        networks[-1].fill_set()
    samples = measure(networks, asked["rounds"], asked["patience"])
    listed = []
    collected: dict[str, list[float]] = {"cni-v6-ipam": [], "cni-v6": []}
    for leases in asked["collect"]:
        network = Network(Filled(f"collect{leases}", asked["folder"], boot), leases)
        network.filled.fill(leases)
        network.filled.leases.damaged()  # as an engine has at its first GC
        listed.append(median(network.names() for _ in range(COLLECTIONS)))
        for plugin, taken in collected.items():
            taken.append(median(network.collect(asked["stale"], plugin) for _ in range(COLLECTIONS)))
    print(json.dumps({"samples": samples, "collected": collected, "listed": listed}))


if __name__ == "__main__":
    main()
