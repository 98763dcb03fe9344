"""What a flowtable could spare, beside our tables as they are: CPU time of bulk TCP and of small datagrams.

Where the kernel has flowtables (CONFIG_NFT_FLOW_OFFLOAD) they are measured. A shortcut is measured everywhere, which
does less than one: at the same hook, ingress of a device, it looks up the flow's addresses and ports in a set, and
``fwd`` sends the packet out by the other device (net/netfilter/nft_fwd_netdev.c). A flowtable keeps the flow alive and
rewrites what is translated besides (net/netfilter/nf_flow_table_ip.c).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.bench.figures import Findings, Goal, Row, median
from tests.bench.node import Node, Refused
from tests.bench.peers import UPLINK
from tests.bench.setting import SEED, Setting
from tests.bench.ways import ANY, BEYOND, STREAM, wire

CLOSED: dict[str, Any] = {"ingress": "published", "guard": True}
TRANSLATED: dict[str, Any] = {**CLOSED, "ipMasq": True}
BRIDGE = "bench0"
SOURCE, TARGET = 40000, 5201
AMOUNTS = {"tcp": 256, "udp": 50_000}  # MiB; datagrams
MANY = 1000  # packets: any flow has more
GAIN = Goal(0.8)  # what it must come down to, to be worth a key
AS_IT_IS, MASQUERADED, NOTHING = "as it is", "masqueraded", "without a firewall"
AGAIN = "as it is, once more"  # how far two equal ones lie apart
WAYS = {"the bridge": False, "the port": True}  # the other device beside the uplink -> whether it is the bridge port


@dataclass(frozen=True, slots=True)
class Flow:
    """From a container to a host beyond the node.

    :param container: its address. :param port: its end on the bridge. :param mac: its interface's.
    """

    kind: str
    family: int
    container: str
    port: str
    mac: str

    def shortcut(self, to_port: bool) -> str:
        """The stand-in, as text for nft: both directions, each at the ingress of the device it comes in by."""
        ip = "ip6" if self.family == 6 else "ip"
        device, beyond = self.port if to_port else BRIDGE, BEYOND[self.family]
        # As the flowtable, which leaves the ends of a connection to the connection tracking.
        middle = "tcp flags & (syn | fin | rst) == 0 " if self.kind == "tcp" else ""
        # A port has no neighbours, so what goes there is told its MAC address, as the flowtable remembers it.
        back = (f'ether daddr set {self.mac} fwd to "{device}"' if to_port
                else f'fwd {ip} to {self.container} device "{device}"')
        ends = ((device, self.container, SOURCE, beyond, TARGET, f'fwd {ip} to {beyond} device "{UPLINK}"'),
                (UPLINK, beyond, TARGET, self.container, SOURCE, back))
        chains = "".join(
            f"set from_{name} {{ typeof {ip} saddr . {ip} daddr . {self.kind} sport . {self.kind} dport\n"
            f"elements = {{ {source} . {target} . {sport} . {dport} }} }}\n"
            f'chain at_{name} {{ type filter hook ingress device "{name}" priority 0\n'
            f"{ip} saddr . {ip} daddr . {self.kind} sport . {self.kind} dport @from_{name} {middle}counter "
            f"{send}\n}}\n"
            for name, source, sport, target, dport, send in ends
        )
        return f"table netdev shortcut {{\n{chains}}}\n"

    def flowtable(self, to_port: bool) -> str:
        """The kernel's own."""
        device = self.port if to_port else BRIDGE
        return (
            "table inet shortcut {\nflowtable fast { hook ingress priority 0;"
            f' devices = {{ "{UPLINK}", "{device}" }}; }}\n'
            "chain passing { type filter hook forward priority 1\n"
            "meta l4proto { tcp, udp } ct state established flow add @fast counter\n}\n}\n"
        )


