"""One network: what STATUS finds of it, and what ``cni-v6ctl check`` finds that STATUS does not look for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from cni_v6.errors import LIMITED, CniError
from cni_v6.plan.firewall_elements import TABLES_DIFFER
from cni_v6.plan.health.finding import AMBER, GREEN, RED, RELOAD, REPAIR, Finding, of_error
from cni_v6.plan.health.store import some
from cni_v6.plan.repair import Findings


def by_status(network: str, check_status: Callable[[], Iterable[str]]) -> Iterator[Finding]:
    """What STATUS finds; nothing where all is well.

    :param check_status: as a main plugin's, of this network.
    """
    check = f"network {network}"
    try:
        warnings = list(check_status())
    except CniError as error:
        cut_off = error.code == LIMITED
        why = "containers that run are cut off" if cut_off else "an ADD would fail"
        yield of_error(RED, check, error, why, REPAIR if cut_off else "")
        return
    for warning in warnings:
        what, _, remedy = warning.partition("; ")
        look = f"cni-v6ctl connectivity {network} shows what works"
        yield Finding(AMBER, check, what, "it may cut containers off", remedy or look)


def by_check(network: str, found: Findings) -> Finding:
    """What differs from the records."""
    check = f"network {network}"
    if not found.differences:
        return Finding(GREEN, check, "the node has all that its containers need")
    words = [f"{owner.container_id}/{owner.ifname}: {what}" if owner else what for owner, what in found.differences]
    remedy = f"cni-v6ctl check {network} --repair" if found.steps else "run DEL and ADD for these containers"
    fix = REPAIR if found.steps else ""
    if all(what == TABLES_DIFFER for _, what in found.differences):
        words, remedy, fix = [TABLES_DIFFER], "cni-v6ctl reload", RELOAD
    return Finding(RED, check, some(words), "the node differs from what its containers were given", remedy, fix)
