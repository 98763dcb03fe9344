"""The forms of the firewall's keys."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cni_v6.config.text import (
    ADDRESS,
    ADDRESS_REMEDY,
    PREFIX,
    Form,
    FormatError,
    link_local,
    network,
    one_of,
    pattern,
    unusable,
    value_of,
)
from cni_v6.net.addresses import BITS, to_text

PROTOCOLS = ("tcp", "udp", "sctp")  # those with ports that nftables can translate
_MODES, _INGRESS, _BACKENDS = ("auto", "on", "off"), ("published", "open", "isolated"), ("nftables", "iptables")
_GROUPS = {4: range(224, 256), 6: (0xFF,)}  # the first byte of multicast addresses, and of IPv4's reserved ones


def _translated(text: str) -> str:
    family, value, length = network(text)
    if family == 4:
        raise FormatError("is IPv4, and prefixes are translated in IPv6 only", "write an IPv6 prefix, or masquerade")
    if not 0 < length < BITS[6]:
        raise FormatError("is no prefix to translate", "take a /1 to a /127")
    what = unusable(family, value, length) or link_local(family, value, length)
    if what:
        raise FormatError(f"overlaps addresses that are not routed ({what})", "take a private or a routed prefix")
    return f"{to_text(family, value)}/{length}"


def _source(text: str) -> str:
    """An address that packets on a wire may come from."""
    family, value = _unmapped(text)
    what = unusable(family, value, BITS[family]) or link_local(family, value, BITS[family])
    if what:
        raise FormatError(f"is no address to be seen as ({what})", "write an address of the node")
    return to_text(family, value)


def _host_address(text: str) -> str:
    """An address a port may be published at: the node's loopback ones too, and the unspecified ones, for any.

    A link-local one says nothing without its interface, and IPv4-mapped ones never are on a wire.
    """
    family, value = _unmapped(text)
    if value and (family == 4 and value >> 24 == 0 or value >> BITS[family] - 8 in _GROUPS[family]):
        raise FormatError("is no address a node can have", "write an address of the node")
    if link_local(family, value, BITS[family]):
        raise FormatError(
            "is link-local, which says nothing without its interface", "write a routed address of the node"
        )
    return to_text(family, value)


def _unmapped(text: str) -> tuple[int, int]:
    family, value = value_of(text)
    if family == 4 and ":" in text:
        raise FormatError("is an IPv4-mapped address", f"write {to_text(family, value)}")
    return family, value


def _protocol(text: str) -> str:
    """In any case: CRI's own names (``TCP``) are in capitals, and a runtime may pass them on as they are."""
    if text.lower() not in PROTOCOLS:
        raise FormatError(f"is none of {', '.join(PROTOCOLS)}")
    return text.lower()


def _ports(text: str) -> str:
    match = re.fullmatch(f"({'|'.join(PROTOCOLS)})(?:/([0-9]{{1,5}})(?:-([0-9]{{1,5}}))?)?", text)
    if not match:
        raise FormatError("is no protocol with ports")
    protocol, low, high = match.groups()
    if low is None:
        return str(protocol)
    first, last = int(low), int(high or low)
    if not 0 < first <= last < 1 << 16:
        raise FormatError("has no ports from 1 to 65535, the lower one first")
    return f"{protocol}/{first}" if first == last else f"{protocol}/{first}-{last}"


FIREWALL_FORMS: Mapping[str, Form] = {
    "masquerade": Form(one_of(*_MODES), 'write "auto", "on" or "off"', pattern("^(auto|on|off)?$")),
    "ingress": Form(
        one_of(*_INGRESS), 'write "published", "open" or "isolated"', pattern("^(published|open|isolated)?$"),
    ),
    "backend": Form(one_of(*_BACKENDS), 'write "nftables", or leave it out', pattern("^(nftables)?$")),
    "translated": Form(_translated, "write an IPv6 prefix, such as fd42:1:2:3::/64", pattern(f"{PREFIX}|^$")),
    "source": Form(_source, ADDRESS_REMEDY, pattern(f"^({ADDRESS})?$")),
    "hostAddress": Form(_host_address, ADDRESS_REMEDY, pattern(f"^({ADDRESS})?$")),
    "protocol": Form(_protocol, "write tcp, udp or sctp", pattern("^([Tt][Cc][Pp]|[Uu][Dd][Pp]|[Ss][Cc][Tt][Pp])?$")),
    "ports": Form(
        _ports, "write tcp, tcp/443 or tcp/5000-5010, the same with udp and sctp",
        pattern("^(tcp|udp|sctp)(/[0-9]{1,5}(-[0-9]{1,5})?)?$"),
    ),
}
