"""Whose the packets are that the firewall has dropped, for the metrics. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from cni_v6.engine.exposition import Sample
from cni_v6.firewall.dropped import COUNTED
from cni_v6.firewall.sets import Element
from cni_v6.leases.attachment import Attachment

NAME = "cni_v6_container_dropped_packets_total"
MOST = 100  # containers that are told by name: those with the most packets
OTHER = "(other)"


def samples(counted: Iterable[tuple[Element, int]], records: Iterable[Attachment]) -> Iterator[Sample]:
    """Packets by network, container and reason. What is nobody's, such as of a container that has ended, is left out.

    :param counted: elements of the sets ``COUNTED`` with the packets of each.
    """
    hosts, addresses = {}, {}
    for record in records:
        hosts[record.host] = record.owner
        addresses.update(dict.fromkeys(record.addresses, record.owner))
    found: Counter[tuple[str, str, str]] = Counter()
    for element, packets in counted:
        owner = hosts.get(element.key[-1]) or (addresses.get(element.key[0]) if len(element.key) > 1 else None)
        if owner:
            found[owner.network, owner.container_id, COUNTED[element.family, element.set][1]] += packets
    by_container: Counter[tuple[str, str]] = Counter()
    for (network, container, _), packets in found.items():
        by_container[network, container] += packets
    named = {place for place, _ in by_container.most_common(MOST)}
    told: Counter[tuple[str, str, str]] = Counter()
    for (network, container, reason), packets in found.items():
        told[network, container if (network, container) in named else OTHER, reason] += packets
    yield from (Sample(NAME, packets, labels) for labels, packets in sorted(told.items()))
