"""How packets of containers are dropped and counted, by the container that has sent them or is their destination.

A rule that drops says ``counter goto drop_closed4``. That chain adds the packet to a set (``update``) and drops it. So
an ADD or a DEL knows nothing of it, and a packet that is accepted passes no rule for it. An element ends ten minutes
after its last packet. What is counted has a bound: interfaces of the node, and addresses that containers have
(``home4``, ``home6``), never what a packet says. If a set is full, ``update`` ends its rule (nft_dynset_eval,
net/netfilter/nft_dynset.c), so the rule that drops is another one, behind it.

A plain ``counter drop`` is for what no container has sent and none would receive.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cni_v6.firewall.sets import BRIDGE, IFNAME, INET, IPV4, IPV6, Set

SOURCE, ROUTER, CLOSED, EGRESS = "source", "router", "closed", "egress"  # why packets are dropped
SIZE, TIMEOUT = 4096, "10m"


class _End(NamedTuple):
    """A chain where packets end. ``packets``: the key of its set as a packet has it, only if ``among`` contains it.

    The key is the container's host interface; behind a bridge, where packets name the bridge, its address and the
    bridge.
    """

    family: str
    name: str
    reason: str
    key: tuple[str, ...]
    packets: str
    among: str = ""

    @property
    def chain(self) -> str:
        return f"drop_{self.name}"

    @property
    def counted(self) -> Set:
        return Set(self.family, f"dropped_{self.name}", self.key, counted=True)

    @property
    def text(self) -> str:
        match = f"{self.packets} @{self.among} " if self.among else ""
        return f"""
    set {self.counted.name} {{
        type {" . ".join(self.key)}
        size {SIZE}
        flags dynamic,timeout
        timeout {TIMEOUT}
    }}

    chain {self.chain} {{
        {match}update @{self.counted.name} {{ {self.packets} counter }}
        drop
    }}
"""


_ENDS = (
    _End(INET, "source", SOURCE, (IFNAME,), "iifname"),
    _End(INET, "closed4", CLOSED, (IPV4, IFNAME), "ip daddr . oifname", "home4"),
    _End(INET, "closed6", CLOSED, (IPV6, IFNAME), "ip6 daddr . oifname", "home6"),
    _End(INET, "egress4", EGRESS, (IPV4, IFNAME), "ip saddr . iifname", "home4"),
    _End(INET, "egress6", EGRESS, (IPV6, IFNAME), "ip6 saddr . iifname", "home6"),
    _End(BRIDGE, "source", SOURCE, (IFNAME,), "iifname"),
    _End(BRIDGE, "router", ROUTER, (IFNAME,), "iifname"),
)
CHAINS = frozenset(end.chain for end in _ENDS)
# The sets that count, and why the packets of their elements were dropped.
COUNTED: Mapping[tuple[str, str], tuple[Set, str]] = {
    (end.family, end.counted.name): (end.counted, end.reason) for end in _ENDS
}


def text(family: str) -> str:
    """The sets and chains of a table, as its text has them."""
    return "".join(end.text for end in _ENDS if end.family == family)
