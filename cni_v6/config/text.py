"""What a form of string is, and the addresses and prefixes that several forms are about."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from cni_v6.net.addresses import BITS, from_text, to_text
from cni_v6.values import dataclass

ADDRESS = r"([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)"
PREFIX = rf"^{ADDRESS}/[0-9]{{1,3}}$"

ADDRESS_REMEDY = "write one address in full, such as 10.1.0.5 or fd42:1:2:3::5"
PREFIX_REMEDY = "write network/length, such as 10.1.0.0/16 or fd42:1:2:3::/64"

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
_LINK_LOCAL, _LINK_LOCAL_BITS = from_text("fe80::")[1], 10

SPANS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}  # units of time, in seconds
_LONGEST = 10 * 365 * SPANS["d"]


class FormatError(ValueError):
    """A string is not of the form; ``remedy`` overrides the form's own where it can say something better."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Form:
    """``parse`` gives the canonical text or raises FormatError; ``schema`` holds for whatever ``parse`` accepts."""

    parse: Callable[[str], str]
    remedy: str
    schema: Mapping[str, object]


def parse_prefix(text: str) -> tuple[int, int, int]:
    """Family, value and length of ``address/length``, host bits and all.

    :raises FormatError: not of that form, or IPv4-mapped.
    """
    address, slash, digits = text.partition("/")
    if not slash or not re.fullmatch("[0-9]{1,3}", digits):
        raise FormatError("is not a prefix")
    family, value = value_of(address)
    if family == 4 and ":" in address:
        raise FormatError("is an IPv4-mapped prefix", "write it as IPv4, such as 10.1.0.0/16")
    if int(digits) > BITS[family]:
        raise FormatError(f"is not a prefix: an IPv{family} prefix has at most {BITS[family]} bits")
    return family, value, int(digits)


def value_of(text: str) -> tuple[int, int]:
    """Family and value of an address.

    :raises FormatError: not in full, or with a zone.
    """
    try:
        return from_text(text)
    except ValueError:
        raise FormatError("is not an IP address") from None


def network(text: str) -> tuple[int, int, int]:
    """As ``parse_prefix``, of a prefix without host bits.

    :raises FormatError: also for host bits.
    """
    family, value, length = parse_prefix(text)
    host = value & (1 << BITS[family] - length) - 1
    if host:
        right = f"{to_text(family, value - host)}/{length}"
        raise FormatError(f"Network has host bits set: the network of this prefix is {right}", f"write {right}")
    return family, value, length


def unusable(family: int, value: int, length: int) -> str:
    """Which of the unusable addresses a prefix overlaps, "" for none."""
    for other, base, bits, what in _UNUSABLE:
        shift = BITS[family] - min(bits, length)
        if other == family and value >> shift == base >> shift:
            return what
    return ""


def link_local(family: int, value: int, length: int) -> str:
    """What of an IPv6 prefix is link-local, "" for nothing."""
    shift = BITS[6] - min(_LINK_LOCAL_BITS, length)
    return "link-local, fe80::/10" if family == 6 and value >> shift == _LINK_LOCAL >> shift else ""


def seconds(text: str) -> int:
    """How long ``30s``, ``10m``, ``1h`` or ``7d`` is.

    :raises FormatError: not of that form, or longer than ten years.
    """
    found = re.fullmatch(rf"([0-9]{{1,9}})({'|'.join(SPANS)})", text)
    if not found:
        raise FormatError("is no duration")
    span = int(found[1]) * SPANS[found[2]]
    if span > _LONGEST:
        raise FormatError("is longer than ten years", "write a shorter one")
    return span


def duration(text: str) -> str:
    """As ``seconds``, but the text."""
    seconds(text)
    return text


def one_of(*words: str) -> Callable[[str], str]:
    """The parser of a form that is one of some words."""
    def parse(text: str) -> str:
        if text not in words:
            raise FormatError(f"is none of {', '.join(words)}")
        return text

    return parse


def pattern(text: str) -> dict[str, object]:
    """The JSON Schema of a string that a regular expression matches."""
    return {"pattern": text}
