"""Our two tables as text for ``nft``: constant rules, and sets with the elements of every attachment.

``table inet cni_v6`` filters packets to and from containers, and translates addresses. ``table bridge cni_v6`` filters
what a container may send on its segment. No rule names a container or network, so the cost does not grow, and an ADD or
DEL only changes elements. Tables of others are never changed. Every chain of ours has the policy accept, so tables of
others can still drop what ours accept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache

from cni_v6.firewall import absent, dropped, guard, loopback
from cni_v6.firewall.elements import PROTOCOLS
from cni_v6.firewall.policy import CLOSED_SEGMENT, SHARED_SEGMENT
from cni_v6.firewall.sets import BRIDGE, INET, RAW, RAW_TARGET, SETS, TABLE, Element, Set
from cni_v6.net.addresses import from_text
from cni_v6.protocol.names import ROUTED_NETWORK, ROUTED_NETWORKS, SRV6_IN

# ICMPv6 that IPv6 needs to work (RFC 4890, section 4.3.1), and the same for IPv4. Errors about a known flow are
# "related" already; these are for flows that the node does not track.
ESSENTIAL6 = "destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-request"
ESSENTIAL4 = "destination-unreachable, time-exceeded, parameter-problem, echo-request"

# IANA's numbers: nft looks names up in /etc/protocols, which a minimal root or image lacks.
PROTOCOL = {**PROTOCOLS, "icmp": "1", "igmp": "2", "icmp6": "58"}

# Neighbour discovery, without which a container cannot find its gateway (RFC 4861).
DISCOVERY = "nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-report, mld2-listener-report"

# Labels of a connection (conntrack), by number: chain ``publish`` has looked for a published port, and has found none.
# Bits of the connection mark belong to the administrator; labels are Open vSwitch's alone, in zones of its own.
LOOKED, UNPUBLISHED = 126, 127

INET_CHAINS = """
    # Before NAT, so that answers of published ports pass. Here 127.0.0.0/8 in a packet that is not from loopback is
    # forged. route_localnet, which a port published on a loopback address needs, would accept it (CVE-2020-8558). The
    # same holds for the address that stands for ::1.
    chain prerouting_filter {
        type filter hook prerouting priority -150; policy accept;
        ip daddr 127.0.0.0/8 iifname != "lo" counter drop
        ip6 daddr %(for_loopback)s iifname != "lo" counter drop
        meta iifgroup %(closed)s goto from_segment
        meta iifgroup & %(networks)s == %(network)s jump from_routed
        ip saddr @containers4 ip saddr . iifname != @home4 goto spoofed_source
        ip6 saddr @containers6 ip6 saddr . iifname != @home6 goto spoofed_source
        meta iifgroup %(shared)s goto from_segment
    }

    # Packets of a routed container, whose interface nobody else is behind. Most have the right source, and need one
    # lookup.
    chain from_routed {
        ip6 saddr . iifname @home6 accept
        ip saddr . iifname @home4 accept
        iifname @bound goto bound_source
    }

    # 135 and 143 from :: are duplicate address detection (RFC 4862, section 5.4.2) and listener reports (RFC 3810,
    # section 5.2.13).
    chain bound_source {
        ip6 saddr . iifname @home_prefixes6 accept
        ip6 saddr :: icmpv6 type { 135, 143 } accept
        counter goto drop_source
    }

    # Every packet is tested, or a later one would pass as an answer. A VRF's own interface sees each packet again, as
    # does that by which the node agent encapsulates what goes to other nodes.
    chain spoofed_source {
        meta iifkind "vrf" accept
        iifname "%(again)s" accept
        counter goto drop_source
    }

    # Only for packets to the node itself: a published port must not catch forwarded packets (CVE-2025-67499). A port
    # published at one address has precedence over the same port at any address. A rule that translates ends the chain.
    chain publish {
        ct label set %(looked)d
        dnat ip to ip daddr . meta l4proto . th dport map @ports_at4
        dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports_at6
        dnat ip to meta l4proto . th dport map @ports4
        dnat ip6 to meta l4proto . th dport map @ports6
        ct label set %(unpublished)d
    }

    chain prerouting_publish {
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local meta l4proto { %(tcp)s, %(udp)s, %(sctp)s } jump publish
        dnat ip6 to ip6 daddr map @inbound6
    }

    chain output_publish {
        type nat hook output priority -100; policy accept;
        fib daddr type local meta l4proto { %(tcp)s, %(udp)s, %(sctp)s } jump publish
        dnat ip6 to ip6 daddr map @inbound6
    }

    chain postrouting_masquerade {
        type nat hook postrouting priority srcnat; policy accept;
        ct status dnat jump translated
        ct status dnat ip saddr 127.0.0.0/8 ip daddr . oifname @home4 masquerade
        ct status dnat ip6 saddr %(for_loopback)s ip6 daddr . oifname @home6 masquerade
        ip saddr . oifname @home4 return
        ip6 saddr . oifname @home6 return
        ip6 saddr . oifname @home_prefixes6 return
        ip saddr . meta oifgroup @neighbours4 return
        ip6 saddr . meta oifgroup @neighbours6 return
        ip6 saddr . meta oifgroup @neighbour_prefixes6 return
        ip daddr 224.0.0.0/4 return
        ip6 daddr ff00::/8 return
        ip saddr . ip daddr @keep4 return
        ip6 saddr . ip6 daddr @keep6 return
        snat ip to ip saddr . iifname map @snat4
        snat ip6 to ip6 saddr . iifname map @snat6
        snat ip6 to ip6 saddr . iifname map @snat_prefixes6
        ip saddr . iifname @masquerade4 masquerade
        ip6 saddr . iifname @masquerade6 masquerade
        ip6 saddr . iifname @masquerade_prefixes6 masquerade
    }

    # A connection from a network to its own published port, or to its own translated prefix, is masqueraded: the answer
    # must come back through the node. What others translate, such as services of Kubernetes, keeps its source; but
    # between isolated ports, where no answer comes back otherwise.
    chain translated {
        ip daddr . oifname @isolated4 goto hairpin
        ip6 daddr . oifname @isolated6 goto hairpin
        ip6 daddr . oifname @isolated_prefixes6 goto hairpin
        ct original ip6 daddr @outside6 goto hairpin
        ct label %(unpublished)d return
        ct label %(looked)d goto hairpin
    }

    chain hairpin {
        ip saddr . oifname @home4 masquerade
        ip6 saddr . oifname @home6 masquerade
        ip6 saddr . oifname @home_prefixes6 masquerade
    }

    chain forward_ingress {
        type filter hook forward priority filter; policy accept;
        tcp flags syn / syn,rst jump clamp
        ct state established,related accept
        ip6 saddr . ip6 nexthdr @container_prefixes6 ip6 saddr . iifname != @home_prefixes6 counter goto drop_source
        meta oifgroup & 0xfffffffe == %(closed)s jump to_segment
        ip daddr . oifname @isolated4 jump published4
        ip6 daddr . oifname @isolated6 jump published6
        ip6 daddr . oifname @isolated_prefixes6 jump published6
        ip daddr . iifname @home4 return
        ip6 daddr . iifname @home6 return
        ip6 daddr . iifname @home_prefixes6 return
        ip saddr . iifname @limited4 jump allowed4
        ip6 saddr . iifname @limited6 jump allowed6
        ip6 saddr . iifname @limited_prefixes6 jump allowed6
        ip daddr . meta iifgroup @neighbours4 return
        ip6 daddr . meta iifgroup @neighbours6 return
        ip6 daddr . meta iifgroup @neighbour_prefixes6 return
        ip daddr . oifname @published4 jump published4
        ip6 daddr . oifname @published6 jump published6
        ip6 daddr . oifname @published_prefixes6 jump published6
    }

    # Clamp the MSS to the route's MTU: larger packets are lost where ICMP is filtered (RFC 2923, section 2).
    chain clamp {
        ip saddr . iifname @home4 tcp option maxseg size set rt mtu
        ip6 saddr . iifname @home6 tcp option maxseg size set rt mtu
        ip daddr . oifname @home4 tcp option maxseg size set rt mtu
        ip6 daddr . oifname @home6 tcp option maxseg size set rt mtu
        ip6 saddr . iifname @home_prefixes6 tcp option maxseg size set rt mtu
        ip6 daddr . oifname @home_prefixes6 tcp option maxseg size set rt mtu
    }

    # In published6: a translated prefix (outside6) is DNAT too, but publishes nothing.
    chain published4 {
        icmp type { %(essential4)s } return
        ct status dnat return
        counter goto drop_closed4
    }

    chain published6 {
        icmpv6 type { %(essential6)s } return
        ct original ip6 daddr @outside6 counter goto drop_closed6
        ct status dnat return
        counter goto drop_closed6
    }

    # The egress list of a container applies to the node too.
    chain input_local {
        type filter hook input priority filter; policy accept;
        ct state established,related accept
        ip6 saddr . ip6 nexthdr @container_prefixes6 ip6 saddr . iifname != @home_prefixes6 counter goto drop_source
        ip saddr . iifname @limited4 jump allowed4
        ip6 saddr . iifname @limited6 jump allowed_here6
        ip6 saddr . iifname @limited_prefixes6 jump allowed_here6
    }

    chain allowed_here6 {
        icmpv6 type { %(discovery)s } return
        goto allowed6
    }

    chain allowed4 {
        ip saddr . ip daddr . meta l4proto . th dport @allowed4 return
        counter goto drop_egress4
    }

    # Neighbour discovery must stay on the link. Bridged packets (br_netfilter) have a link-local group or hop limit 255
    # (RFC 4861, section 7.1). Forwarded packets have a lower hop limit (ip6_forward, net/ipv6/ip6_output.c).
    chain allowed6 {
        ip6 daddr ff02::/16 icmpv6 type { %(discovery)s } return
        ip6 hoplimit 255 icmpv6 type { 135, 136 } return
        ip6 saddr . ip6 daddr . meta l4proto . th dport @allowed6 return
        counter goto drop_egress6
    }
