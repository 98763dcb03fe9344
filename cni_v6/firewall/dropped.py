"""Sets in which rules count the packets that they drop, by the container that has sent them or is their destination.

A packet adds the element (``update``), so an ADD or a DEL knows nothing of it, and what the first rules of the guard
and ``forward_ingress`` accept costs no more than before. An element ends ten minutes after its last packet. What is
counted has a bound: interfaces of the node, and addresses that containers have (``home4``, ``home6``), never what a
packet says. If a set is full, ``update`` ends its rule (nft_dynset_eval, net/netfilter/nft_dynset.c): so the rule that
drops is always another one, behind it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cni_v6.firewall.sets import BRIDGE, IFNAME, INET, IPV4, IPV6, Set

SOURCE, ROUTER, CLOSED, EGRESS = "source", "router", "closed", "egress"  # why packets are dropped

# A set, and why the packets of its elements were dropped. The element is the container's host interface; behind a
# bridge, where packets name the bridge, its address and the bridge.
COUNTED: Mapping[tuple[str, str], tuple[Set, str]] = {
    (declared.family, declared.name): (declared, reason)
    for declared, reason in (
        (Set(INET, "dropped_source", (IFNAME,), counted=True), SOURCE),
        (Set(INET, "dropped_closed4", (IPV4, IFNAME), counted=True), CLOSED),
        (Set(INET, "dropped_closed6", (IPV6, IFNAME), counted=True), CLOSED),
        (Set(INET, "dropped_egress4", (IPV4, IFNAME), counted=True), EGRESS),
        (Set(INET, "dropped_egress6", (IPV6, IFNAME), counted=True), EGRESS),
        (Set(BRIDGE, "dropped_source", (IFNAME,), counted=True), SOURCE),
        (Set(BRIDGE, "dropped_router", (IFNAME,), counted=True), ROUTER),
    )
}
SIZE, TIMEOUT = 4096, "10m"

_SOURCE, _ROUTER = (f"update @dropped_{reason} {{ iifname counter }}" for reason in (SOURCE, ROUTER))
_CLOSED4, _CLOSED6, _EGRESS4, _EGRESS6 = (
    f"{key} @home{version} update @dropped_{reason}{version} {{ {key} counter }}" for reason, version, key in (
        (CLOSED, 4, "ip daddr . oifname"), (CLOSED, 6, "ip6 daddr . oifname"),
        (EGRESS, 4, "ip saddr . iifname"), (EGRESS, 6, "ip6 saddr . iifname"),
    )
)
# What counts the packets that a chain drops. Not here: what no container has sent and none would receive, and the
# chains that every new flow passes, where the same lookup twice would cost accepted packets something.
COUNTS: Mapping[str, str] = {
    **dict.fromkeys(("bound_source", "spoofed_source"), _SOURCE),
    "published4": _CLOSED4, "published6": _CLOSED6, "allowed4": _EGRESS4, "allowed6": _EGRESS6,
    **dict.fromkeys((
        "guard_source", "guard_address", "guard_arp", "guard_address4", "guard_address6", "guard_discovery",
    ), _SOURCE),
    **dict.fromkeys(("guard_link", "guard_ipv6", "guard_ipv4", "guard_udp", "guard_fragments"), _ROUTER),
}
_CHAIN = re.compile(r"(?<=    chain )(\w+)( \{\n.*?\n    \})", re.DOTALL)
_DROP = re.compile(r"^( +)(.*)counter drop$", re.MULTILINE)


def counting(chains: str) -> str:
    """Chains in whose text each rule that drops has one before it, on the same condition, that counts for whom."""
    def chain(found: re.Match[str]) -> str:
        counts = COUNTS.get(found[1], "")
        rules = _DROP.sub(rf"\1\g<2>{counts}\n\g<0>", found[2]) if counts else found[2]
        return found[1] + rules

    return _CHAIN.sub(chain, chains)


def declarations(family: str) -> str:
    """The sets of a table, as its text has them."""
    return "".join(
        f"""
    set {declared.name} {{
        type {" . ".join(declared.key)}
        size {SIZE}
        flags dynamic,timeout
        timeout {TIMEOUT}
    }}
"""
        for declared, _ in COUNTED.values() if declared.family == family
    )
