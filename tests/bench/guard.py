"""What each part of the firewall takes of a packet's way over a bridge, or routed: tables with fewer of their rules.

The way with all rules stays as it is in ``paths``. Here parts are taken away, which no node should do: the differences
are what they take. Without an engine, which would put them back.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from cni_v6.firewall.policy import CLOSED_SEGMENT
from tests.bench import peers, ways
from tests.bench.figures import Findings, Goal, Row, median
from tests.bench.paths import CPU, FIRST, GUARDED, NEAR, SECOND, TRIP, Column, Kind, measured
from tests.bench.peers import Plugins, without_engine
from tests.bench.setting import Setting, Side

GUARD, REFERENCE = "guarded", "reference"
BRIDGED = "sysctl -q -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0"
NO_RULES = "nft flush chain bridge cni_v6 bridge_guard"
NO_INET, NO_BRIDGE = "nft delete table inet cni_v6", "nft delete table bridge cni_v6"
NO_REPORTS = "nft delete chain bridge cni_v6 bridge_reports"
UNTRACKED = ("nft add table inet untracked ;"
             " add chain inet untracked bridged { type filter hook prerouting priority -300 ; } ;"
             f" add rule inet untracked bridged meta iifgroup {CLOSED_SEGMENT} notrack")
INGRESS = "nft flush chain inet cni_v6 prerouting_filter"
# what is measured -> the commands that take away the rest; of ours, or of the reference
OURS = {
    GUARD: (), "without table bridge": (NO_BRIDGE,), "without table inet": (NO_INET,),
    "without table inet, hooks alone": (NO_INET, NO_RULES),
    "without table inet, one hook alone": (NO_INET, NO_RULES, NO_REPORTS),
    "without bridge netfilter": (BRIDGED,),
    "without the chain prerouting_filter": (INGRESS,), "bridged packets not tracked": (UNTRACKED,),
}
# The same of a routed container.
NO_RULES_OF_INET = tuple(f"nft flush chain inet cni_v6 {chain}" for chain in (
    "prerouting_filter", "prerouting_publish", "forward_ingress", "postrouting_masquerade"))
ROUTED: dict[str, tuple[str, ...]] = {
    "routed": (), "routed, without table inet": (NO_INET,),
    "routed, without the chain prerouting_filter": (INGRESS,),
    "routed, hooks and connection tracking alone": NO_RULES_OF_INET,
}
PEER: dict[str, tuple[str, ...]] = {REFERENCE: (), "reference, without bridge netfilter": (BRIDGED,)}


def parts(setting: Setting, found: Findings) -> None:
    """Requests and responses between two containers of a node, in rotated order; a stream of what has all its rules."""
    ours, sizes = without_engine(replace(setting.ours, keys=GUARDED)), setting.sizes
    with ExitStack() as stack:
        kinds = {name: _made(stack, ours, commands) for name, commands in OURS.items()}
        routed = peers.routed(ours, "cni-v6-routed")
        kinds |= {name: _made(stack, routed, commands) for name, commands in ROUTED.items()}
        kinds |= {name: _made(stack, setting.peer, commands) for name, commands in PEER.items()}
        trips = measured(kinds, sizes.turns, TRIP, lambda way: way.trip(sizes.trips))
        whole = {name: kinds[name] for name in (GUARD, REFERENCE)}
        streams = measured(whole, sizes.streams, CPU, lambda way: way.stream(sizes.mib))
    for samples, names, goal in ((trips, list(kinds), None), (streams, [GUARD], Goal(1.02))):
        for family in (6, 4):
            for name in names:
                column = Column(TRIP if samples is trips else CPU, NEAR, family)
                ours_took, peer_took = (median(samples[player, column]) for player in (name, REFERENCE))
                figure = f"{column.measure.name}, IPv{family}, {name}"
                found.rows.append(
                    Row(figure, column.measure.unit, ours_took, peer_took, goal, against="reference bridge"))


def _made(stack: ExitStack, plugins: Plugins, commands: Sequence[str]) -> Kind:
    node = stack.enter_context(ways.new_node(2))
    Side(plugins, node).add([FIRST, SECOND])
    for command in commands:
        node.command(command.split())
    return {(NEAR, family): way for family, way in ways.between(node, FIRST, SECOND).items()}