"""

CHAINS = {
    INET: dropped.text(INET) + absent.CHAINS + (loopback.CHAINS + INET_CHAINS) % {
        "essential4": ESSENTIAL4, "essential6": ESSENTIAL6, "discovery": DISCOVERY, "closed": CLOSED_SEGMENT,
        "shared": SHARED_SEGMENT, "network": ROUTED_NETWORK, "networks": ROUTED_NETWORKS, "looked": LOOKED,
        "unpublished": UNPUBLISHED, "again": SRV6_IN, "for_loopback": loopback.STANDS_FOR, **PROTOCOL,
    },
    BRIDGE: dropped.text(BRIDGE) + guard.CHAINS,
}


def text(elements: Iterable[Element] = ()) -> str:
    """A script for ``nft`` that replaces both tables, in one transaction.

    :param elements: of the sets.
    """
    held: dict[tuple[str, str], list[Element]] = {}
    for element in elements:
        held.setdefault((element.family, element.set), []).append(element)
    return removal() + "".join(_table(family, held) for family in CHAINS)


def table(family: str) -> str:
    """One of the tables as text, its sets empty."""
    return _table(family, {})


def removal() -> str:
    """A script that deletes both tables. They may be absent, because ``add`` comes before ``delete``."""
    return "".join(f"add table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in CHAINS)


@cache
def mark() -> str:
    """A digest of the rules, which differs between versions: the comment of the only rule in each chain ``version``."""
    declared = "".join(_declaration(declared_set) for declared_set in SETS.values())
    digest = hashlib.blake2s("".join((*CHAINS.values(), declared)).encode(), digest_size=8).hexdigest()
    return f"cni-v6 {digest}"


def _table(family: str, held: dict[tuple[str, str], list[Element]]) -> str:
    own = [declared for declared in SETS.values() if declared.family == family]
    sets = "\n".join(_set(declared, held.get((family, declared.name), [])) for declared in own)
    version = f'\n    chain version {{\n        counter comment "{mark()}"\n    }}\n'
    return f"table {family} {TABLE} {{\n{sets}{version}{CHAINS[family]}}}\n"


def _set(declared: Set, elements: list[Element]) -> str:
    lines = "".join(f"            {_element(declared, element)},\n" for element in elements)
    body = f"        elements = {{\n{lines}        }}\n" if lines else ""
    return f"    {_declaration(declared)}{body}    }}\n"


def _declaration(declared: Set) -> str:
    """The declaration of a set without its elements and without the closing brace."""
    if not set(RAW).isdisjoint(declared.key):
        kind = f"typeof {' . '.join('iifname' if field == 'ifname' else field for field in declared.key)}"
    else:
        kind = f"type {' . '.join(declared.key)}"
    data = f" : {' . '.join(declared.data)}" if declared.data else ""
    flags = "        flags interval\n" * declared.intervals + "        counter\n" * declared.counted
    return f"{'map' if declared.data else 'set'} {declared.name} {{\n        {kind}{data}\n{flags}"


def _element(declared: Set, element: Element) -> str:
    key = " . ".join(_field(kind, value) for kind, value in zip(declared.key, element.key))
    comment = f' comment "{element.comment}"' if element.comment else ""
    data = f" : {' . '.join(element.data)}" if declared.data else ""
    return f"{key}{comment}{data}"


def _field(kind: str, value: str) -> str:
    if kind == "ifname":
        return f'"{value}"'
    if kind not in RAW:
        return value
    return f"0x{_number(value):032x}" if kind == RAW_TARGET else f"0x{value.replace(':', '')}"


def _number(address: str) -> int:
    """An IPv6 address as a number, as nft wants it for a raw field."""
    return from_text(address)[1]
