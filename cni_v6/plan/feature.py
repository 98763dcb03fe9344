"""The shape of an optional part of a network (``Feature``), so that a plan can loop over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cni_v6.config.main import MainConf
from cni_v6.kernel.ops import Op
from cni_v6.kernel.questions import Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.plan.site import Allocation, Site
from cni_v6.values import dataclass


def _nothing(*_: object) -> tuple[()]:
    return ()


@dataclass(frozen=True, slots=True)
class Feature:
    """The functions of one optional part, in the order in which a call uses them. Each does nothing by default.

    ADD asks ``questions`` before it allocates addresses. ``check`` raises CniError for what cannot work on this node.
    ``more_questions`` are asked only for a gateway with IPv6 addresses. ``node_steps`` run before the container's
    interface is created, ``container_steps`` configure its link and its namespace, ``arrival_steps`` run once it is
    connected. ``removal`` undoes them from the record alone; its second argument has the addresses that belong to
    another container by now, its third those that another network has leased too. CHECK uses ``check_questions`` and
    ``differences``; ``mending`` are the operations after which there are none;
    ``inside_questions`` and ``inside_differences`` are about the container's namespace. ADD logs ``warnings``.
    """

    name: str
    questions: Callable[[MainConf], Iterable[Question]] = _nothing
    check: Callable[[MainConf, Snapshot], object] = _nothing
    more_questions: Callable[[MainConf, Snapshot], Iterable[Question]] = _nothing
    node_steps: Callable[[MainConf, Allocation, Snapshot], Iterable[Op]] = _nothing
    container_steps: Callable[[Site, MainConf, Allocation, Snapshot], Iterable[Op]] = _nothing
    arrival_steps: Callable[[MainConf, Allocation, Snapshot], Iterable[Op]] = _nothing
    removal: Callable[[Attachment, frozenset[str], frozenset[str]], Iterable[Op]] = _nothing
    check_questions: Callable[[MainConf, Attachment], Iterable[Question]] = _nothing
    differences: Callable[[MainConf, Attachment, Snapshot], Iterable[str]] = _nothing
    mending: Callable[[MainConf, Attachment, Snapshot], Iterable[Op]] = _nothing
    inside_questions: Callable[[Site, MainConf, Attachment | None], Iterable[Question]] = _nothing
    inside_differences: Callable[[Site, MainConf, Attachment | None, Snapshot], Iterable[str]] = _nothing
    warnings: Callable[[MainConf, Allocation, Snapshot], Iterable[str]] = _nothing
