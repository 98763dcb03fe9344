"""Many nodes' agents on one etcd: in this process, or in processes of their own. Their kernels and disks are in memory.

``python -m tests.cluster_load`` is such a process: it reads commands, lines of JSON, and answers each with one.
"""

from __future__ import annotations

import json
import re
import select
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from urllib.request import urlopen

from cni_v6.cluster import membership, records, report
from cni_v6.cluster.agent import Agent
from cni_v6.cluster.config import AgentConf, Pool
from cni_v6.cluster.etcd_store import EtcdStore
from cni_v6.cluster.facts import Underlay
from cni_v6.cluster.fake import FakeNode
from cni_v6.cluster.report import Report
from cni_v6.cluster.state import State
from tests.sandbox import ROOT

CONF = AgentConf(
    (Pool("fd42:8e1f:6a00::/48", 64), Pool("10.64.0.0/10", 24)), "direct", "", "/etc/template", "/etc/target", "/state",
)
POOLS = [{"cidr": pool.cidr, "block": pool.block} for pool in CONF.pools]
TEMPLATE: dict[str, Any] = {"plugins": [{"ipam": {}}]}
PATIENCE = 600.0
AT_ONCE = 8  # agents of a process that do something at the same time
SECONDS = 60.0  # etcd, the agents and whatever else this machine does share its processors


class MemoryDisk:
    """The agent's files."""

    def __init__(self) -> None:
        self.state: State | None = None
        self.conflist: str | None = None
        self.ready = False
        self.writes = 0

    def load(self) -> State | None:
        return self.state

    def save(self, state: State) -> None:
        self.writes += state != self.state
        self.state = state

    def read_conflist(self) -> str | None:
        return self.conflist

    def write_conflist(self, text: str | None) -> None:
        self.writes += 1
        self.conflist = text

    def set_ready(self, ready: bool) -> None:
        self.ready = ready


class Node:
    """A node with its agent."""

    def __init__(self, target: str, number: int) -> None:
        self._target = target
        self._number = number
        self._disk = MemoryDisk()
        self._store: EtcdStore | None = None
        self.moved = 0
        self.start()

    def start(self) -> None:
        """Begin, or begin again after a reboot: routes are gone, the disk is not."""
        self.close()
        self._store = EtcdStore(self._target, SECONDS)
        self._store.fileno()  # from now on it listens
        self.kernel = FakeNode(self._underlay())
        self._agent = Agent(
            CONF, f"node-{self._number}", TEMPLATE, store=self._store, kernel=self.kernel, disk=self._disk,
            make_id=lambda: f"{self._number:032x}", say=lambda words: None,
        )

    def close(self) -> None:
        if self._store:
            self._store.close()

    def join(self) -> list[str]:
        """Until it is ready; its blocks."""
        while not self._agent.step().ready:
            pass
        assert self._disk.state
        return [*membership.own_blocks(self._agent.member, CONF, records.read(self._disk.state.objects))]

    def settle(self, entries: int) -> int:
        """Step whenever there is news, until it has so many routes; the number of steps."""
        steps = 0
        while len(self.kernel.entries) != entries:
            self.await_news()
            self._agent.step()
            steps += 1
        return steps

    def listen(self) -> None:
        """Until its watch goes on: from then on it reads nothing from the server."""
        while self.store._follower._mirror.read(0, 0.0) is None:
            self.await_news()

    def move(self) -> str:
        """Get another address on the link."""
        self.moved += 1
        self.kernel.underlay = self._underlay()
        self._agent.step()
        return self.kernel.underlay.addresses[0]

    def hear(self, node: str, address: str) -> None:
        """Until its copy of the store has another node's address."""
        while address not in self.store.read()[f"nodes/{node}"]:
            self.await_news()

    def report(self) -> None:
        """Say that all answer whom it asks."""
        assert self._disk.state
        cluster = records.read(self._disk.state.objects)
        tested = [*report.targets(report.peers(self._agent.member, cluster))]
        answers = report.answers(tested, {address: True for _, _, address in tested}, (), 1)
        self.store.report(self._agent.member.name, report.encode(Report(self._agent.member.id, {}, answers, 1)))

    def await_news(self) -> None:
        assert select.select([self.store], [], [], PATIENCE)[0], "nothing was heard"
        self.store.drain()

    @property
    def store(self) -> EtcdStore:
        assert self._store
        return self._store

    def _underlay(self) -> Underlay:
        tail = f"{self.moved + 1:x}:{self._number + 1:x}"  # in canonical form
        return Underlay("eth0", 1500, True, (f"fd00:11::{tail}", f"172.{16 + self.moved}.{self._number >> 8}"
                                             f".{self._number & 0xFF}"))


def each(nodes: Iterable[Node], act: Callable[[Node], Any]) -> list[Any]:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return [*threads.map(act, nodes)]


def asked(url: str) -> dict[str, int]:
    """What etcd has done so far: reads, transactions, messages of watches, bytes sent; by its own metrics."""
    with urlopen(f"{url}/metrics", timeout=PATIENCE) as answer:
        text = answer.read().decode()
    wanted = {
        "reads": r'grpc_server_handled_total\{grpc_code="OK",grpc_method="Range",[^}]*\} (\S+)',
        "commits": r'grpc_server_handled_total\{grpc_code="OK",grpc_method="Txn",[^}]*\} (\S+)',
        "messages": r'grpc_server_msg_sent_total\{grpc_method="Watch",[^}]*\} (\S+)',
        "bytes": r"etcd_network_client_grpc_sent_bytes_total (\S+)",
    }
    found = {name: re.search(f"^{pattern}", text, re.MULTILINE) for name, pattern in wanted.items()}
    return {name: int(float(match[1])) if match else 0 for name, match in found.items()}


class Process:
    """Nodes in a process of their own.

    :param before: a command that runs another one where they are to be.
    """

    def __init__(self, target: str, first: int, count: int, before: Sequence[str] = ()) -> None:
        argv = [*before, sys.executable, "-m", "tests.cluster_load", target, str(first), str(count)]
        self._process = subprocess.Popen(argv, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def tell(self, act: str, *arguments: Any) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps([act, *arguments]) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        with suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        self._process.wait(PATIENCE)
        if self._process.stdout:
            self._process.stdout.close()


def _main(target: str, first: str, count: str) -> None:
    nodes = [Node(target, number) for number in range(int(first), int(first) + int(count))]
    acts: dict[str, Callable[..., Any]] = {
        "join": lambda: [block for blocks in each(nodes, Node.join) for block in blocks],
        "settle": lambda entries: sum(each(nodes, lambda node: node.settle(entries))),
        "restart": lambda: each(nodes, Node.start) and None,
        "listen": lambda: each(nodes, Node.listen) and None,
        "report": lambda: each(nodes, Node.report) and None,
        "move": lambda: nodes[0].move(),
        "hear": lambda name, address: each(nodes, lambda node: node.hear(name, address)) and None,
    }
    print("null", flush=True)  # all of them listen
    for line in sys.stdin:
        act, *arguments = json.loads(line)
        print(json.dumps(acts[act](*arguments)), flush=True)
    each(nodes, Node.close)


if __name__ == "__main__":
    _main(*sys.argv[1:])
