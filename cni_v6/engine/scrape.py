"""What the store and the kernel have, as metrics; read when somebody asks, never in a call."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing

from cni_v6.attachments import pools
from cni_v6.attachments.context import Context
from cni_v6.config.ipam import IpamConf
from cni_v6.engine import container_drops
from cni_v6.engine.exposition import Sample
from cni_v6.errors import CniError
from cni_v6.firewall.sets import BRIDGE, INET
from cni_v6.kernel.netfilter import counters
from cni_v6.kernel.netfilter.socket import open_netfilter
from cni_v6.kernel.questions import GetAllElements
from cni_v6.leases.attachment import Attachment
from cni_v6.plan.firewall_words import REASONS
from cni_v6.plan.health.store import Pool
from cni_v6.planning.prefix_plan import YEAR

SECONDS = 2.0  # after which nothing further is begun
REST = 20  # after a look nobody looks for so many times its duration: scrapes take a twentieth of the time at most

Configs = Callable[[Context], Iterable[IpamConf]]


class Scraper:
    """
    :param make_context: the world, for one look; its kernel is closed after it.
    :param configs: the address configurations of the networks, as far as they are known.
    """

    def __init__(self, make_context: Callable[[], Context], configs: Configs) -> None:
        self._make_context = make_context
        self._configs = configs
        self._samples: list[Sample] = []
        self._next = 0.0

    def samples(self) -> list[Sample]:
        """What is there now; what was there just before, if looking is expensive."""
        if time.monotonic() < self._next:
            return self._samples
        began = time.monotonic()
        context = self._make_context()
        try:
            self._samples = list(_look(context, self._configs, began + SECONDS))
        finally:
            context.kernel.close()
        took = time.monotonic() - began
        self._next = began + took * (1 + REST)
        self._samples.append(Sample("cni_v6_scrape_duration_seconds", took))
        return self._samples


def _look(context: Context, configs: Configs, end: float) -> Iterator[Sample]:
    """Each part by itself: what fails or comes too late is missing, and the last sample says so."""
    incomplete = False
    records: list[Attachment] = []

    def store() -> Iterator[Sample]:
        for data_dir in context.data_dirs.known():
            for network in context.data_dirs.recorded(data_dir):
                if time.monotonic() > end:
                    raise TimeoutError
                records.extend(context.leases(network, data_dir).peek())
        held = Counter(record.owner.network for record in records)
        yield from (Sample("cni_v6_attachments", count, (network,)) for network, count in sorted(held.items()))
        for conf in configs(context):
            yield from (sample for pool in pools.of(conf, records, context) for sample in _of_pool(pool))

    for part in (store, lambda: _elements(context), lambda: _counted(records)):
        try:
            if time.monotonic() > end:
                raise TimeoutError
            yield from list(part())
        except (CniError, OSError):
            incomplete = True
    yield Sample("cni_v6_scrape_incomplete", int(incomplete))


def _of_pool(pool: Pool) -> Iterator[Sample]:
    labels, usage = (pool.network, pool.addresses), pool.usage
    yield Sample("cni_v6_pool_addresses", usage.size, labels)
    yield Sample("cni_v6_pool_leased", usage.leased, labels)
    yield Sample("cni_v6_pool_waiting", pool.waiting, labels)
    yield Sample("cni_v6_pool_left", usage.left, labels)
    if usage.rate is not None:
        yield Sample("cni_v6_pool_use_per_second", float(usage.rate), labels)
    if usage.once and usage.years is not None:
        yield Sample("cni_v6_pool_seconds_left", float(usage.years * YEAR), labels)


def _elements(context: Context) -> Iterator[Sample]:
    held = Counter((element.family, element.set) for element in context.kernel.observe(
        [GetAllElements()]).all_elements())
    yield from (Sample("cni_v6_firewall_elements", count, labels) for labels, count in sorted(held.items()))


def _counted(records: Sequence[Attachment]) -> Iterator[Sample]:
    networks = {address: record.owner.network for record in records for address in record.addresses}
    with closing(open_netfilter()) as netfilter:
        for family in (INET, BRIDGE):
            rules = counters.of_rules(netfilter.dump(counters.dump_rules(family)).messages)
            for chain, packets in sorted(rules.items()):
                if chain in REASONS:
                    yield Sample("cni_v6_dropped_packets_total", packets, (chain, REASONS[chain]))
        counted = [pair for request in counters.dumps_of_dropped() for data in netfilter.dump(request).messages
                   for pair in counters.of_dropped(data)]
        yield from container_drops.samples(counted, records)
        allowed: Counter[str] = Counter()
        for request in counters.dumps_of_elements():
            for data in netfilter.dump(request).messages:
                for element, packets in counters.of_elements(data):
                    allowed[networks.get(element.key[0], "")] += packets
        yield from (Sample("cni_v6_egress_packets_total", packets, (network,)) for network, packets in sorted(
            allowed.items()))
