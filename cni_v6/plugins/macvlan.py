"""The macvlan plugin, ``cni-v6-macvlan``: containers on an interface of the node, as a ``MainPlugin`` of ``main``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cni_v6.attachments import load_config
from cni_v6.attachments.context import Context
from cni_v6.attachments.register import Network
from cni_v6.config.macvlan import MacvlanConf, parse_macvlan
from cni_v6.config.main import RemovalConf
from cni_v6.kernel.facts import Link
from cni_v6.kernel.questions import Question, Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.plan import macvlan, macvlan_check
from cni_v6.plan.site import Allocation, Plan, Site
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Result


class Macvlan:
    """See ``main.MainPlugin``."""

    def load(self, call: Invocation, context: Context) -> MacvlanConf:
        conf = load_config.main(call, context, parse_macvlan)
        seen = context.kernel.observe(macvlan.master_questions(conf))
        conf = macvlan.with_master(conf, seen, needed=call.command != "CHECK")
        return macvlan.without_own(conf, context.kernel.observe(macvlan.address_questions(conf)))

    def questions(self, site: Site, conf: MacvlanConf) -> Iterable[Question]:
        return macvlan.questions(site, conf)

    def check_free(self, site: Site, conf: MacvlanConf, seen: Snapshot) -> None:
        macvlan.check_free(site, conf, seen)

    def network(self, site: Site, conf: MacvlanConf, seen: Snapshot) -> Network:
        own = macvlan.mac(site, conf, seen)
        return Network(conf, lambda _: own, is_ours=False, port=macvlan.to_record(site, conf))

    def plan_add(self, site: Site, conf: MacvlanConf, allocation: Allocation, seen: Snapshot) -> Plan:
        return macvlan.plan_add(site, conf, allocation, seen)

    def check_questions(
        self, site: Site, conf: MacvlanConf, result: Result, record: Attachment | None
    ) -> Iterable[Question]:
        return macvlan_check.questions(site, conf, result, record)

    def differences(
        self, site: Site, conf: MacvlanConf, result: Result, record: Attachment | None, seen: Snapshot
    ) -> Iterable[str]:
        return macvlan_check.compare(site, conf, result, record, seen)

    def ports(self, conf: RemovalConf, context: Context) -> list[tuple[Link, Owner]]:
        """None: what is left in a namespace is known from its record alone."""
        return []

    def status_questions(self, conf: MacvlanConf, node: str, records: Sequence[Attachment]) -> Iterable[Question]:
        return macvlan_check.status_questions(conf)

    def more_status_questions(self, conf: MacvlanConf, seen: Snapshot) -> Iterable[Question]:
        return ()

    def check_status(
        self, conf: MacvlanConf, node: str, records: Sequence[Attachment], seen: Snapshot
    ) -> Iterable[str]:
        return macvlan_check.check_status(conf, seen)
