"""The forms a string of the configuration can have: what is accepted, its canonical text, its JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cni_v6.names import IFNAMSIZ
from cni_v6.ranges import BITS, from_text, to_text

LINK_LOCAL_GATEWAY = "fe80::1"

_ADDRESS = r"([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)"
_PREFIX = rf"^{_ADDRESS}/[0-9]{{1,3}}$"
_CONTROL = r"\u0000-\u001f\u007f-\u009f"

# RFC 6890: what no interface of a container can have. ::/80 holds the unspecified, the loopback, the IPv4-compatible
# and the IPv4-mapped addresses.
_UNUSABLE = tuple(
    (family, value, length, text) for (family, value), length, text in (
        (from_text("0.0.0.0"), 8, "this network, 0.0.0.0/8"),
        (from_text("127.0.0.0"), 8, "loopback, 127.0.0.0/8"),
        (from_text("224.0.0.0"), 4, "multicast, 224.0.0.0/4"),
        (from_text("::"), 80, "loopback and IPv4-mapped, ::/80"),
        (from_text("ff00::"), 8, "multicast, ff00::/8"),
    )
)


class Unfit(ValueError):
    """A string is not of the form; ``remedy`` overrides the form's own where it can say something better."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Form:
    """``parse`` gives the canonical text or raises Unfit; ``schema`` holds for whatever ``parse`` accepts."""

    parse: Callable[[str], str]
    remedy: str
    schema: Mapping[str, object]


def parse_prefix(text: str) -> tuple[int, int, int]:
    """Family, value and length of ``address/length``, host bits and all.

    :raises Unfit: not of that form, or IPv4-mapped.
    """
    address, slash, digits = text.partition("/")
    if not slash or not re.fullmatch("[0-9]{1,3}", digits):
        raise Unfit("is not a prefix")
    family, value = _value(address)
    if family == 4 and ":" in address:
        raise Unfit("is an IPv4-mapped prefix", "write it as IPv4, such as 10.1.0.0/16")
    if int(digits) > BITS[family]:
        raise Unfit(f"is not a prefix: an IPv{family} prefix has at most {BITS[family]} bits")
    return family, value, int(digits)


def _value(text: str) -> tuple[int, int]:
    try:
        return from_text(text)
    except ValueError:
        raise Unfit("is not an IP address") from None


def _address(text: str) -> str:
    return to_text(*_value(text))


def _request(text: str) -> str:
    if "/" in text:
        family, value, _ = parse_prefix(text)
        return to_text(family, value)
    return _address(text)


def _gateway(text: str) -> str:
    return LINK_LOCAL_GATEWAY if text == "link-local" else _address(text)


def _network(text: str) -> tuple[int, int, int]:
    family, value, length = parse_prefix(text)
    host = value & (1 << BITS[family] - length) - 1
    if host:
        network = f"{to_text(family, value - host)}/{length}"
        raise Unfit(f"Network has host bits set: the network of this prefix is {network}", f"write {network}")
    return family, value, length


def _route(text: str) -> str:
    family, value, length = _network(text)
    return f"{to_text(family, value)}/{length}"


def _subnet(text: str) -> str:
    family, value, length = _network(text)
    if length > BITS[family] - 2:
        raise Unfit("is too small to allocate from", f"take a /{BITS[family] - 2} or larger")
    for other, base, bits, what in _UNUSABLE:
        shift = BITS[family] - min(bits, length)
        if other == family and value >> shift == base >> shift:
            raise Unfit(f"overlaps addresses no container can have ({what})", "take a private or a routed prefix")
    return f"{to_text(family, value)}/{length}"


def _nameserver(text: str) -> str:
    address, percent, zone = text.partition("%")
    if percent and not re.fullmatch(r"[!-~]{1,15}", zone):
        raise Unfit("has a zone that is no interface name")
    _value(address)
    return text


