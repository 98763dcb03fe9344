"""Reads how fast a container may receive and send. Imported where somebody says so."""

from __future__ import annotations

from cni_v6.config.main import Bandwidth
from cni_v6.config.reader import Section, wrong
from cni_v6.errors import INVALID_CONFIG, CniError


def read(section: Section) -> Bandwidth | None:
    """The bandwidth that ``bandwidth`` or ``runtimeConfig.bandwidth`` asks for; None if that limits nothing.

    :raises CniError: INVALID_CONFIG for a rate without a burst, which the reference plugin refuses too.
    """
    found = Bandwidth(_direction(section, "ingress"), _direction(section, "egress"))
    return found if found != Bandwidth() else None


def _direction(section: Section, direction: str) -> tuple[int, int]:
    rate, burst = (section.number(f"{direction}{what}") or 0 for what in ("Rate", "Burst"))
    if rate and not burst:
        remedy = "write how many bits may be sent at once, such as the rate of a tenth of a second"
        raise CniError(INVALID_CONFIG, f"{section.at(f'{direction}Burst')} is missing beside the rate", remedy)
    if burst and not rate:
        raise wrong(section.at(f"{direction}Burst"), burst, "has no rate beside it", f"write {direction}Rate too")
    return rate, burst
