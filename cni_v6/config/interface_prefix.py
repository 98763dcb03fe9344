"""Ranges that follow an interface's prefix: written as the interface's name and a subnet number within its prefix.

Pure. The configuration names the interface (``ipam.ranges[][].from``). Its prefix is looked up before an address is
allocated; then the range is read as if its subnet had been written.
"""

from __future__ import annotations

from collections.abc import Mapping

from cni_v6.config.reader import Section, wrong
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.net.addresses import BITS, is_link_local, to_text
from cni_v6.values import dataclass

_KEYS = ("subnetId", "length")  # which go with ``from``
_FIXED = ("subnet", "rangeStart", "rangeEnd")  # which do not: each fixes a prefix


@dataclass(frozen=True, slots=True)
class InterfaceRange:
    """A range as it is written: subnet number ``subnet_id``, ``length`` bits long, of the prefix of ``interface``.

    ``subnet``: the subnet that this is now; "" where it is not known yet.
    """

    path: str
    interface: str
    subnet_id: int
    length: int
    subnet: str = ""


@dataclass(frozen=True, slots=True)
class Prefix:
    """An interface's prefix now: its first address, its length, and the node's own addresses in it."""

    network: int
    length: int
    own: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{to_text(6, self.network)}/{self.length}"


InterfacePrefixes = Mapping[str, Prefix]  # by interface


def read(section: Section) -> InterfaceRange | None:
    """The keys of a range that follows an interface; None for a range with a fixed subnet.

    :raises CniError: INVALID_CONFIG for keys that do not go together.
    """
    if "from" not in section.values:  # the older form of a single range, which is known by its subnet
        return None
    interface = section.text("from")
    if not interface:
        stray = next((name for name in _KEYS if name in section.given), "")
        if stray:
            raise wrong(section.at(stray), section.values[stray], "has no effect: there is no from beside it",
                        "name the interface whose prefix the range follows, or remove it")
        if not section.text("subnet"):
            words = 'write one, such as "fd42:1:2:3::/64", or follow an interface\'s prefix with from and length'
            raise CniError(INVALID_CONFIG, f"{section.at('subnet')} is missing", words)
        return None
    for name in _FIXED:
        if section.text(name):
            raise wrong(section.at(name), section.text(name), f"contradicts from: the prefix is what {interface} has",
                        "remove one of them")
    gateway = section.text("gateway")
    if gateway and not is_link_local(gateway):
        raise wrong(section.at("gateway"), gateway, "would change with the prefix", 'write "link-local", or remove it')
    length = section.number("length")
    if length is None:
        raise CniError(INVALID_CONFIG, f"{section.at('length')} is missing", "write the subnet's, such as 72")
    return InterfaceRange(section.path, interface, int(section.text("subnetId") or "0", 16), length)


def subnet(follow: InterfaceRange, prefixes: InterfacePrefixes) -> str:
    """The range's subnet.

    :raises CniError: INVALID_CONFIG where the prefix has no room for it.
    """
    prefix = prefixes[follow.interface]
    bits = follow.length - prefix.length
    held = f"{follow.interface} has {prefix} now"
    if bits < 0:
        raise wrong(f"{follow.path}.length", follow.length, f"is less than the prefix has: {held}",
                    f"write {prefix.length} or more")
    if follow.subnet_id >> bits:
        raise wrong(f"{follow.path}.subnetId", f"{follow.subnet_id:x}", f"does not fit into {bits} bits: {held}, and "
                    f"length is {follow.length}", "write a lower one, or a greater length")
    return f"{to_text(6, prefix.network | follow.subnet_id << BITS[6] - follow.length)}/{follow.length}"
