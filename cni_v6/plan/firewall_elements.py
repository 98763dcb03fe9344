"""What an attachment puts into the firewall's sets: planned, taken out, compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cni_v6.config.firewall import FirewallConf
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import MainConf
from cni_v6.firewall import ruleset
from cni_v6.firewall.elements import elements
from cni_v6.firewall.policy import Policy
from cni_v6.firewall.sets import BRIDGE
from cni_v6.kernel import ops
from cni_v6.kernel.ops import Op
from cni_v6.kernel.questions import GetElements, GetRuleset, Question, Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.net.addresses import version as version_of
from cni_v6.plan import firewall, mac as plan_mac


def questions(conf: MainConf) -> tuple[Question, ...]:
    """What an ADD has to know."""
    return (GetRuleset(),) if conf.firewall.wanted else ()


def check_questions(_: MainConf, record: Attachment) -> tuple[Question, ...]:
    """What CHECK has to know."""
    if record.policy is None:
        return ()
    return GetRuleset(), GetElements(elements(record.owner, record.policy))


def differences(_: MainConf, record: Attachment, seen: Snapshot) -> Iterable[str]:
    """What the firewall lacks of an attachment, a phrase each."""
    if record.policy is None:
        return
    if seen.ruleset() != ruleset.mark():
        yield "the firewall's tables are not as they were loaded (cni-v6ctl reload makes them anew)"
    wanted = elements(record.owner, record.policy)
    there = {replace(each, comment="") for each in seen.elements(wanted)}
    lacking = (each for each in wanted if replace(each, comment="") not in there)
    yield from (f"{' . '.join(each.key)} is missing in {each.family} {each.set}" for each in lacking)


def with_policy(conf: MainConf, record: Attachment, addresses: tuple[str, ...], mac: str) -> Attachment:
    """An attachment with what the firewall is to be told of it, for these addresses and the container's MAC."""
    if not conf.firewall.wanted:
        return record
    policy = firewall.policy(
        _publishable(conf, addresses), home=conf.gateway_interface, port=record.host,
        mac=mac, addresses=addresses, address_known=conf.ipam is not None, trunk=conf.is_trunk,
        once=plan_mac.given_once(conf, addresses), prefixes=record.prefixes,
    )
    return replace(record, policy=policy)


def _publishable(conf: MainConf, addresses: tuple[str, ...]) -> FirewallConf:
    """The firewall less the ports of a family that the container goes without."""
    if not isinstance(conf.ipam, IpamConf):
        return conf.firewall
    without = conf.ipam.optional - {version_of(address) for address in addresses}
    kept = (port for port in conf.firewall.ports if not port.host_ip or version_of(port.host_ip) not in without)
    return replace(conf.firewall, ports=tuple(kept))


def admission(record: Attachment, requested: tuple[str, ...] = ()) -> tuple[Op, ...]:
    """What lets an attachment in: its elements, and an end to flows that came to its ports before it was there.

    :param requested: those of its addresses that were asked for: they may have been another's whose flows were left,
        being those of an address that is given out once or is not translated.
    """
    if record.policy is None:
        return ()
    return (ops.AddElements(elements(record.owner, record.policy)), *_forget(record.policy, requested))


def removal(
    record: Attachment, lost: frozenset[str] = frozenset(), elsewhere: frozenset[str] = frozenset()
) -> tuple[Op, ...]:
    """What takes an attachment out again.

    :param lost: those of its addresses that are somebody else's by now, and their places in the sets with them. Its
        bridge port and its ports of the node are nobody else's.
    :param elsewhere: those that another network has leased too: ``containers4`` and ``containers6`` have them once.
    """
    policy = record.policy
    if policy is None:
        return ()
    theirs = lost | {outside for outside, address in policy.inbound if address in lost}
    own = (
        element for element in elements(record.owner, policy)
        if (element.family == BRIDGE or element.key[0] not in theirs)
        and not (element.set in ("containers4", "containers6") and element.key[0] in elsewhere)
    )
    stale = tuple(each for each in policy.stale if each not in lost)
    return (ops.RemoveElements(tuple(own)), *_forget(policy, stale))


def _forget(policy: Policy, addresses: tuple[str, ...]) -> Iterable[Op]:
    """UDP has no end that the node could see: a flow's translation, or that it has none, outlives the container.

    Only what is translated is told apart by its flow; anything else goes where its address leads. Flows of IPv6
    addresses are found by listing all there are (``ops.FlushFlows``), so not those of one nobody will have again.
    """
    ports = dict.fromkeys(
        (version, port.host_port)
        for port in policy.ports if port.protocol == "udp"
        for version in (4, 6) if not port.host_ip or version_of(port.host_ip) == version
    )
    if addresses or ports:
        yield ops.FlushFlows(addresses, tuple(ports))
