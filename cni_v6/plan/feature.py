"""What a network may have or not: one shape for each such part, so that a plan loops over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cni_v6.config.main import MainConf
from cni_v6.kernel.ops import Op
from cni_v6.kernel.questions import Question, Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.plan.site import Allocation, Site


def _nothing(*_: object) -> tuple[()]:
    return ()


@dataclass(frozen=True, slots=True)
class Feature:
    """Functions of one optional part, in the order in which a call asks them; each has a default that does nothing.

    Of the kernel, ``questions`` come before there are addresses, ``check`` refuses what cannot work (CniError), and
    ``more_questions`` are for a gateway with IPv6 addresses. Of a plan, ``node_steps`` go before the container's
    interface is made, ``container_steps`` configure its namespace, ``arrival_steps`` come once it is connected.
    ``removal`` takes them away, by the record alone; its second argument are addresses that are somebody else's by now,
    its third those that another network has leased too.
    ``check_questions`` and ``differences`` are CHECK's, ``warnings`` what an ADD logs.
    """

    name: str
    questions: Callable[[MainConf], Iterable[Question]] = _nothing
    check: Callable[[MainConf, Snapshot], object] = _nothing
    more_questions: Callable[[MainConf, Snapshot], Iterable[Question]] = _nothing
    node_steps: Callable[[MainConf, Allocation, Snapshot], Iterable[Op]] = _nothing
    container_steps: Callable[[Site, MainConf, Allocation], Iterable[Op]] = _nothing
    arrival_steps: Callable[[MainConf, Allocation, Snapshot], Iterable[Op]] = _nothing
    removal: Callable[[Attachment, frozenset[str], frozenset[str]], Iterable[Op]] = _nothing
    check_questions: Callable[[MainConf, Attachment], Iterable[Question]] = _nothing
    differences: Callable[[MainConf, Attachment, Snapshot], Iterable[str]] = _nothing
    warnings: Callable[[MainConf, Allocation, Snapshot], Iterable[str]] = _nothing
