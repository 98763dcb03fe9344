"""A policy whose attachment gains an address, or loses one, while the container runs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TypeVar

from cni_v6.firewall.elements import elements
from cni_v6.firewall.policy import Policy
from cni_v6.firewall.sets import Element
from cni_v6.protocol.names import Owner

T = TypeVar("T")


def joined(policy: Policy, more: Policy, addresses: tuple[str, ...]) -> Policy:
    """A policy that holds for an address more.

    :param more: the same attachment's if it had that address alone.
    :param addresses: all that it has then; of each family the first one answers at published ports.
    """
    return replace(
        policy,
        addresses=addresses,
        link_local=policy.link_local or more.link_local,
        masquerade=_together(policy.masquerade, more.masquerade),
        snat=_together(policy.snat, more.snat),
        keep=_together(policy.keep, more.keep),
        inbound=_together(policy.inbound, more.inbound),
        stale=_together(policy.stale, more.stale),
    )


def parted(policy: Policy, gone: Collection[str]) -> Policy:
    """A policy without some addresses."""
    return replace(
        policy,
        addresses=tuple(each for each in policy.addresses if each not in gone),
        masquerade=tuple(each for each in policy.masquerade if each not in gone),
        snat=tuple(each for each in policy.snat if each[0] not in gone),
        inbound=tuple(each for each in policy.inbound if each[1] not in gone),
        stale=tuple(each for each in policy.stale if each not in gone),
    )


def difference(owner: Owner, before: Policy, after: Policy) -> tuple[tuple[Element, ...], tuple[Element, ...]]:
    """The elements to remove and those to add."""
    old, new = elements(owner, before), elements(owner, after)
    return tuple(each for each in old if each not in new), tuple(each for each in new if each not in old)


def _together(one: tuple[T, ...], other: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(dict.fromkeys((*one, *other)))
