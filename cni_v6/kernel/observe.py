"""Answers questions about the kernel's present state. Only reads."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel import apply_firewall, sysctl
from cni_v6.kernel.facts import Ipv6Interface, Lifetime, Link, Listener, RouteEntry, Shaping, Uplink
from cni_v6.kernel.netlink import answers, pyroute2_messages, requests
from cni_v6.kernel.netlink.message import Message
from cni_v6.kernel.netlink.socket import Answer, RouteSocket, explain
from cni_v6.kernel.open_namespaces import Spaces
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import (
    GetAddresses,
    GetAliases,
    GetAlive,
    GetAllElements,
    GetElements,
    GetForwardChains,
    GetIpv6Interfaces,
    GetLifetimes,
    GetLink,
    GetLinks,
    GetListeners,
    GetMacHolder,
    GetChildMode,
    GetNeighbour,
    GetNeighbours,
    GetNft,
    GetPeerAddresses,
    GetPortVlans,
    GetRoutes,
    GetRules,
    GetRuleset,
    GetShaping,
    GetSurroundings,
    GetSysctl,
    GetTables,
    GetUplinks,
    HasProxy,
    HasRoute,
    IsLocal,
    Question,
    RefusesReturn,
)
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.kernel.sysctl import Folders

BY_KEY = (HasRoute, GetNeighbour, HasProxy, IsLocal, RefusesReturn)
CONF, OF_NONE = "ipv6/conf/", ("all", "default")  # settings of interfaces; in their place names of none
# Of rules, routes or addresses of a container: its namespace is its own, and the engine must not read without end.
MOST_OF_A_CONTAINER = 10_000
_UPLINK_ROUTES = requests.get_uplink(4), requests.get_uplink(6)
# Errors of RTM_GETROUTE and of dumps if there is no route, no IPv6, or no such family.
NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL)


def observe(spaces: Spaces, questions: Iterable[Question]) -> Snapshot:
    """Answer all questions; all links of a namespace in one round trip."""
    links, sysctls, vlans = list[GetLink](), list[GetSysctl](), list[GetPortVlans]()
    by_key, others = list[Question](), list[Question]()
    for question in dict.fromkeys(questions):
        if isinstance(question, GetLink):
            links.append(question)
        elif isinstance(question, GetSysctl):
            sysctls.append(question)
        elif isinstance(question, GetPortVlans):
            vlans.append(question)
        elif isinstance(question, BY_KEY):
            by_key.append(question)
        else:
            others.append(question)
    answered: dict[Question, object] = {}
    if GetLinks() in others or GetSurroundings() in others:
        from cni_v6.kernel import all_links  # few calls look at all of the node

        sysctls = all_links.answer(spaces, sysctls, others, answered)
    left = _host_links(spaces, links, sysctls, others, answered)
    answered.update(_sysctls(spaces, left))
    answered.update(_links(spaces, [question for question in links if question.netns != HOST]))
    answered.update(_port_vlans(spaces, vlans))
    if by_key:
        from cni_v6.kernel import by_key as keyed  # no ADD asks so

        answered.update(keyed.answered(spaces, by_key))
    for other in others:
        if other not in answered:
            answered[other] = _ANSWERS[type(other)](spaces, other)
    return Snapshot(answered)


def by_interface(sysctls: Iterable[GetSysctl]) -> tuple[dict[str, dict[str, GetSysctl]], list[GetSysctl]]:
    """The sysctls that a message about an interface of the node has, by interface and setting; and the others."""
    wanted: dict[str, dict[str, GetSysctl]] = {}
    left = []
    for question in sysctls:
        ifname, name = _setting(question.key) if question.netns == HOST else ("", "")
        if name:
            wanted.setdefault(ifname, {})[name] = question
        else:
            left.append(question)
    return wanted, left


def _host_links(
    spaces: Spaces, links: Iterable[GetLink], sysctls: Sequence[GetSysctl], others: Sequence[Question],
    answered: dict[Question, object],
) -> Sequence[GetSysctl]:
    """Answer what is asked about the node's interfaces, with those sysctls of theirs that the same answers have.

    :param others: which may ask for the uplinks.
    :returns: the sysctls that are left to read.
    """
    links = [question for question in links if question.netns == HOST]
    routes = _UPLINK_ROUTES if GetUplinks() in others else ()
    if not links and not routes:
        return sysctls
    of_interfaces, left = by_interface(sysctls)
    wanted = {question.ifname: of_interfaces.pop(question.ifname, {}) for question in links}
    left += [question for questions in of_interfaces.values() for question in questions.values()]
    messages = [requests.get_link(question.ifname) for question in links]
    told = spaces.get(HOST).route.request([*messages, *routes])
    for question, answer in zip(links, told):
        settings: dict[str, str | None] = dict.fromkeys(wanted[question.ifname])
        answered[question] = _link(spaces, question, answer, settings)
        answered.update((wanted[question.ifname][name], value) for name, value in settings.items())
    if routes:
        answered[GetUplinks()] = _uplinks(spaces, HOST, told[len(links):])
    return left


@lru_cache(256)
def _setting(key: str) -> tuple[str, str]:
    """The interface, and the setting of it that a message about it has; empty for another sysctl."""
    ifname, _, name = key.removeprefix(CONF).partition("/")
    ours = key.startswith(CONF) and ifname not in OF_NONE and name in answers.IPV6_SETTINGS
    return (ifname, name) if ours else ("", "")


def _links(spaces: Spaces, questions: Sequence[GetLink]) -> Iterable[tuple[Question, Link | None]]:
    for netns in dict.fromkeys(question.netns for question in questions):
        here = [question for question in questions if question.netns == netns]
        route = spaces.get(netns).route
        for question, answer in zip(here, route.request([requests.get_link(asked.ifname) for asked in here])):
            yield question, _link(spaces, question, answer, {})


def _link(spaces: Spaces, question: GetLink, answer: Answer, settings: dict[str, str | None]) -> Link | None:
    spaces.learn(question.netns, question.ifname, answer)
    if answer.error == errno.ENODEV:
        return None
    _refused(answer, f"cannot look up interface {question.ifname}")
    link, master = answers.read_link(answer.messages[0], settings)
    return replace(link, master=_name(spaces, question.netns, master)) if master else link


def _name(spaces: Spaces, netns: str, index: int) -> str:
    [answer] = spaces.get(netns).route.request([requests.get_link_by_index(index)])
    return answers.name_of(answer.messages[0]) if answer.messages else ""


def dump(spaces: Spaces, netns: str, message: Message, what: str) -> tuple[bytes, ...]:
    """
    :raises CniError: KERNEL_REFUSED, also for more than a container may have (``MOST_OF_A_CONTAINER``).
    """
    most = 0 if netns == HOST else MOST_OF_A_CONTAINER
    answer = spaces.get(netns).route.dump(message, most)
    if answer.error in NO_ROUTE:
        return ()
    if most and answer.error == errno.EOVERFLOW:
        words = f"cannot list {what} in the container: more than {most}"
        raise CniError(KERNEL_REFUSED, words, f"remove those that are not needed ({netns})")
    _refused(answer, f"cannot list {what}")
    return answer.messages


def _addresses(spaces: Spaces, question: GetAddresses) -> tuple[str, ...]:
    index = spaces.index(question.netns, question.ifname)
    if index is None:
        return ()
    messages = dump(spaces, question.netns, requests.get_addresses(index), f"addresses of {question.ifname}")
    return tuple(address for owner, address in map(answers.read_address, messages) if owner == index)


def _lifetimes(spaces: Spaces, question: GetLifetimes) -> tuple[Lifetime, ...]:
    index = spaces.index(question.netns, question.ifname)
    if index is None:
        return ()
    messages = dump(spaces, question.netns, pyroute2_messages.get_lifetimes(index), f"addresses of {question.ifname}")
    return tuple(found for owner, found in map(pyroute2_messages.read_lifetime, messages) if owner == index)


def _routes(spaces: Spaces, question: GetRoutes) -> tuple[RouteEntry, ...]:
    index = spaces.index(question.netns, question.ifname)
    if index is None:
        return ()
    found: list[RouteEntry] = []
    for family in (4, 6):
        messages = dump(spaces, question.netns, requests.get_routes(family, index), f"routes of {question.ifname}")
        entries = [entry for entry in map(answers.read_route, messages) if entry is not None]
        found += [route for owner, route in entries if owner == index]
    return tuple(found)


def _uplinks_inside(spaces: Spaces, question: GetUplinks) -> tuple[Uplink, ...]:
    return _uplinks(spaces, question.netns, spaces.get(question.netns).route.request(_UPLINK_ROUTES))


def _uplinks(spaces: Spaces, netns: str, told: Sequence[Answer]) -> tuple[Uplink, ...]:
    """
    :param told: the answers about the routes of both families.
    """
    hops: list[tuple[int, int]] = []
    for family, answer in zip((4, 6), told):
        if answer.error not in NO_ROUTE:
            _refused(answer, f"cannot look up the IPv{family} default route")
            hops += [(family, index) for data in answer.messages for index in answers.read_uplinks(data)]
    if not hops:
        return ()
    looked = spaces.get(netns).route.request([requests.get_link_by_index(index) for _, index in hops])
    links = ((family, answers.read_link(answer.messages[0])[0]) for (family, _), answer in zip(hops, looked)
             if answer.messages)
    return tuple(Uplink(family, link.name, link.mtu) for family, link in links)


def _rules(spaces: Spaces, question: GetRules) -> tuple[str, ...]:
    from cni_v6.kernel.netlink import pyroute2_rules  # where a container has a second network

    dumps = (dump(spaces, question.netns, request, "rules") for request in map(pyroute2_rules.dump, (4, 6)))
    read = (pyroute2_rules.read(message) for messages in dumps for message in messages)
    return tuple(source for source, table in read if source and table == question.table)


def _neighbours(spaces: Spaces, question: GetNeighbours) -> tuple[tuple[str, str], ...]:
    index = spaces.index(question.netns, question.ifname)
    if index is None:
        return ()
    wanted = pyroute2_messages.get_neighbours(index)
    messages = dump(spaces, question.netns, wanted, f"neighbours of {question.ifname}")
    read = (found for found in map(pyroute2_messages.read_neighbour, messages) if found)
    return tuple(neighbour for owner, neighbour in read if owner == index)


def _shaping(spaces: Spaces, question: GetShaping) -> Shaping:
    index = spaces.index(HOST, question.ifname)
    if index is None:
        return Shaping()
    route = spaces.get(HOST).route
    [queue] = route.request([pyroute2_messages.get_queue(index)])
    buckets = [bucket for bucket in map(pyroute2_messages.read_bucket, queue.messages) if bucket]
    filters = route.dump(pyroute2_messages.get_filters(index)).messages  # an error: it has no hook for them
    targets = [target for target in map(pyroute2_messages.read_redirect, filters) if target]
    names = route.request([requests.get_link_by_index(targets[0])])[0].messages if targets else ()
    return Shaping(buckets[0] if buckets else None, answers.name_of(names[0]) if names else "")


def _peer_addresses(spaces: Spaces, question: GetPeerAddresses) -> tuple[str, ...]:
    """The kernel lists addresses of another namespace to one who has its id here (IFA_TARGET_NETNSID, Linux 5.0)."""
    route = spaces.get(HOST).route
    [answer] = route.request([requests.get_link(question.ifname)])
    peer, namespace = answers.peer_place(answer.messages[0]) if answer.messages else (0, None)
    if not peer or namespace is None:
        return ()
    alone = RouteSocket()  # a dump that is cut off leaves its socket unusable
    try:
        listed = alone.dump(requests.get_addresses(peer, namespace), MOST_OF_A_CONTAINER)
    finally:
        alone.close()
    return tuple(address for owner, address in map(answers.read_address, listed.messages) if owner == peer)


def _aliases(spaces: Spaces, question: GetAliases) -> tuple[tuple[str, str], ...]:
    from cni_v6.kernel import all_links  # for GC alone

    return all_links.aliases(spaces, question)


def _listeners(_: Spaces, question: GetListeners) -> tuple[Listener, ...]:
    from cni_v6.kernel.listeners import listeners  # for who publishes ports

    return listeners(question.ports)


def _alive(_: Spaces, question: GetAlive) -> frozenset[tuple[int, int]]:
    from cni_v6.kernel.netns import alive  # rarely needed: only to find stale attachments

    return alive.alive(question.namespaces)


def _mac_holder(spaces: Spaces, question: GetMacHolder) -> Link | None:
    from cni_v6.kernel import bridge_macs  # few calls ask for a MAC

    return bridge_macs.holder(spaces, question)


def _child_mode(spaces: Spaces, question: GetChildMode) -> tuple[str, str]:
    [answer] = spaces.get(question.netns).route.request([requests.get_link(question.ifname)])
    return pyroute2_messages.read_child_mode(answer.messages[0]) if answer.messages else ("", "")


def _port_vlans(spaces: Spaces, questions: Sequence[GetPortVlans]) -> Iterable[tuple[Question, object]]:
    """One dump for all questions: the kernel lists all ports in any case."""
    messages = dump(spaces, HOST, pyroute2_messages.get_port_vlans(), "VLANs of bridge ports") if questions else ()
    for question in questions:
        index = spaces.index(HOST, question.ifname)
        of_port = (data for data in messages if answers.index_of(data) == index)
        yield question, tuple(vlan for data in of_port for vlan in pyroute2_messages.read_port_vlans(data))


def _sysctls(spaces: Spaces, questions: Sequence[GetSysctl]) -> Mapping[Question, str | None]:
    found: dict[Question, str | None] = {}
    for netns in dict.fromkeys(question.netns for question in questions):
        here = [question for question in questions if question.netns == netns]

        def read(folders: Folders) -> None:
            found.update((question, sysctl.read(folders, question.key)) for question in here)

        spaces.with_sysctls(netns, read)
    return found


def _ipv6_interfaces(spaces: Spaces, _: GetIpv6Interfaces) -> tuple[Ipv6Interface, ...]:
    folders = spaces.get(HOST).sysctl

    def setting(name: str, key: str) -> str:
        return sysctl.read(folders, f"ipv6/conf/{name}/{key}") or ""

    return tuple(
        Ipv6Interface(name, setting(name, "accept_ra"), setting(name, "disable_ipv6") != "0")
        for name in sysctl.interfaces(folders)
        if name != "lo"
    )


def _refused(answer: Answer, what: str) -> None:
    if answer.error:
        raise CniError(KERNEL_REFUSED, what, explain(answer))


_ANSWERS: dict[type[Any], Callable[[Spaces, Any], object]] = {
    GetAddresses: _addresses,
    GetLifetimes: _lifetimes,
    GetRoutes: _routes,
    GetRules: _rules,
    GetUplinks: _uplinks_inside,
    GetIpv6Interfaces: _ipv6_interfaces,
    GetNeighbours: _neighbours,
    GetShaping: _shaping,
    GetRuleset: apply_firewall.get_ruleset,
    GetTables: apply_firewall.get_tables,
    GetElements: apply_firewall.get_elements,
    GetListeners: _listeners,
    GetNft: apply_firewall.get_nft,
    GetForwardChains: apply_firewall.get_forward_chains,
    GetAllElements: apply_firewall.get_all_elements,
    GetPeerAddresses: _peer_addresses,
    GetMacHolder: _mac_holder,
    GetChildMode: _child_mode,
    GetAliases: _aliases,
    GetAlive: _alive,
}