class Stage:
    """A node with an uplink to a host beyond it, and a container for each of these configurations."""

    def __init__(self, setting: Setting, *configurations: Mapping[str, Any]) -> None:
        self.node = Node(len(configurations) + 1)
        self._beyond = self.node.pod(len(configurations))
        wire(self.node, len(configurations))
        # The uplink is there before: forwarding is switched on for the interfaces that a node has.
        for number, keys in enumerate(configurations):
            self.node.run([setting.ours.add(self.node, number, **keys)]).checked()

    def flow(self, number: int, kind: str, family: int) -> Flow:
        [link] = json.loads(self.node.command(["ip", "-n", f"pod{number}", "-j", "address", "show", "dev", "eth0"]))
        [address] = [each["local"] for each in link["addr_info"]
                     if each["scope"] == "global" and (":" in each["local"]) == (family == 6)]
        [port] = [each["ifname"] for each in json.loads(self.node.command(["ip", "-j", "link"]))
                  if each["ifindex"] == link["link_index"]]
        return Flow(kind, family, address, port, link["address"])

    def measure(self, number: int, kind: str, family: int) -> dict[str, float]:
        """Seconds, of the clock (``seconds``) and of the processor (``cpu``)."""
        asked = {
            "kind": kind, "from": self.node.pod(number), "to": self._beyond, "amount": AMOUNTS[kind],
            "source": [ANY[family], SOURCE], "target": [BEYOND[family], TARGET],
        }
        answer: dict[str, float] = json.loads(self.node.command([sys.executable, str(STREAM)], json.dumps(asked)))
        return answer

    @contextmanager
    def rules(self, text: str) -> Iterator[None]:
        """More rules for a while. Raises Refused where the flow did not go by them."""
        table = text.split()[1:3]
        self.node.command(["nft", "-f", "-"], text)
        yield
        check(table[0], self.node.command(["nft", "list", "table", *table]))
        self.node.command(["nft", "delete", "table", *table])


def flowtable(setting: Setting, found: Findings) -> None:
    """Each way in turns, and its ratios to our tables as they are, round by round."""
    closed, plain = Stage(setting, CLOSED, TRANSLATED), Stage(setting, {})
    try:
        known = _has_flowtables(closed)
        for kind in AMOUNTS:
            for family in BEYOND:
                spent = _rounds(closed, plain, kind, family, max(3, setting.sizes.few // 2), known)
                found.rows += rows(kind, family, spent)
    finally:
        closed.node.close()
        plain.node.close()
    if not known:
        found.rows.append(Row("flowtable", "", None, goal=GAIN, remark="this kernel has none: CONFIG_NFT_FLOW_OFFLOAD"))


def check(family: str, listed: str) -> None:
    """The shortcut has seen the packets, and the forward hook beside a flowtable has not."""
    most = max(int(each) for each in re.findall(r"counter packets (\d+)", listed))
    if (most < MANY) is (family == "netdev"):
        raise Refused(f"the flow did not take the way it was to take: {listed}")


UsedAddresses = Mapping[str, list[dict[str, float]]]


def rows(kind: str, family: int, spent: UsedAddresses) -> list[Row]:
    """A row for each way but that of our tables as they are: medians of the rounds' ratios to it."""
    made = []
    what = "bulk TCP" if kind == "tcp" else "small UDP datagrams"
    for name, rounds in spent.items():
        if name == AS_IT_IS:
            continue
        pairs = list(zip(rounds, spent[AS_IT_IS]))
        cpu, speed = (median([one[key] / other[key] for one, other in pairs]) for key in ("cpu", "seconds"))
        goal = None if name in (AGAIN, MASQUERADED, NOTHING) else GAIN
        remark = f"throughput {1 / speed:.2f}; {_cost(kind, rounds)} against {_cost(kind, spent[AS_IT_IS])}"
        made.append(Row(f"{what}, IPv{family}, CPU time {name}", "", cpu, 1.0, goal, "own, as it is", remark))
    return made


def _rounds(closed: Stage, plain: Stage, kind: str, family: int, count: int, known: bool) -> UsedAddresses:
    random = Random(SEED)
    flow = closed.flow(0, kind, family)
    more = {f"by a shortcut of uplink and {name}": flow.shortcut(port) for name, port in WAYS.items()}
    if known:
        more |= {f"by a flowtable of uplink and {name}": flow.flowtable(port) for name, port in WAYS.items()}
    spent: dict[str, list[dict[str, float]]] = {name: [] for name in (AS_IT_IS, AGAIN, MASQUERADED, NOTHING, *more)}
    for _ in range(count):
        for name in random.sample(list(spent), len(spent)):
            if name in more:
                with closed.rules(more[name]):
                    spent[name].append(closed.measure(0, kind, family))
            elif name == NOTHING:
                spent[name].append(plain.measure(0, kind, family))
            else:
                spent[name].append(closed.measure(int(name == MASQUERADED), kind, family))
    return spent


def _cost(kind: str, rounds: list[dict[str, float]]) -> str:
    """CPU time of a GB, or of a datagram."""
    cpu = median([each["cpu"] for each in rounds])
    if kind == "tcp":
        return f"{cpu / (AMOUNTS[kind] * (1 << 20) / 1e9):.2f} s a GB"
    return f"{cpu / AMOUNTS[kind] * 1e6:.2f} us each"


def _has_flowtables(stage: Stage) -> bool:
    flow = stage.flow(0, "tcp", 6)
    try:
        stage.node.command(["nft", "--check", "-f", "-"], flow.flowtable(False))
    except Refused:
        return False
    return True
