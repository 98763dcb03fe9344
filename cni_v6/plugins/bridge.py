"""The bridge plugin, ``cni-v6``: a bridge with veth pairs, as a ``MainPlugin`` of the frame in ``main``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cni_v6.attachments import load_config, stale
from cni_v6.attachments.context import Context
from cni_v6.attachments.register import Network
from cni_v6.config.bridge import BridgeConf
from cni_v6.config.main import RemovalConf
from cni_v6.kernel.questions import Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.plan import bridge, bridge_port, check, mac
from cni_v6.plan.site import Allocation, Plan, Site
from cni_v6.protocol.invocation import Invocation
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Result


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

    def ports(self, conf: RemovalConf, context: Context, known: frozenset[str]) -> list[tuple[str, Owner]]:
        return stale.interfaces(conf, context, known, conf.bridge)

    def status_questions(self, conf: BridgeConf, node: str, records: Sequence[Attachment]) -> Iterable[Question]:
        from cni_v6.plan import status  # for STATUS alone: every ADD would pay for it

        return status.questions(conf, node, records)

    def more_status_questions(self, conf: BridgeConf, seen: Snapshot) -> Iterable[Question]:
        from cni_v6.plan import outage

        return outage.more_questions(conf, seen)

    def check_status(self, conf: BridgeConf, node: str, records: Sequence[Attachment], seen: Snapshot) -> Iterable[str]:
        from cni_v6.plan import status

        return status.check(conf, node, records, seen)
