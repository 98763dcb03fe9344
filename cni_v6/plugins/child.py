"""The plugins ``cni-v6-macvlan``, ``cni-v6-ipvlan``, ``cni-v6-vlan``, each as a ``MainPlugin`` of ``main``.

A container has a child of one of the node's interfaces. The configuration knows what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Generic

from cni_v6.attachments import load_config
from cni_v6.attachments.context import Context
from cni_v6.attachments.register import Network
from cni_v6.config.child import Child, ChildConf
from cni_v6.config.main import RemovalConf
from cni_v6.kernel.questions import Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.plan import child, child_check
from cni_v6.plan.site import Allocation, Plan, Site
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Result
from cni_v6.values import dataclass


@dataclass(frozen=True, slots=True)
class OnMaster(Generic[Child]):
    """See ``main.MainPlugin``. ``parse``: reads the configuration of this type."""

    parse: Callable[..., Child]

    def load(self, call: Invocation, context: Context) -> Child:
        conf = load_config.main(call, context, self.parse)
        seen = context.kernel.observe(child.master_questions(conf))
        conf = child.with_master(conf, seen, needed=call.command != "CHECK")
        if conf.has_one_mode and call.command != "CHECK":
            _check_mode(conf, context)
        return child.without_own(conf, context.kernel.observe(child.address_questions(conf)))

    def questions(self, site: Site, conf: Child) -> Iterable[Question]:
        return child.questions(site, conf)

    def check_free(self, site: Site, conf: Child, seen: Snapshot) -> None:
        child.check_free(site, conf, seen)

    def network(self, site: Site, conf: Child, seen: Snapshot) -> Network:
        own = child.mac(site, conf, seen)
        recorded = partial(_check_mode, conf, but=site.owner) if conf.has_one_mode else None
        return Network(conf, lambda _: own, is_ours=False, port=child.to_record(site, conf), recorded=recorded)

    def plan_add(self, site: Site, conf: Child, allocation: Allocation, seen: Snapshot) -> Plan:
        return child.plan_add(site, conf, allocation, seen)

    def check_questions(
        self, site: Site, conf: Child, result: Result, record: Attachment | None
    ) -> Iterable[Question]:
        return child_check.questions(site, conf, result, record)

    def differences(
        self, site: Site, conf: Child, result: Result, record: Attachment | None, seen: Snapshot
    ) -> Iterable[str]:
        return child_check.compare(site, conf, result, record, seen)

    def ports(
        self, conf: RemovalConf, context: Context, known: frozenset[str], among: frozenset[str] | None = None
    ) -> list[tuple[str, Owner]]:
        """None: what is left in a namespace is known from its record alone."""
        return []

    def status_questions(self, conf: Child, node: str, records: Sequence[Attachment]) -> Iterable[Question]:
        return child_check.status_questions(conf)

    def more_status_questions(self, conf: Child, seen: Snapshot) -> Iterable[Question]:
        return ()

    def check_status(
        self, conf: Child, node: str, records: Sequence[Attachment], seen: Snapshot
    ) -> Iterable[str]:
        return child_check.check_status(conf, seen)


def _check_mode(conf: ChildConf, context: Context, but: Owner | None = None) -> None:
    from cni_v6.attachments import one_mode  # of one type of network

    one_mode.check(conf, context, but)
