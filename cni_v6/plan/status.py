"""What STATUS asks the kernel, and what it finds: whether an ADD would succeed, and what containers have lost. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cni_v6.allocation import ranges
from cni_v6.config.bridge import BridgeConf
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import MainConf
from cni_v6.errors import LIMITED, NOT_AVAILABLE, CniError
from cni_v6.kernel.facts import BRIDGE_PORTS_MAX
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetLink, GetLinks, GetSysctl, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment, GatewayAddress
from cni_v6.log import few
from cni_v6.plan import bridge_port, families, features, forwarding, gateways, mtu, outage
from cni_v6.protocol.names import owned
from cni_v6.protocol.result import Address


@dataclass(frozen=True, slots=True)
class Others:
    """What is known of a bridge and a network's containers that are not looked at, since they were in order.

    ``ports``: how many the bridge had when all were looked at. ``wanted``: as of ``outage.wanted``, of containers that
    may be gone by now.
    """

    ports: int
    wanted: frozenset[GatewayAddress]


def questions(conf: BridgeConf, node: str, records: Sequence[Attachment]) -> tuple[Question, ...]:
    """The questions that STATUS asks the kernel, before ``outage.more_questions``.

    :param node: the node's machine id (``Site.node``).
    :param records: the network's attachments.
    """
    return GetLinks(), *_node_questions(conf), *outage.questions(conf, node, records)


def _node_questions(conf: BridgeConf) -> Iterator[Question]:
    yield from (GetLink(HOST, conf.bridge), GetSysctl(HOST, forwarding.IP_FORWARD), *families.host_questions())
    yield from (*features.questions(conf), *forwarding.questions(conf.gateway_interface))


def few_questions(
    conf: BridgeConf, node: str, records: Sequence[Attachment], others: Others
) -> tuple[Question, ...]:
    """As ``questions``, of these containers and what all have in common."""
    links = (GetLink(HOST, record.host) for record in records)
    return *links, *_node_questions(conf), *outage.questions(conf, node, records, others.wanted)


def of_few(records: Iterable[Attachment], seen: Snapshot) -> Snapshot:
    """The answers to ``few_questions`` as those to ``questions``, as if the node had these links alone."""
    links = (seen.link(HOST, record.host) for record in records)
    return seen.with_answers(Snapshot({GetLinks(): tuple(link for link in links if link)}))


def others_of(
    conf: BridgeConf, records: Sequence[Attachment], seen: Snapshot, before: Others | None = None
) -> Others | None:
    """What the next STATUS needs of these containers; None if it is to look at them again: the kernel does not tell
    that it no longer answers for an address (ndpProxy).

    :param before: of the last STATUS, if ``seen`` is of a few containers.
    """
    if any(record.proxied for record in records):
        return None
    wanted = frozenset(outage.wanted(conf, records))
    if before:
        return Others(before.ports, before.wanted | wanted)
    return Others(_ports(conf, seen), wanted)


def _ports(conf: BridgeConf, seen: Snapshot) -> int:
    return sum(port.master == conf.bridge for port in seen.links())


def check(
    conf: BridgeConf, node: str, records: Sequence[Attachment], seen: Snapshot, others: Others | None = None
) -> list[str]:
    """What STATUS finds in the kernel.

    :param others: with all ports that the bridge may have; None where ``seen`` and ``records`` are of all.
    :returns: warnings.
    :raises CniError: NOT_AVAILABLE when an ADD would fail, LIMITED when containers that run are cut off.
    """
    features.check(conf, seen)
    link = seen.link(HOST, conf.bridge)
    if link and link.kind != "bridge":
        words = f"bridge: {conf.bridge} exists and is no bridge"
        raise CniError(NOT_AVAILABLE, words, "choose another name for the bridge, or remove that interface")
    ports = others.ports if others else _ports(conf, seen)
    if ports >= BRIDGE_PORTS_MAX:
        words = f"bridge {conf.bridge} has {ports} ports, as many as a Linux bridge takes"
        raise CniError(NOT_AVAILABLE, words, "remove containers, or add a second network with its own bridge")
    required, present = check_families(conf, seen)
    if conf.is_gateway:
        list(gateways.steps(conf, _first_gateways(conf, required), node, seen))  # for its errors
    _check_plugged(conf, seen)
    small = mtu.too_small(conf, seen) if 6 in required else None
    if link and ports and (records or others):
        further = others.wanted if others else ()
        faults = outage.faults(conf, node, records, present, seen, further)
        check_running(NOT_AVAILABLE if small else LIMITED, faults)
    if small:
        raise small
    lacking = bridge_port.lacks_netfilter(conf, seen)
    if lacking:
        raise lacking
    return list(outage.warnings(conf, present, seen))


def check_families(conf: MainConf, seen: Snapshot) -> tuple[frozenset[int], frozenset[int]]:
    """The families of the network's ranges that ``ipam.required`` names, and those that the node has.

    :raises CniError: NOT_AVAILABLE for IPv6 that is required and off.
    """
    sets, optional = (conf.ipam.sets, conf.ipam.optional) if isinstance(conf.ipam, IpamConf) else ((), frozenset())
    found = frozenset(addresses.family for addresses in sets)
    disabled = seen.sysctl(HOST, "ipv6/conf/all/disable_ipv6")
    if 6 in found - optional and disabled is None:
        words = "the kernel has no IPv6 and the network has IPv6 ranges"
        raise CniError(NOT_AVAILABLE, words, "boot without ipv6.disable=1, or use IPv4 ranges only")
    if conf.is_gateway and 6 in found - optional and disabled != "0":
        words = "IPv6 is off on this node (net.ipv6.conf.all.disable_ipv6) and the network has IPv6 ranges"
        raise CniError(NOT_AVAILABLE, words, "run sysctl -w net.ipv6.conf.all.disable_ipv6=0")
    return found - optional, found if disabled == "0" else found - {6}


def _check_plugged(conf: BridgeConf, seen: Snapshot) -> None:
    """Check that the containers of the network are in a bridge: one that is deleted leaves its ports behind."""
    owners = sorted(owner for owner, link in owned(seen.links(), conf.network) if not link.master)
    if owners:
        named = few([f"{owner.container_id}/{owner.ifname}" for owner in owners])
        words = f"containers are in no bridge, so they are cut off: {named}"
        raise CniError(LIMITED, words, f"run cni-v6ctl check {conf.network} --repair")


def _first_gateways(conf: BridgeConf, required: frozenset[int]) -> Iterable[Address]:
    """The gateway of the first range of each set of a required family, as of a container there."""
    firsts = [range_set.written[0] for range_set in conf.ipam.sets] if isinstance(conf.ipam, IpamConf) else []
    addresses = (Address(ranges.subnet(first), first.gateway) for first in firsts)
    return [address for address in addresses if address.family in required]


def check_running(code: int, faults: Iterable[outage.Fault]) -> None:
    """:raises CniError: naming all that running containers have lost, with the commands for all of it."""
    found = list(faults)
    if found:
        commands = dict.fromkeys(command for fault in found for command in fault.commands)
        remedy = f"run: {'; '.join(commands)}" if commands else "run ADD for a container of the network"
        raise CniError(code, "; ".join(fault.what for fault in found), remedy)
