"""The bridge plugin, ``cni-v6``: a bridge with veth pairs, as a ``MainPlugin`` of the frame in ``main``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cni_v6.attachments import load_config
from cni_v6.attachments.context import Context, Look
from cni_v6.attachments.register import Network
from cni_v6.config.bridge import BridgeConf
from cni_v6.config.main import RemovalConf
from cni_v6.errors import CniError
from cni_v6.kernel.questions import Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.plan import bridge, bridge_port, check, mac
from cni_v6.plan.site import Allocation, Plan, Site
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Result

if TYPE_CHECKING:
    from cni_v6.plan.status import Others


class Bridge:
    """See ``main.MainPlugin``."""

    def load(self, call: Invocation, context: Context) -> BridgeConf:
        return load_config.bridge(call, context)

    def questions(self, site: Site, conf: BridgeConf) -> Iterable[Question]:
        return bridge.questions(site, conf)

    def check_free(self, site: Site, conf: BridgeConf, seen: Snapshot) -> None:
        bridge.check_free(site, conf, seen)

    def network(self, site: Site, conf: BridgeConf, seen: Snapshot) -> Network:
        def mac_of(addresses: tuple[str, ...]) -> str:
            return mac.mac(conf, site.owner, site.node, addresses, seen)

        is_ours = conf.is_gateway and bridge_port.is_ours(conf, site.node, seen)
        return Network(conf, mac_of, is_ours, bridge_port.to_record(conf))

    def plan_add(self, site: Site, conf: BridgeConf, allocation: Allocation, seen: Snapshot) -> Plan:
        return bridge.plan_add(site, conf, allocation, seen)

    def check_questions(
        self, site: Site, conf: BridgeConf, result: Result, record: Attachment | None
    ) -> Iterable[Question]:
        return check.questions(site, conf, result)

    def differences(
        self, site: Site, conf: BridgeConf, result: Result, record: Attachment | None, seen: Snapshot
    ) -> Iterable[str]:
        return *check.compare(site, conf, result, seen), *check.changed_mac(site, record, seen)

    def ports(
        self, conf: RemovalConf, context: Context, known: frozenset[str], among: frozenset[str] | None = None
    ) -> list[tuple[str, Owner]]:
        from cni_v6.attachments import unlisted  # for GC alone

        return unlisted.interfaces(conf, context, known, among, conf.bridge)

    def status_questions(self, conf: BridgeConf, node: str, records: Sequence[Attachment]) -> Iterable[Question]:
        from cni_v6.plan import status  # for STATUS alone: every ADD would pay for it

        return status.questions(conf, node, records)

    def more_status_questions(self, conf: BridgeConf, seen: Snapshot) -> Iterable[Question]:
        from cni_v6.plan import outage

        return outage.more_questions(conf, seen)

    def check_status(self, conf: BridgeConf, node: str, records: Sequence[Attachment], seen: Snapshot) -> Iterable[str]:
        from cni_v6.plan import status

        return status.check(conf, node, records, seen)


class FewBridge:
    """See ``status.Few``. What is wrong is left to a look at all: not everything is known of each container."""

    def questions(
        self, conf: BridgeConf, node: str, records: Sequence[Attachment], look: Look
    ) -> Iterable[Question]:
        from cni_v6.plan import status

        return status.few_questions(conf, node, records, _others(look))

    def answers(self, records: Sequence[Attachment], seen: Snapshot) -> Snapshot:
        from cni_v6.plan import status

        return status.of_few(records, seen)

    def check(
        self, conf: BridgeConf, node: str, records: Sequence[Attachment], seen: Snapshot, look: Look
    ) -> Iterable[str] | None:
        from cni_v6.plan import status

        others = _others(look)
        try:
            return status.check(conf, node, records, seen, replace(others, ports=others.ports + look.fresh))
        except CniError:
            return None

    def note(self, conf: BridgeConf, records: Sequence[Attachment], seen: Snapshot, look: Look) -> object:
        from cni_v6.plan import status

        before = None if look.owners is None else _others(look)
        return status.others_of(conf, records, seen, before)


def _others(look: Look) -> Others:
    from cni_v6.plan.status import Others as Kind

    assert isinstance(look.note, Kind)
    return look.note
