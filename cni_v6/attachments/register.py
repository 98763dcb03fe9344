"""An attachment recorded and let in; completed; taken out and forgotten.

All under the lease lock of the attachment's network, so that the sets hold what the records say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cni_v6.attachments import old_gateways
from cni_v6.attachments.context import Context
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import MainConf
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.store import Transaction
from cni_v6.plan import features, firewall_elements, gateways
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Address


@dataclass(frozen=True, slots=True)
class Network:
    """What registering has to know of a network besides its configuration.

    ``mac``: the MAC of a container with these addresses. ``is_ours``: the gateway's interface is one we made, or are
    about to make.
    """

    conf: MainConf
    mac: Callable[[tuple[str, ...]], str]
    is_ours: bool


def register(net: Network, record: Attachment, leases: Transaction, context: Context) -> None:
    """Record an attachment and let it in, both or neither.

    :raises CniError: what ``Transaction.put`` raises; PORT_TAKEN, FIREWALL_MISSING, KERNEL_REFUSED.
    """
    conf = net.conf
    ips = gateways.of_ranges(conf, record.addresses)
    held = old_gateways.settled(conf, record, ips, leases, context, is_ours=net.is_ours)
    whole = firewall_elements.with_policy(conf, held, record.addresses, net.mac(record.addresses))
    requested = conf.ipam.requested if isinstance(conf.ipam, IpamConf) else ()
    leases.put(whole)
    try:
        context.kernel.apply(
            firewall_elements.admission(whole, tuple(each for each in whole.addresses if each in requested))
        )
    except Exception:
        leases.drop(whole.owner)
        raise


def complete(
    net: Network, record: Attachment, ips: tuple[Address, ...], leases: Transaction, context: Context
) -> None:
    """Let in what is recorded already, now that another plugin has given it addresses."""
    held = old_gateways.settled(net.conf, record, ips, leases, context, is_ours=net.is_ours)
    addresses = tuple(ip.ip for ip in ips)
    whole = firewall_elements.with_policy(net.conf, held, addresses, net.mac(addresses))
    leases.update(whole)
    context.kernel.apply(firewall_elements.admission(whole))


def unregister(owner: Owner, data_dir: str, context: Context) -> bool:
    """Free what an owner holds, once it is out of the firewall; whether there was anything."""
    with context.leases(owner.network, data_dir).transaction() as leases:
        record = leases.get(owner)
        if record:
            release(record, leases, context)
    return record is not None


def release(record: Attachment, leases: Transaction, context: Context) -> None:
    """Take an attachment out of the firewall and off the uplink, and its prefixes' routes away, then forget it: under
    one lock, or the next holder's elements could be meant. What cannot be taken out keeps its record."""
    known = record.policy.addresses if record.policy else ()
    elsewhere = context.data_dirs.leased_elsewhere(record.owner.network, known)
    context.kernel.remove(features.removal(record, _lost(record, leases), elsewhere))
    old_gateways.release(record, leases, context)
    leases.drop(record.owner)


def _lost(record: Attachment, leases: Transaction) -> frozenset[str]:
    """The reference plugin frees leases of ours, and gives them out again, without a word to the firewall."""
    known = record.policy.addresses if record.policy else ()
    return frozenset(each for each in known if each not in record.addresses and leases.holder(each))
