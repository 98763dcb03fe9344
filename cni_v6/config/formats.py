"""The forms a string of the configuration can have: what is accepted, its canonical text, its JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cni_v6.config.text import (
    ADDRESS,
    ADDRESS_REMEDY,
    PREFIX,
    PREFIX_REMEDY,
    SPANS,
    Form,
    FormatError,
    duration,
    link_local,
    network,
    one_of,
    parse_prefix,
    pattern,
    unusable,
    value_of,
)
from cni_v6.net.addresses import BITS, to_text
from cni_v6.protocol.names import IFNAMSIZ

__all__ = ["FORMS", "LINK_LOCAL_GATEWAY", "Form", "FormatError", "parse_prefix"]

LINK_LOCAL_GATEWAY = "fe80::1"
LOG_SUFFIX = ".jsonl"  # no program that we know of has a file so named that it needs

PROTOCOLS = ("tcp", "udp", "sctp")  # those with ports that nftables can translate
_MODES, _INGRESS, _BACKENDS = ("auto", "on", "off"), ("published", "open", "isolated"), ("nftables", "iptables")
UNNUMBERED = "unnumbered"
_CARRIERS = ("direct", "vxlan", "srv6", "wireguard", "bgp")  # of the node agent
_GROUPS = {4: range(224, 256), 6: (0xFF,)}  # the first byte of multicast addresses, and of IPv4's reserved ones
_CONTROL = r"\u0000-\u001f\u007f-\u009f"


def _address(text: str) -> str:
    return to_text(*value_of(text))


def _request(text: str) -> str:
    if "/" in text:
        family, value, _ = parse_prefix(text)
        return to_text(family, value)
    return _address(text)


def _gateway(text: str) -> str:
    return LINK_LOCAL_GATEWAY if text == "link-local" else _address(text)


def _peer(text: str) -> str:
    return text if text == UNNUMBERED else _address(text)


def _route(text: str) -> str:
    family, value, length = network(text)
    return f"{to_text(family, value)}/{length}"


def _destination(text: str) -> str:
    """As ``_route``, but host bits stay: whoever reads it masks them, with a warning."""
    family, value, length = parse_prefix(text)
    return f"{to_text(family, value)}/{length}"


def _span(text: str) -> str:
    return _route(text) if "/" in text else _address(text)


def _subnet(text: str) -> str:
    family, value, length = network(text)
    if length > BITS[family] - 2:
        raise FormatError("is too small to allocate from", f"take a /{BITS[family] - 2} or larger")
    what = unusable(family, value, length)
    if what:
        raise FormatError(f"overlaps addresses no container can have ({what})", "take a private or a routed prefix")
    return f"{to_text(family, value)}/{length}"


def _nameserver(text: str) -> str:
    address, percent, zone = text.partition("%")
    if percent and not re.fullmatch(r"[!-~]{1,15}", zone):
        raise FormatError("has a zone that is no interface name")
    value_of(address)
    return text


def _mac(text: str) -> str:
    """The forms Go's ``net.ParseMAC`` takes: by colons, by hyphens, by dots."""
    if not re.fullmatch(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}|[0-9A-Fa-f]{2}(-[0-9A-Fa-f]{2}){5}"
                        r"|[0-9A-Fa-f]{4}(\.[0-9A-Fa-f]{4}){2}", text):
        raise FormatError("is not a MAC address of 6 bytes")
    digits = re.sub("[-:.]", "", text.lower())
    if int(digits[:2], 16) & 1:  # IEEE 802: the group bit
        raise FormatError("is a multicast MAC address")
    if not int(digits, 16):
        raise FormatError("is the empty MAC address")
    return ":".join(digits[at: at + 2] for at in range(0, 12, 2))


def _interface(text: str) -> str:
    """What the kernel takes (net/core/dev.c, ``dev_valid_name``), less what would be dangerous to take.

    ``all`` and ``default`` are folders of /proc/sys/net/ipv6/conf that stand for other interfaces; ``%`` makes the
    kernel number the name.
    """
    if not re.fullmatch(r"[!-~]+", text) or re.search("[/:%]", text) or text in (".", "..", "all", "default"):
        raise FormatError("is not an interface name")
    if len(text) > IFNAMSIZ:
        raise FormatError(f"is longer than the {IFNAMSIZ} characters of an interface name")
    return text


def _engine(text: str) -> str:
    if text not in ("auto", "off"):
        raise FormatError("is neither auto nor off")
    return text


def _path(text: str) -> str:
    if re.search("[\0-\x1f\x7f]", text) or not text.isprintable():
        raise FormatError("has characters that cannot be printed")
    if not text.startswith("/"):
        raise FormatError("is not an absolute path")
    if ".." in text.split("/"):
        raise FormatError("leads upwards by ..")
    return "/" + "/".join(part for part in text.split("/") if part not in ("", "."))


def _log_file(text: str) -> str:
    path = _path(text)
    if not path.endswith(LOG_SUFFIX) or path.endswith("/" + LOG_SUFFIX):
        raise FormatError(f"does not end with a name and {LOG_SUFFIX}")
    return path


def _plugin(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z_.+-]{1,255}", text) or text in (".", ".."):
        raise FormatError("is not the plain name of a plugin")
    return text


def _plain(text: str) -> str:
    if re.search(f"[{_CONTROL}]", text):
        raise FormatError("has control characters")
    return text


def _word(text: str) -> str:
    if not re.fullmatch("[!-~]+", text):
        raise FormatError("is not a single word")
    return text


