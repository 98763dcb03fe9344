"""What each part of the firewall takes of a packet's way over a bridge: the guard with fewer of its rules.

The way with all rules stays as it is in ``paths``. Here parts are taken away, which no node should do: the differences
are what they take. Without an engine, which would put them back.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tests.bench.figures import Findings, Goal, Row, median
from tests.bench.peers import Plugins, without_engine
from tests.bench.routed import GUARDED, Way, new_node, trip, two_containers
from tests.bench.setting import Setting, Side

TURNS = 9
STREAM = Path(__file__).with_name("stream.py")
STREAMS, MIB = 5, 1024
SOURCE, TARGET = 5001, 5002  # ports
BRIDGED = "sysctl -q -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0"
NO_RULES = "nft flush chain bridge cni_v6 bridge_guard"
NO_INET, NO_BRIDGE = "nft delete table inet cni_v6", "nft delete table bridge cni_v6"
NO_REPORTS = "nft delete chain bridge cni_v6 bridge_reports"
# what is measured -> the commands that take away the rest; of ours, or of the reference
OURS = {
    "guarded": (), "without table bridge": (NO_BRIDGE,), "without table inet": (NO_INET,),
    "without table inet, hooks alone": (NO_INET, NO_RULES),
    "without table inet, one hook alone": (NO_INET, NO_RULES, NO_REPORTS),
    "without bridge netfilter": (BRIDGED,),
}
PEER: dict[str, tuple[str, ...]] = {"reference": (), "reference, without bridge netfilter": (BRIDGED,)}


def parts(setting: Setting, found: Findings) -> None:
    """Requests and responses between two containers of a node, in rotated order."""
    ours = without_engine(replace(setting.ours, keys=GUARDED))
    samples: dict[tuple[str, int], list[float]] = {}
    streams: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        ways = {name: _made(stack, ours, commands) for name, commands in OURS.items()}
        ways |= {name: _made(stack, setting.peer, commands) for name, commands in PEER.items()}
        names = list(ways)
        for turn in range(TURNS):
            for place in range(len(names)):
                name = names[(turn + place) % len(names)]
                for family in (6, 4):
                    samples.setdefault((name, family), []).append(trip(ways[name][family]))
        for turn in range(STREAMS):
            for name in ("guarded", "reference") if turn % 2 else ("reference", "guarded"):
                for family in (6, 4):
                    streams.setdefault((name, family), []).append(_stream(ways[name][family], family))
    for family in (6, 4):
        for name in names:
            taken, peer = (median(samples[each_name, family]) for each_name in (name, "reference"))
            found.rows.append(Row(f"request and response, IPv{family}, {name}, p50", "us", taken, peer,
                                  against="reference bridge"))
        values = median(streams["guarded", family]), median(streams["reference", family])
        found.rows.append(Row(f"CPU time of a GiB by TCP, IPv{family}, guarded", "s", *values, Goal(1.02),
                              against="reference bridge"))


def _stream(way: Way, family: int) -> float:
    """Seconds of CPU time of a GiB from the first container to the second."""
    node = way.node
    asked = {"kind": "tcp", "from": node.pod(0), "to": node.pod(1), "amount": MIB,
             "source": ["::" if family == 6 else "0.0.0.0", SOURCE], "target": [way.target, TARGET]}
    answer: dict[str, float] = json.loads(node.command([sys.executable, str(STREAM)], json.dumps(asked)))
    return answer["cpu"]


def _made(stack: ExitStack, plugins: Plugins, commands: tuple[str, ...]) -> dict[int, Way]:
    node = stack.enter_context(new_node())
    ways = two_containers(Side(plugins, node))
    for command in commands:
        node.command(command.split())
    return dict(ways)
