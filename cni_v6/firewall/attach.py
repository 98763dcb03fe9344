"""An attachment's way into the firewall and out of it again, and the firewall made anew from all of them.

All under the lease lock of the attachment's network, so that the sets hold what the records say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from cni_v6 import delegated, draining, gateways, neighbourhood, ops, segment, uplink
from cni_v6.config import BridgeConf, IpamConf
from cni_v6.errors import NODE_CONFLICT, CniError
from cni_v6.firewall import choose, ruleset
from cni_v6.firewall.conf import FirewallConf
from cni_v6.firewall.elements import elements
from cni_v6.firewall.policy import Policy
from cni_v6.firewall.sets import BRIDGE
from cni_v6.kernel import GetElements, GetRuleset, Question, Snapshot
from cni_v6.leases import Attachment, Transaction
from cni_v6.names import Owner
from cni_v6.node import Node
from cni_v6.ops import Op
from cni_v6.protocol import Invocation
from cni_v6.ranges import version as version_of
from cni_v6.result import Address


def prepare(call: Invocation, conf: BridgeConf, node: Node, seen: Snapshot) -> None:
    """Our tables, where the network needs them and nobody loaded them yet, somebody flushed them, or another version
    of ours wrote them."""
    if call.args.kubernetes.get("K8S_POD_NAME") and "ingress" not in call.config:
        call.log.warning('ingress is "published" by default, which closes pods to other nodes: write "ingress": "open"')
    if not conf.firewall.wanted:
        return
    if seen.ruleset() != ruleset.mark():
        count = reload(node)
        call.log.info(f"loaded the firewall's tables, with {count} attachments")


def admit(conf: BridgeConf, record: Attachment, leases: Transaction, node: Node, *, seen: Snapshot) -> None:
    """Record an attachment and let it in, both or neither.

    :param seen: answers to ``plan.questions``.
    :raises CniError: what ``Transaction.put`` raises; PORT_TAKEN, FIREWALL_MISSING, KERNEL_REFUSED.
    """
    ips = gateways.of_ranges(conf, record.addresses)
    held = draining.settled(conf, record, ips, leases, node, seen=seen)
    mac = neighbourhood.mac(conf, record.owner, node.id, record.addresses, seen)
    whole = with_policy(conf, held, record.addresses, mac)
    requested = conf.ipam.requested if isinstance(conf.ipam, IpamConf) else ()
    leases.put(whole)
    try:
        node.kernel.apply(admission(whole, tuple(each for each in whole.addresses if each in requested)))
    except Exception:
        leases.drop(whole.owner)
        raise


def admit_known(
    conf: BridgeConf, record: Attachment, ips: tuple[Address, ...], leases: Transaction, node: Node, *, seen: Snapshot
) -> None:
    """Let in what is recorded already, now that another plugin has given it addresses."""
    held = draining.settled(conf, record, ips, leases, node, seen=seen)
    addresses = tuple(ip.ip for ip in ips)
    whole = with_policy(conf, held, addresses, neighbourhood.mac(conf, record.owner, node.id, addresses, seen))
    leases.amend(whole)
    node.kernel.apply(admission(whole))


def retire(owner: Owner, data_dir: str, node: Node) -> bool:
    """Free what an owner holds, once it is out of the firewall; whether there was anything."""
    with node.leases(owner.network, data_dir).transaction() as leases:
        record = leases.get(owner)
        if record:
            drop(record, leases, node)
    return record is not None


def drop(record: Attachment, leases: Transaction, node: Node) -> None:
    """Take an attachment out of the firewall and off the uplink, and its prefixes' routes away, then forget it: under
    one lock, or the next holder's elements could be meant. What cannot be taken out keeps its record."""
    node.kernel.remove((*removal(record, _lost(record, leases)), *uplink.removal(record), *delegated.removal(record)))
    draining.release(record, leases, node)
    leases.drop(record.owner)


def questions(record: Attachment | None) -> tuple[Question, ...]:
    """What CHECK has to know."""
    if record is None or record.policy is None:
        return ()
    return GetRuleset(), GetElements(elements(record.owner, record.policy))