def _hex(text: str) -> str:
    if not re.fullmatch("[0-9A-Fa-f]{1,32}", text):
        raise FormatError("is no hexadecimal number of 1 to 32 digits")
    return text.lower()


# The firewall's


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


FORMS: Mapping[str, Form] = {
    "plain": Form(_plain, "take them out", {}),
    "word": Form(_word, "write one word without spaces", pattern("^[!-~]*$")),
    "address": Form(_address, ADDRESS_REMEDY, pattern(f"^({ADDRESS})?$")),
    "request": Form(_request, ADDRESS_REMEDY, pattern(rf"^{ADDRESS}(/[0-9]{{1,3}})?$")),
    "gateway": Form(
        _gateway, "write an address such as fd42:1:2:3::1, or \"link-local\"", pattern(f"^({ADDRESS}|link-local)?$"),
    ),
    "nameserver": Form(_nameserver, ADDRESS_REMEDY, pattern(f"^{ADDRESS}(%[!-~]+)?$")),
    "subnet": Form(_subnet, PREFIX_REMEDY, pattern(f"{PREFIX}|^$")),
    "route": Form(_route, PREFIX_REMEDY, pattern(PREFIX)),
    "destination": Form(_destination, PREFIX_REMEDY, pattern(PREFIX)),
    "span": Form(
        _span, "write an address or a prefix, such as 10.1.0.5 or fd42:1:2:3::/112",
        pattern(rf"^{ADDRESS}(/[0-9]{{1,3}})?$"),
    ),
    "reuse": Form(
        one_of("never", "after", "auto"), 'write "never", "after" or "auto"', pattern("^(never|after|auto)?$"),
    ),
    "allocation": Form(
        one_of("sequential", "random", "stable"), 'write "sequential", "random" or "stable"',
        pattern("^(sequential|random|stable)?$"),
    ),
    "duration": Form(
        duration, "write a number and s, m, h or d, such as 30s, 10m, 1h, 7d",
        pattern(f"^([0-9]{{1,9}}({'|'.join(SPANS)}))?$"),
    ),
    "family": Form(one_of("ipv4", "ipv6"), 'write "ipv4" or "ipv6"', pattern("^ipv[46]$")),
    "hex": Form(_hex, "write one such as ab00, without 0x", pattern("^[0-9A-Fa-f]{0,32}$")),
    "mac": Form(
        _mac, "write 6 bytes with an even first one, such as 02:00:5e:10:00:01", pattern("^[0-9A-Fa-f:.-]*$"),
    ),
    "interface": Form(
        _interface, f"1 to {IFNAMSIZ} printable characters without space, / : and %",
        {"pattern": "^[!-$&-.0-9;-~]+$", "maxLength": IFNAMSIZ},
    ),
    "engine": Form(_engine, 'write "auto" or "off"', pattern("^(auto|off)?$")),
    "masquerade": Form(one_of(*_MODES), 'write "auto", "on" or "off"', pattern("^(auto|on|off)?$")),
    "ingress": Form(
        one_of(*_INGRESS), 'write "published", "open" or "isolated"', pattern("^(published|open|isolated)?$"),
    ),
    "clusterIngress": Form(one_of(*_INGRESS[:2]), 'write "published" or "open"', pattern("^(published|open)?$")),
    "macvlanMode": Form(
        one_of("bridge", "private", "vepa", "passthru"), 'write "bridge", "private", "vepa" or "passthru"',
        pattern("^(bridge|private|vepa|passthru)?$"),
    ),
    "ipvlanMode": Form(one_of("l2", "l3", "l3s"), 'write "l2", "l3" or "l3s"', pattern("^(l2|l3|l3s)?$")),
    "overlap": Form(one_of("refuse", "allow"), 'write "refuse" or "allow"', pattern("^(refuse|allow)?$")),
    "carrier": Form(one_of(*_CARRIERS), f"write one of {', '.join(_CARRIERS)}", pattern(f"^({'|'.join(_CARRIERS)})?$")),
    "peer": Form(_peer, f'{ADDRESS_REMEDY}, or "{UNNUMBERED}"', pattern(f"^({ADDRESS}|{UNNUMBERED})$")),
    "backend": Form(one_of(*_BACKENDS), 'write "nftables", or leave it out', pattern("^(nftables)?$")),
    "translated": Form(_translated, "write an IPv6 prefix, such as fd42:1:2:3::/64", pattern(f"{PREFIX}|^$")),
    "source": Form(_source, ADDRESS_REMEDY, pattern(f"^({ADDRESS})?$")),
    "hostAddress": Form(_host_address, ADDRESS_REMEDY, pattern(f"^({ADDRESS})?$")),
    "protocol": Form(_protocol, "write tcp, udp or sctp", pattern("^([Tt][Cc][Pp]|[Uu][Dd][Pp]|[Ss][Cc][Tt][Pp])?$")),
    "ports": Form(
        _ports, "write tcp, tcp/443 or tcp/5000-5010, the same with udp and sctp",
        pattern("^(tcp|udp|sctp)(/[0-9]{1,5}(-[0-9]{1,5})?)?$"),
    ),
    "path": Form(_path, "write an absolute path without ..", pattern("^(/.*)?$")),
    "logFile": Form(
        _log_file, f"write an absolute path without .. that ends with {LOG_SUFFIX}, so that no other file is taken",
        pattern(rf"^(/.*[^/]\{LOG_SUFFIX})?$"),
    ),
    "plugin": Form(
        _plugin, "write the file name of a plugin in CNI_PATH, without a path", pattern("^[0-9A-Za-z_.+-]*$"),
    ),
}
