"""The elements of an attachment in the firewall's sets: adds, removes and compares them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cni_v6.config.firewall import FirewallConf
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import MainConf
from cni_v6.firewall import ruleset
from cni_v6.firewall.elements import LOOPBACK, UNSPECIFIED, at_loopback, elements, owner_of, published
from cni_v6.firewall.loopback import STANDS_FOR
from cni_v6.firewall.policy import GUARD_BLOCKED, Policy, Port
from cni_v6.firewall.sets import BRIDGE, Element
from cni_v6.kernel import ops
from cni_v6.kernel.facts import Listener
from cni_v6.kernel.ops import Op
from cni_v6.kernel.questions import GetElements, GetListeners, GetRuleset, IsLocal, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.net.addresses import version as version_of
from cni_v6.plan import firewall, mac as plan_mac
from cni_v6.plan.site import Allocation
from cni_v6.protocol.names import Owner

TABLES_DIFFER = "the firewall's tables are not as they were loaded (cni-v6ctl reload makes them anew)"
NO_ROUTE = f"no published port answers at ::1, as there is no route to {STANDS_FOR} (cni-v6ctl reload adds it)"


def questions(conf: MainConf) -> tuple[Question, ...]:
    """The questions that an ADD asks."""
    if not conf.firewall.wanted:
        return ()
    return (GetRuleset(), GetListeners(_published(conf))) if conf.firewall.ports else (GetRuleset(),)


def _published(conf: MainConf) -> tuple[tuple[str, int], ...]:
    return tuple(dict.fromkeys((port.protocol, port.host_port) for port in conf.firewall.ports))


def warnings(conf: MainConf, allocation: Allocation, seen: Snapshot) -> Iterable[str]:
    """The warnings that an ADD logs: services of the node that a published port hides."""
    present = allocation.families()
    found = seen.listeners(_published(conf)) if conf.firewall.ports else ()
    hidden = dict.fromkeys(
        (port.protocol, port.host_port, listener.process or "a process of the node")
        for port in conf.firewall.ports for listener in found if _hides(port, listener, present)
    )
    for protocol, number, process in hidden:
        yield (f"portMappings: {process} listens on {protocol}/{number} of the node, and is not reached there while "
               "the container publishes the port: publish another one if that is not meant")


def _hides(port: Port, listener: Listener, present: frozenset[int]) -> bool:
    """Whether packets for a socket of the node go to the container instead. A socket at :: takes IPv4 as well."""
    if (port.protocol, port.host_port) != (listener.protocol, listener.port):
        return False
    everywhere = listener.address in UNSPECIFIED
    if port.host_ip and port.host_ip not in UNSPECIFIED:
        return port.host_ip == listener.address or everywhere
    families = {version_of(port.host_ip)} if port.host_ip else set(present)
    return listener.address == "::" or version_of(listener.address) in families


def check_questions(_: MainConf, record: Attachment) -> tuple[Question, ...]:
    """The questions that CHECK asks."""
    if record.policy is None:
        return ()
    needed = GetRuleset(), GetElements(elements(record.owner, record.policy))
    return (*needed, *map(IsLocal, (LOOPBACK, STANDS_FOR))) if _is_at_loopback(record.policy) else needed


def _is_at_loopback(policy: Policy) -> bool:
    """Whether a port of it answers at ::1. Such a port needs a route besides the rules (``ops.RouteLoopback``)."""
    return any(True for _ in at_loopback(policy))


def _lacks_route(policy: Policy, seen: Snapshot) -> bool:
    """While loopback is down, nobody calls from ::1. The route does not come back with it."""
    return _is_at_loopback(policy) and seen.is_local(LOOPBACK) and not seen.is_local(STANDS_FOR)


def differences(_: MainConf, record: Attachment, seen: Snapshot) -> Iterable[str]:
    """What the firewall lacks of an attachment: elements, one phrase for each, and the route to ::1's stand-in."""
    if record.policy is None:
        return
    if record.policy.guard == GUARD_BLOCKED:
        yield "the container is blocked, since its record is damaged and nothing says what it may do"
    if seen.ruleset() != ruleset.mark():
        yield TABLES_DIFFER
        return
    missing = _missing(record, seen)
    yield from (f"{' . '.join(element.key)} is missing in {element.family} {element.set}" for element in missing)
    if _lacks_route(record.policy, seen):
        yield NO_ROUTE


def mending(_: MainConf, record: Attachment, seen: Snapshot) -> Iterable[Op]:
    """Add what the firewall lacks. Tables that are gone are loaded for all attachments at once, with the route."""
    if record.policy is None or seen.ruleset() != ruleset.mark():
        return
    missing = _missing(record, seen)
    if missing:
        yield ops.AddElements(missing)
    if _lacks_route(record.policy, seen):
        yield ops.RouteLoopback()


