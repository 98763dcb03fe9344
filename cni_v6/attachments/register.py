"""Registers, completes and unregisters attachments: their records, and their elements in the firewall.

Everything happens under the lock of the network's leases, so that the firewall's sets match the records.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import field, replace

from cni_v6.attachments import damaged, old_gateways, overlaps, recall
from cni_v6.attachments.context import Context
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import MainConf
from cni_v6.errors import PORT_TAKEN, CniError
from cni_v6.kernel.ops import Op
from cni_v6.leases.attachment import Attachment, BridgePort, ChildLink, GatewayAddress, ProxyEntry, RoutedLink, Setting
from cni_v6.leases.store import Transaction
from cni_v6.log import Log
from cni_v6.net.addresses import is_link_local, version
from cni_v6.plan import bridge_port, features, firewall_elements, gateways
from cni_v6.plan.site import Site
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Address
from cni_v6.values import dataclass


@dataclass(frozen=True, slots=True)
class Network:
    """What registering needs of a network besides its configuration.

    ``mac`` returns the MAC of a container with these addresses. ``is_ours``: we made the gateway interface, or are
    about to make it. ``port``: how containers are plugged in; ``link``: how a container with these addresses is
    connected, if each has a link of its own. ``recorded``: once the attachment is recorded, refuses it if a call at the
    same time has recorded what it cannot be beside. ``rest``: the prefixes whose rest is unreachable.

    Registering fills ``former``: interfaces where containers of this network still are that take the new container's
    addresses for on-link, with those addresses; and ``claimed``: as of ``node_settings.claim``.
    """

    conf: MainConf
    mac: Callable[[tuple[str, ...]], str]
    is_ours: bool
    port: BridgePort | ChildLink | None = None
    link: Callable[[tuple[Address, ...]], RoutedLink] | None = None
    recorded: Callable[[Context], None] | None = None
    rest: tuple[GatewayAddress, ...] = ()
    former: dict[str, tuple[str, ...]] = field(default_factory=dict)
    claimed: list[Setting] = field(default_factory=list)


def register(net: Network, record: Attachment, leases: Transaction, context: Context, log: Log) -> None:
    """Record an attachment and add its firewall elements, both or neither.

    A port that another interface of the same container publishes stays with that one: Multus hands a pod's ports to
    each of its networks.

    :raises CniError: what ``Transaction.put`` raises; PORT_TAKEN, FIREWALL_MISSING, KERNEL_REFUSED.
    """
    conf = net.conf
    attachment = _on_node(net, record, tuple(gateways.of_ranges(conf, record.addresses)), leases, context)
    registered = firewall_elements.with_policy(conf, attachment, record.addresses, net.mac(record.addresses))
    requested = conf.ipam.requested if isinstance(conf.ipam, IpamConf) else ()
    leases.put(registered)
    try:
        _claim(net, registered, leases, context)
        chosen_by_call = tuple(address for address in registered.addresses if address in requested)
        _admit(registered, leases, context, log, chosen_by_call)
    except Exception:
        with suppress(CniError):  # the first error is the one to tell
            old_gateways.release_settings(registered, leases, context)
        leases.drop(registered.owner)
        raise


def complete(
    net: Network, record: Attachment, ips: tuple[Address, ...], leases: Transaction, context: Context, log: Log
) -> None:
    """Complete a recorded attachment, now that another IPAM plugin has allocated its addresses."""
    overlaps.check(net.conf, leases, context, log, ips)
    attachment = _on_node(net, record, ips, leases, context)
    addresses = tuple(ip.ip for ip in ips)
    completed = firewall_elements.with_policy(net.conf, attachment, addresses, net.mac(addresses))
    leases.update(completed)
    _claim(net, completed, leases, context)
    _admit(completed, leases, context, log)


def _admit(
    record: Attachment, leases: Transaction, context: Context, log: Log, requested: tuple[str, ...] = ()
) -> None:
    """Add the elements of a recorded attachment, less the ports that the container has published already."""
    try:
        context.kernel.apply(firewall_elements.admission(record, requested))
    except CniError as error:
        if error.code != PORT_TAKEN:
            raise
        asked = firewall_elements.ports(record)
        left, taken = firewall_elements.without_own_ports(record, context.kernel.observe([asked]))
        if not taken:
            raise
        for port, holder in taken:
            log.warning(f"port {port} is left out: interface {holder.ifname} of this container publishes it already "
                        f"(network {holder.network})")
        leases.update(left)
        context.kernel.apply(firewall_elements.admission(left, requested))


def _claim(net: Network, record: Attachment, leases: Transaction, context: Context) -> None:
    """Remember which settings of the node the attachment needs."""
    needed = list(bridge_port.needed_settings(record))
    if needed:
        from cni_v6.attachments import node_settings  # of bridges with certain keys

        user = node_settings.user(record.owner)
        wanted = (replace(setting, user=user) for setting in needed)
        net.claimed.extend(node_settings.claim(wanted, net.conf.network, leases, context))


def turn_on(claimed: Iterable[Setting], planned: Collection[Op]) -> list[Op]:
    """The operations for settings that were claimed, but for those that are planned."""
    from cni_v6.plan import node_settings

    return [step for step in node_settings.turn_on(claimed) if step not in planned]


def _on_node(
    net: Network, record: Attachment, ips: tuple[Address, ...], leases: Transaction, context: Context
) -> Attachment:
    """The attachment with what it needs on the node: gateway addresses, and how it is plugged in."""
    anchors = old_gateways.settled(net.conf, ips, leases, context, is_ours=net.is_ours, rest=net.rest)
    record = replace(record, bandwidth=net.conf.bandwidth)
    if net.link:
        addresses = record.addresses or tuple(ip.ip for ip in ips)
        net.former.update(old_gateways.former(addresses, net.conf.network, leases, context))
        proxied = (ProxyEntry(home, record.host, address) for home, there in net.former.items()
                   for address in there if version(address) == 6)
        return replace(record, anchors=anchors, port=net.link(ips), proxied=tuple(proxied))
    port = net.port
    if isinstance(port, ChildLink) and port.node:
        anchors = tuple(GatewayAddress(port.node, gateways.host_prefix(ip), on_link=True) for ip in ips)
    if isinstance(port, BridgePort):
        link_local = (address for address in gateways.addresses(net.conf, ips) if is_link_local(address))
        own = next(link_local, "")
        port = replace(port, link_local=own) if own else port
    return replace(record, anchors=anchors, port=port)


def record_rules(site: Site, steps: Iterable[Op], data_dir: str, context: Context) -> None:
    """Record the rules of the container's namespace before they are made: they stay when its interface goes.

    :param steps: the operations of its ADD.
    """
    from cni_v6.plan import source_routing  # where a container may have a second network

    rules = source_routing.to_record(site, steps)
    if rules:
        with context.leases(site.owner.network, data_dir).transaction() as leases:
            record = leases.get(site.owner) or Attachment(site.owner, (), site.host, boot=context.boot)
            leases.update(replace(record, rules=rules))


def unregister(owner: Owner, data_dir: str, context: Context, *, was_there: bool = False) -> Attachment | None:
    """Release the attachment of an owner.

    :param was_there: whether it had a host interface until now.
    :returns: its record; None if there was none.
    """
    with context.leases(owner.network, data_dir).transaction() as leases:
        record = leases.get(owner)
        if record:
            release(record, leases, context)
        if record is None or not record.host:  # of its leases alone nobody can tell its elements
            recall.forget(owner, leases, context, was_there=was_there)
    return record


def release(record: Attachment, leases: Transaction, context: Context) -> None:
    """Remove an attachment's firewall elements, proxy entries and routes, then its record.

    All under one lock: otherwise the elements could be those of the next holder of an address. If something cannot be
    removed, the record stays.
    """
    if record.damaged and record.policy is None:
        record, _ = damaged.completed(record, (), context)  # its elements are to go too
    known = record.policy.addresses if record.policy else ()
    elsewhere = context.data_dirs.leased_elsewhere(record.owner.network, known)
    context.kernel.remove(features.removal(record, _lost(record, leases), elsewhere))
    old_gateways.release(record, leases, context)
    old_gateways.release_settings(record, leases, context)
    if isinstance(record.port, ChildLink) and record.port.node:
        from cni_v6.attachments import host_access  # of few networks

        host_access.release(record, record.port, leases, context)
    leases.drop(record.owner)


def _lost(record: Attachment, leases: Transaction) -> frozenset[str]:
    """Addresses of the policy that another container has: the reference plugin can free our leases and reuse them."""
    known = record.policy.addresses if record.policy else ()
    return frozenset(address for address in known if address not in record.addresses and leases.holder(address))
