"""Reads the keys that the reference plugin ``tuning`` has. Imported where somebody writes one."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cni_v6.config.main import Tuning
from cni_v6.config.reader import Section, named, wrong
from cni_v6.errors import INVALID_CONFIG, CniError

IFNAME = "IFNAME"
_PART = re.compile(r"[A-Za-z0-9_@:-][A-Za-z0-9_@:.-]*")  # no "." or "..", which would lead elsewhere
# What an attachment is made of: CHECK compares it, and the guard knows the address that is derived from the MAC.
_OUR_OWN = ("disable_ipv6", "accept_ra", "autoconf", "addr_gen_mode")


def read(top: Section) -> Tuning | None:
    """What the keys ask for; None if that is nothing.

    :raises CniError: INVALID_CONFIG for a sysctl that does not belong to the network of the namespace.
    """
    promisc, allmulti = (top.flag(name) if name in top.given else None for name in ("promisc", "allmulti"))
    found = Tuning(tuple(_sysctls(top)), promisc or None, allmulti or None, top.number("txQLen"))
    return found if found != Tuning() else None


def _sysctls(top: Section) -> Iterator[tuple[str, str]]:
    for key, values in top.named("sysctl").items():
        path = named("sysctl", key)
        parts = parts_of(key)
        if len(parts) < 3 or parts[0] != "net" or not all(map(_PART.fullmatch, parts)):
            words = "is no sysctl of the network: only those below net belong to the container's namespace"
            raise CniError(INVALID_CONFIG, f"{path} {words}", "write one such as net.core.somaxconn, or remove it")
        if parts[1:4] == ["ipv6", "conf", IFNAME] and parts[-1] in _OUR_OWN:
            words = "is what cni-v6 sets itself: without its value the interface would not be as the result says"
            raise CniError(INVALID_CONFIG, f"{path} {words}", "remove it")
        if len(values) != 1:
            raise wrong(path, list(values), "is no single value", "write one text")
        yield key, values[0]


def parts_of(key: str) -> list[str]:
    """A key with dots or with slashes, in parts. With slashes, names of interfaces may hold dots."""
    return key.split("/" if "/" in key else ".")
