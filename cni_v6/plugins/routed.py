"""The routed plugin, ``cni-v6-routed``: a link of its own for each container, as a ``MainPlugin`` of ``main``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cni_v6.attachments import load_config
from cni_v6.attachments.context import Context, Look
from cni_v6.attachments.register import Network
from cni_v6.config.main import RemovalConf
from cni_v6.config.routed import RoutedConf, parse_routed
from cni_v6.kernel.questions import Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment, RoutedLink
from cni_v6.plan import routed, routed_check
from cni_v6.plan.site import Allocation, Plan, Site
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Address, Result


class Routed:
    """See ``main.MainPlugin``."""

    def load(self, call: Invocation, context: Context) -> RoutedConf:
        return load_config.main(call, context, parse_routed)

    def questions(self, site: Site, conf: RoutedConf) -> Iterable[Question]:
        return routed.questions(site, conf)

    def check_free(self, site: Site, conf: RoutedConf, seen: Snapshot) -> None:
        routed.check_free(site, conf, seen)

    def network(self, site: Site, conf: RoutedConf, seen: Snapshot) -> Network:
        def link(ips: tuple[Address, ...]) -> RoutedLink:
            return routed.to_record(conf, site.owner, ips)

        return Network(conf, lambda _: routed.mac(conf, site.owner), is_ours=True, link=link, rest=routed.rest(conf))

    def plan_add(self, site: Site, conf: RoutedConf, allocation: Allocation, seen: Snapshot) -> Plan:
        return routed.plan_add(site, conf, allocation, seen)

    def check_questions(
        self, site: Site, conf: RoutedConf, result: Result, record: Attachment | None
    ) -> Iterable[Question]:
        return routed_check.questions(site, conf, result, record)

    def differences(
        self, site: Site, conf: RoutedConf, result: Result, record: Attachment | None, seen: Snapshot
    ) -> Iterable[str]:
        return routed_check.compare(site, conf, result, record, seen)

    def ports(
        self, conf: RemovalConf, context: Context, known: frozenset[str], among: frozenset[str] | None = None
    ) -> list[tuple[str, Owner]]:
        from cni_v6.attachments import unlisted  # for GC alone

        return unlisted.interfaces(conf, context, known, among)

    def status_questions(self, conf: RoutedConf, node: str, records: Sequence[Attachment]) -> Iterable[Question]:
        return routed_check.status_questions(conf, records)

    def more_status_questions(self, conf: RoutedConf, seen: Snapshot) -> Iterable[Question]:
        return routed_check.more_status_questions(conf, seen)

    def check_status(
        self, conf: RoutedConf, node: str, records: Sequence[Attachment], seen: Snapshot
    ) -> Iterable[str]:
        return routed_check.check_status(conf, records, seen)


class FewRouted:
    """See ``status.Few``."""

    def questions(
        self, conf: RoutedConf, node: str, records: Sequence[Attachment], look: Look
    ) -> Iterable[Question]:
        return routed_check.few_questions(conf, records)

    def answers(self, records: Sequence[Attachment], seen: Snapshot) -> Snapshot:
        return routed_check.of_few(records, seen)

    def check(
        self, conf: RoutedConf, node: str, records: Sequence[Attachment], seen: Snapshot, look: Look
    ) -> Iterable[str]:
        return routed_check.check_status(conf, records, seen, others=look.others)

    def note(self, conf: RoutedConf, records: Sequence[Attachment], seen: Snapshot, look: Look) -> object:
        return ()
