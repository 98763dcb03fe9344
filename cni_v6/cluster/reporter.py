"""Measures, in a thread of its own and once a period, what ``report`` is about, and writes it where it has changed."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from cni_v6.cluster import report
from cni_v6.cluster.membership import Member
from cni_v6.cluster.records import Cluster
from cni_v6.cluster.report import Report
from cni_v6.cluster.store import ReportStore
from cni_v6.errors import CniError

END_SECONDS = 1.0  # for which the end of the agent waits

Known = tuple[Member, Cluster, Sequence[str]]  # this node, the nodes, its blocks


class Reporter:
    """
    :param known: what the agent knows; None while it knows nothing.
    :param leased: counts leases in blocks; None if nobody can see them.
    :param echo: sends echo requests to addresses, and says which answered; those that could not be tested are missing.
    :param now: seconds since the epoch.
    :param told: takes what was measured, also if the store is away.
    :param say: takes a line for the operator.
    :param seconds: of a period; ``first``: before the first one.
    """

    def __init__(
        self, store: ReportStore, known: Callable[[], Known | None], *, seconds: float, first: float,
        leased: Callable[[Sequence[str]], Mapping[str, int]],
        echo: Callable[[Iterable[str]], Mapping[str, bool]], now: Callable[[], float],
        told: Callable[[Report], None] = lambda _: None, say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._known = known
        self._seconds = seconds
        self._first = first
        self._leased = leased
        self._echo = echo
        self._now = now
        self._told = told
        self._say = say
        self._failure = ""  # that was said at last
        self._last: Report | None = None  # as it was written
        self._closed, self._closing = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.write(self._closing, b".")
        self._thread.join(END_SECONDS)
        if not self._thread.is_alive():
            os.close(self._closed)
            os.close(self._closing)

    def _run(self) -> None:
        pause = self._first
        while not select.select([self._closed], [], [], pause)[0]:
            pause = self._seconds
            known = self._known()
            if known:
                self.measure(*known)

    def measure(self, member: Member, cluster: Cluster, blocks: Sequence[str]) -> None:
        """Once. A store that is away is told the next time."""
        try:
            before = self._last or self._read(member)
            tested = [*report.targets(report.peers(member, cluster))]
            answered = self._echo([address for _, _, address in tested])
            now = int(self._now())
            known = before.answers if before else ()
            found = Report(member.id, dict(self._leased(blocks)), report.answers(tested, answered, known, now), now)
            self._told(found)
            if before is None or replace(found, at=before.at) != before:
                self._store.report(member.name, report.encode(found))
            else:
                found = before
            self._last, self._failure = found, ""
        except Exception as error:  # a thread that ends would leave old reports without a word
            self._last = None  # what is in the store is not known
            words = str(error) if isinstance(error, CniError) else f"{type(error).__name__}: {error}"
            if words != self._failure:
                self._say(f"what this node measures is not written for cni-v6ctl nodes: {words}")
            self._failure = words

    def _read(self, member: Member) -> Report | None:
        """What this node wrote before the agent was started."""
        text = self._store.reports(member.name).get(member.name)
        found = report.read(text) if text is not None else None
        return found if found and found.id == member.id else None
