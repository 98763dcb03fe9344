"""The error for a link on which no router gives a container what it needs (``awaits.AwaitRouter``)."""

from __future__ import annotations

from collections.abc import Iterable

from cni_v6.errors import TRY_AGAIN, CniError

ADDRESS, ROUTE = "an address", "a default route"


def no_router(ifname: str, seconds: float, missing: Iterable[str]) -> CniError:
    """
    :param missing: of ADDRESS and ROUTE, what the interface lacks.
    """
    words = " and ".join(missing)
    return CniError(
        TRY_AGAIN, f"no router on the link of {ifname} gave {words} within {seconds:g} seconds",
        "look whether a router there sends advertisements (RFC 4861) with an autonomous prefix of 64 bits and a "
        "lifetime as default router; or raise ipam.slaacTimeout",
    )
