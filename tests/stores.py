"""What the tests of the lease store share: sets of addresses, attachments, the reference plugin, a folder's content."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from cni_v6.allocation.policy import DEFAULT, AllocationPolicy
from cni_v6.allocation.ranges import Range, RangeSet
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk.store import DiskLeases
from cni_v6.leases.store import Leases
from cni_v6.net.addresses import from_text, to_text
from cni_v6.protocol.names import Owner

Choice = tuple[RangeSet, AllocationPolicy]  # a set, and how it is handed out

NETWORK = "pods"
BOOT = "11111111-2222-4333-8444-555555555555"
HOST_LOCAL = Path("/usr/lib/cni/host-local")  # Debian's containernetworking-plugins
BESIDE = {"attachments", "cursors", "lock"}  # what lies in a network's folder besides leases and cursors


def span(subnet: str, first: int = 1, last: int = -1) -> Range:
    """The addresses of a subnet with these offsets, the last one counted from the end if negative; gateway: the 1st."""
    text, _, length = subnet.partition("/")
    family, network = from_text(text)
    count = 1 << ((32 if family == 4 else 128) - int(length))
    end = network + (last if last >= 0 else count + last)
    return Range(family, network, int(length), network + first, end, to_text(family, network + 1))


def pool(*subnets: str) -> RangeSet:
    """A set of whole subnets, without network address and, for IPv4, broadcast address."""
    return RangeSet(tuple(span(subnet, 1, -1 if ":" in subnet else -2) for subnet in subnets))


SMALL = pool("10.1.0.0/29")  # 10.1.0.2 to 10.1.0.6
LARGE = pool("2001:db8::/64")


def owner(container_id: str, ifname: str = "eth0") -> Owner:
    return Owner(NETWORK, container_id, ifname)


def add(leases: Leases, container_id: str, *sets: RangeSet) -> tuple[str, ...]:
    """What an ADD does: an address of each set, leased to the container."""
    with leases.transaction() as work:
        addresses = tuple(work.choose(index, addresses) for index, addresses in enumerate(sets))
        boot = leases.boot if isinstance(leases, DiskLeases) else BOOT
        reuse = tuple(DEFAULT.reuse_mode(each) for each in sets)
        work.put(Attachment(owner(container_id), addresses, host="veth0", netns=(4, 17), created=1e9, boot=boot,
                            reuse=reuse))
    return addresses


def attachment(
    container_id: str, addresses: Sequence[str], choices: Sequence[Choice], *, boot: str, created: float
) -> Attachment:
    """What an ADD records of addresses that were chosen, or asked for, of these sets."""
    ways = tuple(policy.reuse_mode(each) for each, policy in choices)
    identity = next((policy.identity for _, policy in choices if policy.identity), "")
    return Attachment(owner(container_id), tuple(addresses), "veth0", (4, 17), created, boot, reuse=ways,
                      identity=identity)


def delete(leases: Leases, container_id: str) -> tuple[str, ...] | None:
    """What a DEL does; the addresses that were freed, None where nothing is known."""
    with leases.transaction() as work:
        dropped = work.drop(owner(container_id))
    return None if dropped is None else dropped.addresses


def held(leases: Leases, container_id: str, ifname: str = "eth0") -> tuple[str, ...] | None:
    with leases.transaction() as work:
        found = work.get(owner(container_id, ifname))
    return None if found is None else found.addresses


def lease_files(folder: Path) -> dict[str, str]:
    """Address -> content of every lease file."""
    return {path.name: path.read_bytes().decode() for path in sorted(folder.iterdir())
            if path.name not in BESIDE and not path.name.startswith("last_reserved_ip.")}


def record_files(folder: Path) -> dict[str, list[str]]:
    """Record's name -> its addresses."""
    return {path.name: json.loads(path.read_text())["addresses"] for path in sorted((folder / "attachments").iterdir())
            if not path.name.startswith(".")}


class HostLocal:
    """The reference plugin on a data folder, with a set for each subnet."""

    def __init__(self, data: Path, *subnets: str) -> None:
        self._config = json.dumps({
            "cniVersion": "1.0.0", "name": NETWORK, "type": "x",
            "ipam": {"type": "host-local", "dataDir": str(data), "ranges": [[{"subnet": text}] for text in subnets]}})

    def start(self, command: str, container_id: str) -> subprocess.Popen[str]:
        # It looks at no namespace: any path will do.
        env = {"CNI_COMMAND": command, "CNI_CONTAINERID": container_id, "CNI_NETNS": "/dev/null",
               "CNI_IFNAME": "eth0", "CNI_PATH": str(HOST_LOCAL.parent)}
        process = subprocess.Popen([HOST_LOCAL], env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin
        process.stdin.write(self._config)
        process.stdin.close()
        process.stdin = None
        return process

    def add(self, container_id: str) -> tuple[str, ...]:
        return addresses_of(self.start("ADD", container_id))

    def delete(self, container_id: str) -> None:
        with self.start("DEL", container_id) as process:
            output, _ = process.communicate()
        assert process.returncode == 0, output


def addresses_of(process: subprocess.Popen[str]) -> tuple[str, ...]:
    """The addresses in the answer of a plugin, without prefix length."""
    with process:
        output, _ = process.communicate()
    assert process.returncode == 0, output
    return tuple(str(ip["address"]).partition("/")[0] for ip in json.loads(output)["ips"])


def waiters(lock: Path) -> Iterator[int]:
    """Processes that wait for the flock of a file (/proc/locks marks them with an arrow)."""
    inode = str(os.stat(lock).st_ino)
    for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
        words = line.split()
        if words[1] == "->" and words[6].endswith(f":{inode}"):
            yield int(words[5])