def differences(record: Attachment | None, seen: Snapshot) -> Iterable[str]:
    """What the firewall lacks of an attachment, a phrase each."""
    if record is None or record.policy is None:
        return
    if seen.ruleset() != ruleset.mark():
        yield "the firewall's tables are not as they were loaded (cni-v6ctl reload makes them anew)"
    wanted = elements(record.owner, record.policy)
    there = {replace(each, comment="") for each in seen.elements(wanted)}
    lacking = (each for each in wanted if replace(each, comment="") not in there)
    yield from (f"{' . '.join(each.key)} is missing in {each.family} {each.set}" for each in lacking)


def with_policy(conf: BridgeConf, record: Attachment, addresses: tuple[str, ...], mac: str) -> Attachment:
    """An attachment with what the firewall is to be told of it, for these addresses and the container's MAC."""
    if not conf.firewall.wanted:
        return record
    policy = choose.policy(
        _publishable(conf, addresses), home=segment.gateway_interface(conf), port=record.host,
        mac=mac, addresses=addresses, address_known=conf.ipam is not None, trunk=bool(conf.vlan_trunk),
        once=neighbourhood.given_once(conf, addresses), prefixes=record.prefixes,
    )
    return replace(record, policy=policy)


def _publishable(conf: BridgeConf, addresses: tuple[str, ...]) -> FirewallConf:
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


def removal(record: Attachment, lost: frozenset[str] = frozenset()) -> tuple[Op, ...]:
    """What takes an attachment out again.

    :param lost: those of its addresses that are somebody else's by now, and their places in the sets with them. Its
        bridge port and its ports of the node are nobody else's.
    """
    policy = record.policy
    if policy is None:
        return ()
    theirs = lost | {outside for outside, address in policy.inbound if address in lost}
    own = (each for each in elements(record.owner, policy) if each.family == BRIDGE or each.key[0] not in theirs)
    stale = tuple(each for each in policy.stale if each not in lost)
    return (ops.RemoveElements(tuple(own)), *_forget(policy, stale))


def _lost(record: Attachment, leases: Transaction) -> frozenset[str]:
    """The reference plugin frees leases of ours, and gives them out again, without a word to the firewall."""
    known = record.policy.addresses if record.policy else ()
    return frozenset(each for each in known if each not in record.addresses and leases.holder(each))


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


def reload(node: Node) -> int:
    """Make both tables anew, in one transaction, with the elements of every attachment of this boot.

    :returns: the number of attachments.
    :raises CniError: TRY_AGAIN, STORE_FAILED, KERNEL_REFUSED.
    """
    with _all(node) as records:
        held = [each for record in records if record.policy for each in elements(record.owner, record.policy)]
        node.kernel.apply([ops.LoadRuleset(tuple(held))])
    return len(records)


def unload(node: Node, *, force: bool) -> int:
    """Take both tables away.

    :param force: though there are attachments that count on them.
    :returns: the number of those.
    :raises CniError: NODE_CONFLICT where there are some.
    """
    with _all(node) as records:
        if records and not force:
            words = f"{len(records)} attachments count on the firewall's tables, such as {records[0].owner}"
            raise CniError(NODE_CONFLICT, words, "run DEL for them first, or use --force: they lose what they have")
        node.kernel.apply([ops.UnloadRuleset()])
    return len(records)


@contextmanager
def _all(node: Node) -> Iterator[list[Attachment]]:
    """Every attachment of this boot that has a policy, while the lock of every network is held, so that no ADD or DEL
    comes in between. Containers of an earlier boot are gone, though nobody may have called DEL for them.

    The locks are taken in one order; nobody else holds one while waiting for another.
    """
    dirs = node.data_dirs
    places = [(folder, network) for folder in dirs.known() for network in dirs.recorded(folder)]
    with ExitStack() as stack:
        stores = [stack.enter_context(node.leases(network, folder).transaction()) for folder, network in places]
        records = [record for leases in stores for record in leases.attachments()]
        yield [record for record in records if record.policy and record.boot == node.boot]
