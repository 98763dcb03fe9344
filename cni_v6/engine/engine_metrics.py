"""The metrics of an engine: what it has counted, its process, and what the store and the kernel have."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from cni_v6 import __version__
from cni_v6.attachments import load_config
from cni_v6.attachments.context import Context
from cni_v6.config.ipam import IpamConf
from cni_v6.engine.counters import NETWORKS, Counters
from cni_v6.engine.exposition import Sample, render
from cni_v6.errors import CniError
from cni_v6.log import Log
from cni_v6.plugins.registry import PLUGINS
from cni_v6.protocol.invocation import Args, Invocation, Report, Request
from cni_v6.protocol.json_reader import KEPT_BYTES


class EngineMetrics:
    """
    :param make_context: the world, for one look; its kernel is closed after it.
    :param workers: how many calls can be handled at a time.
    """

    def __init__(self, make_context: Callable[[], Context], workers: int) -> None:
        self.counters = Counters()
        self._make_context = make_context
        self._workers = workers
        self._started = time.time()
        self._calls: dict[str, Invocation] = {}  # the last ADD of each network, for its configuration
        self._scrape: Callable[[], Iterable[Sample]] | None = None

    def call(self, report: Report, request: Request) -> None:
        """A call has ended."""
        self.counters.call(report, request)
        call = report.call
        if call and report.result and len(call.stdin) <= KEPT_BYTES and (
            call.network in self._calls or len(self._calls) < NETWORKS
        ):
            self._calls[call.network] = call

    def text(self) -> str:
        """All of them, for Prometheus. For one thread."""
        if self._scrape is None:
            from cni_v6.engine.scrape import Scraper  # most engines are never asked

            self._scrape = Scraper(self._make_context, self._configs).samples
        return render([*self.counters.samples(), *self._own(), *self._scrape()])

    def _own(self) -> Iterator[Sample]:
        with open("/proc/self/statm", "rb") as file:  # proc(5): the second field is the resident set
            pages = int(file.read().split()[1])
        yield Sample("cni_v6_engine_info", 1, (__version__,))
        yield Sample("cni_v6_engine_start_time_seconds", self._started)
        yield Sample("cni_v6_engine_workers_busy", self.counters.busy)
        yield Sample("cni_v6_engine_workers_max", self._workers)
        yield Sample("cni_v6_engine_resident_memory_bytes", pages * resource.getpagesize())

    def _configs(self, context: Context) -> Iterator[IpamConf]:
        """The address configurations of the networks that had an ADD, as any container would have them."""
        for _, call in sorted(self._calls.items()):
            try:
                conf = _ipam(replace(call, container_id="example", args=Args(), log=Log()), context)
            except CniError:  # the next call of the network says what is wrong
                continue
            if conf:
                yield conf


def _ipam(call: Invocation, context: Context) -> IpamConf | None:
    main = PLUGINS[call.plugin].main
    if main is None:
        return load_config.ipam(call, context) if call.config.get("ipam") else None
    conf = main.load(call, context).ipam
    return conf if isinstance(conf, IpamConf) else None
