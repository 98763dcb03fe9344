"""Ways of packets on a node of the benchmark, from one network namespace to another, and what a packet costs there."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.bench.node import Node, Refused
from tests.bench.peers import UPLINK

# The host beyond the uplink, and the node's end of it.
BEYOND = {6: "2001:db8::9", 4: "192.0.2.9"}
NODE = {6: "2001:db8::1/64", 4: "192.0.2.1/24"}
# The same host where containers are on its link: one of their subnets (``peers.SUBNETS``).
ON_LINK = {6: "fd00:88::ffff:9", 4: "10.88.255.9"}
CONTAINERS = {6: "fd00:88::/64", 4: "10.88.0.0/16"}
ANY = {6: "::", 4: "0.0.0.0"}
SOURCE, TARGET = 5001, 5002  # ports of a stream
MIB = 1 << 20
GB = 1e9
ROUNDTRIP = Path(__file__).with_name("roundtrip.py")
STREAM = Path(__file__).with_name("stream.py")


class Runs(Protocol):
    """A place to run a command in, with its standard output as the answer."""

    def command(self, argv: Sequence[str], stdin: str = "") -> str: ...


class new_node(Node):
    """A node that ends with its block."""

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Way:
    """From the namespace ``source`` to the namespace ``sink``, which has the address ``target``.

    ``node``: which has files of both.
    """

    node: Runs
    source: str
    sink: str
    target: str

    @property
    def family(self) -> int:
        return 6 if ":" in self.target else 4

    def trip(self, count: int) -> float:
        """Median of this many requests with their responses, in microseconds."""
        asked = {"from": self.source, "to": self.sink, "target": self.target, "trips": count}
        answer = json.loads(self.node.command([sys.executable, "-ISE", str(ROUNDTRIP)], json.dumps(asked) + "\n"))
        if not answer:
            raise Refused("no round trip")
        return float(answer["us"])

    def stream(self, mib: int) -> float:
        """Seconds of CPU time that a GB takes by TCP, measured with this many MiB."""
        return self._flow(mib, apart=False)["cpu"] * GB / (mib * MIB)

    def throughput(self, mib: int) -> float:
        """GB a second by TCP, measured with this many MiB. The two ends have a processor each, where there are two."""
        return mib * MIB / GB / self._flow(mib, apart=True)["seconds"]

    def _flow(self, mib: int, apart: bool) -> dict[str, float]:
        asked = {"kind": "tcp", "from": self.source, "to": self.sink, "amount": mib, "apart": apart,
                 "source": [ANY[self.family], SOURCE], "target": [self.target, TARGET]}
        answer: dict[str, float] = json.loads(
            self.node.command([sys.executable, str(STREAM)], json.dumps(asked) + "\n"))
        return answer


def between(node: Node, source: int, sink: int) -> dict[int, Way]:
    """The ways from a container to the global addresses of another, by family."""
    [link] = json.loads(node.command(["ip", "-j", "-n", f"pod{sink}", "address", "show", "dev", "eth0"]))
    found = {6 if entry["family"] == "inet6" else 4: entry["local"] for entry in link["addr_info"]
             if entry["scope"] == "global"}
    return {family: Way(node, node.pod(source), node.pod(sink), address) for family, address in found.items()}


def wire(node: Node, beyond: int, on_link: bool = False) -> None:
    """An uplink to a host, which is in a container's namespace: beyond the node, or on the link of the containers.

    Beyond the node both ends have a route, the node its default one and the host one to the containers.
    """
    host = f"pod{beyond}"
    lines = [f"ip link add {UPLINK} type veth peer name eth0 netns {host}"]
    for family in BEYOND:
        nodad = " nodad" if family == 6 else ""
        addresses = ON_LINK if on_link else BEYOND
        length = (CONTAINERS if on_link else NODE)[family].partition("/")[2]
        lines.append(f"ip -n {host} address add {addresses[family]}/{length} dev eth0{nodad}")
        if not on_link:
            lines.append(f"ip address add {NODE[family]} dev {UPLINK}{nodad}")
    lines += [f"ip link set {UPLINK} up", f"ip -n {host} link set eth0 up"]
    for family in () if on_link else BEYOND:
        lines += [
            f"ip route add default via {BEYOND[family]} dev {UPLINK}",
            f"ip -n {host} route add {CONTAINERS[family]} via {NODE[family].partition('/')[0]}",
        ]
    node.command(["sh", "-ec", "\n".join(lines)])


def outside(node: Node, source: int, beyond: int, on_link: bool = False) -> dict[int, Way]:
    """The ways from a container to that host, by family."""
    return {family: Way(node, node.pod(source), node.pod(beyond), address)
            for family, address in (ON_LINK if on_link else BEYOND).items()}