def _missing(record: Attachment, seen: Snapshot) -> tuple[Element, ...]:
    expected = elements(record.owner, record.policy) if record.policy else ()
    present = {replace(element, comment="") for element in seen.elements(expected)} if expected else set()
    return tuple(element for element in expected if replace(element, comment="") not in present)


def with_policy(conf: MainConf, record: Attachment, addresses: tuple[str, ...], mac: str) -> Attachment:
    """The attachment with its firewall policy, made from these addresses and the container's MAC."""
    if not conf.firewall.wanted:
        return record
    policy = firewall.policy(
        _publishable(conf, addresses), home=conf.gateway_interface, port=record.host,
        mac=mac, addresses=addresses, address_known=conf.ipam is not None, trunk=conf.is_trunk,
        once=plan_mac.given_once(conf, addresses), prefixes=record.prefixes,
    )
    return replace(record, policy=policy)


def _publishable(conf: MainConf, addresses: tuple[str, ...]) -> FirewallConf:
    """The firewall configuration without the published ports of a family that the container does not get."""
    if not isinstance(conf.ipam, IpamConf):
        return conf.firewall
    without = conf.ipam.optional - {version_of(address) for address in addresses}
    kept = (port for port in conf.firewall.ports if not port.host_ip or version_of(port.host_ip) not in without)
    return replace(conf.firewall, ports=tuple(kept))


def ports(record: Attachment) -> GetElements:
    """The question who has the ports that an attachment publishes."""
    policy = record.policy
    return GetElements(tuple(published(policy.ports, policy.addresses)) if policy else ())


def without_own_ports(record: Attachment, seen: Snapshot) -> tuple[Attachment, list[tuple[str, Owner]]]:
    """The attachment without the ports that another interface of its container publishes; those, and the interfaces.

    :param seen: the answer to ``ports``.
    """
    policy = record.policy
    assert policy is not None  # it publishes something
    holders = {(element.set, element.key): owner_of(element.comment)
               for element in seen.elements(ports(record).elements)}
    kept: list[Port] = []
    taken: list[tuple[str, Owner]] = []
    for port in policy.ports:
        parts = [port] if port.host_ip else [replace(port, host_ip=address) for address in UNSPECIFIED]
        free = []
        for part in parts:
            publishers = [holders.get((element.set, element.key)) for element in published([part], policy.addresses)]
            own = [owner for owner in publishers if owner and owner.container_id == record.owner.container_id]
            free += [] if own else [part]
            taken += [(f"{port.protocol}/{port.host_port}", owner) for owner in own]
        kept += [port] if len(free) == len(parts) else free
    return replace(record, policy=replace(policy, ports=tuple(kept))), list(dict.fromkeys(taken))


def admission(record: Attachment, requested: tuple[str, ...] = ()) -> tuple[Op, ...]:
    """Add the elements of an attachment and the route that they need, and end the flows that reached its published
    ports before.

    :param requested: addresses the container asked for explicitly. UDP flows of a previous holder may still exist for
        them: unregistering skips the flush for addresses that are never reused or not translated.
    """
    if record.policy is None:
        return ()
    route = (ops.RouteLoopback(),) if _is_at_loopback(record.policy) else ()
    return (ops.AddElements(elements(record.owner, record.policy)), *route, *_forget(record.policy, requested))


def removal(
    record: Attachment, lost: frozenset[str] = frozenset(), elsewhere: frozenset[str] = frozenset()
) -> tuple[Op, ...]:
    """Remove the elements of an attachment, and end its flows.

    :param lost: addresses of the record that belong to another container by now. Their elements are that container's
        and stay. Elements with the bridge port or the node's ports as key always belong to this attachment.
    :param elsewhere: addresses that another network has leased too: ``containers4`` and ``containers6`` have them once.
    """
    policy = record.policy
    if policy is None:
        return ()
    taken = lost | {outside for outside, address in policy.inbound if address in lost}
    removable = (
        element for element in elements(record.owner, policy)
        if (element.family == BRIDGE or element.key[0] not in taken)
        and not (element.set in ("containers4", "containers6") and element.key[0] in elsewhere)
    )
    stale = tuple(address for address in policy.stale if address not in lost)
    return (ops.RemoveElements(tuple(removable)), *_forget(policy, stale))


def _forget(policy: Policy, addresses: tuple[str, ...]) -> Iterable[Op]:
    """Flush the UDP flows of addresses and of published ports.

    UDP has no end that the node could see. Connection tracking keeps a flow's translation, or its lack of one, after
    the container has gone. Only translated flows matter: other packets are routed by their address. To find the flows
    of an IPv6 address the kernel lists all flows (``ops.FlushFlows``), so ``addresses`` leaves out those that no
    container gets again.
    """
    ports = dict.fromkeys(
        (version, port.host_port)
        for port in policy.ports if port.protocol == "udp"
        for version in (4, 6) if not port.host_ip or version_of(port.host_ip) == version
    )
    if addresses or ports:
        yield ops.FlushFlows(addresses, tuple(ports))