def _mac(text: str) -> str:
    """The forms Go's ``net.ParseMAC`` takes: by colons, by hyphens, by dots."""
    if not re.fullmatch(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}|[0-9A-Fa-f]{2}(-[0-9A-Fa-f]{2}){5}"
                        r"|[0-9A-Fa-f]{4}(\.[0-9A-Fa-f]{4}){2}", text):
        raise Unfit("is not a MAC address of 6 bytes")
    digits = re.sub("[-:.]", "", text.lower())
    if int(digits[:2], 16) & 1:  # IEEE 802: the group bit
        raise Unfit("is a multicast MAC address")
    if not int(digits, 16):
        raise Unfit("is the empty MAC address")
    return ":".join(digits[at: at + 2] for at in range(0, 12, 2))


def _interface(text: str) -> str:
    """What the kernel takes (net/core/dev.c, ``dev_valid_name``), less what would be dangerous to take.

    ``all`` and ``default`` are folders of /proc/sys/net/ipv6/conf that stand for other interfaces; ``%`` makes the
    kernel number the name.
    """
    if not re.fullmatch(r"[!-~]+", text) or re.search("[/:%]", text) or text in (".", "..", "all", "default"):
        raise Unfit("is not an interface name")
    if len(text) > IFNAMSIZ:
        raise Unfit(f"is longer than the {IFNAMSIZ} characters of an interface name")
    return text


def _engine(text: str) -> str:
    if text not in ("auto", "off"):
        raise Unfit("is neither auto nor off")
    return text


def _path(text: str) -> str:
    if re.search("[\0-\x1f\x7f]", text) or not text.isprintable():
        raise Unfit("has characters that cannot be printed")
    if not text.startswith("/"):
        raise Unfit("is not an absolute path")
    if ".." in text.split("/"):
        raise Unfit("leads upwards by ..")
    return "/" + "/".join(part for part in text.split("/") if part not in ("", "."))


def _plugin(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z_.+-]{1,255}", text) or text in (".", ".."):
        raise Unfit("is not the plain name of a plugin")
    return text


def _plain(text: str) -> str:
    if re.search(f"[{_CONTROL}]", text):
        raise Unfit("has control characters")
    return text


def _word(text: str) -> str:
    if not re.fullmatch("[!-~]+", text):
        raise Unfit("is not a single word")
    return text


def _pattern(pattern: str) -> dict[str, object]:
    return {"pattern": pattern}


_ADDRESS_REMEDY = "write one address in full, such as 10.1.0.5 or fd42:1:2:3::5"
_PREFIX_REMEDY = "write network/length, such as 10.1.0.0/16 or fd42:1:2:3::/64"

FORMS: Mapping[str, Form] = {
    "plain": Form(_plain, "take them out", {}),
    "word": Form(_word, "write one word without spaces", _pattern("^[!-~]*$")),
    "address": Form(_address, _ADDRESS_REMEDY, _pattern(f"^({_ADDRESS})?$")),
    "request": Form(_request, _ADDRESS_REMEDY, _pattern(rf"^{_ADDRESS}(/[0-9]{{1,3}})?$")),
    "gateway": Form(
        _gateway, "write an address such as fd42:1:2:3::1, or \"link-local\"", _pattern(f"^({_ADDRESS}|link-local)?$"),
    ),
    "nameserver": Form(_nameserver, _ADDRESS_REMEDY, _pattern(f"^{_ADDRESS}(%[!-~]+)?$")),
    "subnet": Form(_subnet, _PREFIX_REMEDY, _pattern(f"{_PREFIX}|^$")),
    "route": Form(_route, _PREFIX_REMEDY, _pattern(_PREFIX)),
    "mac": Form(
        _mac, "write 6 bytes with an even first one, such as 02:00:5e:10:00:01", _pattern("^[0-9A-Fa-f:.-]*$"),
    ),
    "interface": Form(
        _interface, f"1 to {IFNAMSIZ} printable characters without space, / : and %",
        {"pattern": "^[!-$&-.0-9;-~]+$", "maxLength": IFNAMSIZ},
    ),
    "engine": Form(_engine, 'write "auto" or "off"', _pattern("^(auto|off)?$")),
    "path": Form(_path, "write an absolute path without ..", _pattern("^(/.*)?$")),
    "plugin": Form(
        _plugin, "write the file name of a plugin in CNI_PATH, without a path", _pattern("^[0-9A-Za-z_.+-]*$"),
    ),
}
