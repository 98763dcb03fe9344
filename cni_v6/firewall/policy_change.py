"""Changes a policy when an attachment gains or loses an address while the container runs."""

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
    """A policy with additional addresses.

    :param more: the policy that the attachment would have with the new addresses alone.
    :param addresses: all its addresses afterwards. The first of each family is used for published ports.
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
        addresses=tuple(address for address in policy.addresses if address not in gone),
        masquerade=tuple(address for address in policy.masquerade if address not in gone),
        snat=tuple(pair for pair in policy.snat if pair[0] not in gone),
        inbound=tuple(pair for pair in policy.inbound if pair[1] not in gone),
        stale=tuple(address for address in policy.stale if address not in gone),
    )


def difference(owner: Owner, before: Policy, after: Policy) -> tuple[tuple[Element, ...], tuple[Element, ...]]:
    """(elements to remove, elements to add) for the change from one policy to another."""
    old, new = elements(owner, before), elements(owner, after)
    removed = tuple(element for element in old if element not in new)
    return removed, tuple(element for element in new if element not in old)


def _together(one: tuple[T, ...], other: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(dict.fromkeys((*one, *other)))
