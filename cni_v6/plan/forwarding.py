"""Turns IPv6 forwarding on without breaking the node's own IPv6.

``net.ipv6.conf.all.forwarding=1`` makes the kernel drop routes learnt from router advertisements, and ignore further
ones on every interface whose ``accept_ra`` is 1 (net/ipv6/addrconf.c, ipv6_accept_ra). A node that has its address or
default route from RAs would lose its connection.

If the kernel has ``force_forwarding`` (6.17), it is set on the bridge and on the node's interfaces that use IPv6, and
``all.forwarding`` stays as it is: RAs are accepted as before. On older kernels ``accept_ra`` is first set to 2 on every
interface that accepts RAs, and as the default for new interfaces. Then forwarding is turned on.
"""

from __future__ import annotations

from collections.abc import Iterator

from cni_v6.config.main import MainConf
from cni_v6.kernel.ops import HOST, Op, SetSysctl
from cni_v6.kernel.questions import GetIpv6Interfaces, GetSysctl, GetUplinks, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.plan.site import Allocation

IP_FORWARD = "ipv4/ip_forward"
ALL_FORWARDING = "ipv6/conf/all/forwarding"
SUPPORTED = "ipv6/conf/default/force_forwarding"
PROXY = "ipv6/conf/all/proxy_ndp"
LOOPBACK = "lo"
FUTURE_ACCEPT_RA = "ipv6/conf/default/accept_ra"  # of interfaces to come


def questions(interface: str) -> tuple[Question, ...]:
    """The questions whether IPv6 is forwarded between ``interface`` and the uplinks."""
    return (
        GetSysctl(HOST, ALL_FORWARDING),
        GetSysctl(HOST, SUPPORTED),
        GetSysctl(HOST, _force(interface)),
        GetUplinks(),
    )


def is_on(seen: Snapshot, interface: str) -> bool:
    """Whether packets from ``interface`` are forwarded."""
    return seen.sysctl(HOST, ALL_FORWARDING) == "1" or seen.sysctl(HOST, _force(interface)) == "1"


def more_questions(seen: Snapshot, interface: str) -> tuple[Question, ...]:
    """The further questions, after ``questions``, to turn forwarding on; none if it is on."""
    return () if is_on(seen, interface) else (GetIpv6Interfaces(), GetSysctl(HOST, FUTURE_ACCEPT_RA))


def turn_on(seen: Snapshot, interface: str) -> tuple[Op, ...]:
    """The operations that turn on IPv6 forwarding between ``interface`` and the uplinks.

    :param seen: answers to ``questions`` and ``more_questions``.
    """
    if seen.sysctl(HOST, ALL_FORWARDING) == "1":
        return ()
    if seen.sysctl(HOST, SUPPORTED) is None:
        return _careful(seen)
    names = [interface, *(uplink.ifname for uplink in seen.uplinks() if uplink.family == 6)]
    if not is_on(seen, interface):
        names += [known.name for known in seen.ipv6_interfaces() if not known.disabled]
    return tuple(SetSysctl(HOST, _force(name), "1") for name in dict.fromkeys(names))


def _careful(seen: Snapshot) -> tuple[Op, ...]:
    """Without ``force_forwarding``: set ``accept_ra`` to 2 where it is 1, then turn forwarding on for all."""
    future = ("default",) if seen.sysctl(HOST, FUTURE_ACCEPT_RA) == "1" else ()
    return (*_keep_listening(seen, *future), SetSysctl(HOST, ALL_FORWARDING, "1"))


def _keep_listening(seen: Snapshot, *more: str) -> tuple[Op, ...]:
    listening = [known.name for known in seen.ipv6_interfaces() if known.accept_ra == "1" and not known.disabled]
    return tuple(SetSysctl(HOST, f"ipv6/conf/{name}/accept_ra", "2") for name in (*listening, *more))


def uplink_questions(seen: Snapshot) -> tuple[Question, ...]:
    """The further questions, after ``questions``, for ``lacking``."""
    return tuple(GetSysctl(HOST, _force(uplink.ifname)) for uplink in seen.uplinks() if uplink.family == 6)


def lacking(seen: Snapshot, interface: str) -> tuple[Op, ...]:
    """Those of the operations of ``turn_on`` that are not done; answers of the uplinks pass through these.

    :param seen: answers to ``questions``, ``more_questions`` and ``uplink_questions``.
    """
    steps = turn_on(seen, interface)
    if not is_on(seen, interface):
        return steps
    return tuple(step for step in steps if isinstance(step, SetSysctl) and seen.sysctl(HOST, step.key) != step.value)


def missing(
    families: frozenset[int], interface: str, shown: str, seen: Snapshot
) -> Iterator[tuple[str, tuple[Op, ...]]]:
    """Where the node does not forward what containers of these families need: in words, and the operations that turn
    it on.

    :param interface: as of ``marked``. ``shown``: as a message names it.
    :param seen: as of ``lacking``, and the answer to GetSysctl of ``IP_FORWARD``.
    """
    if 4 in families and seen.sysctl(HOST, IP_FORWARD) != "1":
        yield "IPv4 forwarding is off on this node", (SetSysctl(HOST, IP_FORWARD, "1"),)
    steps = lacking(seen, interface) if 6 in families else ()
    if steps:
        where = _names(steps) if is_on(seen, interface) else shown
        yield f"IPv6 forwarding is off on {where}", steps


def _names(steps: tuple[Op, ...]) -> str:
    return ", ".join(step.key.split("/")[2] for step in steps if isinstance(step, SetSysctl))


# The feature of a network whose gateway is the node


def marked(conf: MainConf) -> str:
    """The interface whose setting says that the node forwards for a network: what all containers share, or loopback.

    Nothing that arrives at the loopback interface is forwarded, so the setting does nothing there, and ends with the
    boot. Where each container has an interface of its own, each would have the node's other ones set again.
    """
    return conf.gateway_interface if conf.is_shared else LOOPBACK


def gateway_questions(conf: MainConf) -> tuple[Question, ...]:
    """The questions that an ADD asks."""
    return questions(marked(conf)) if conf.is_gateway else ()


def gateway_more_questions(conf: MainConf, seen: Snapshot) -> tuple[Question, ...]:
    """The further questions for a gateway with IPv6 addresses."""
    return more_questions(seen, marked(conf))


def node_steps(conf: MainConf, allocation: Allocation, seen: Snapshot) -> tuple[Op, ...]:
    """Turn forwarding on if the container has an IPv6 address."""
    if 6 not in allocation.families():
        return ()
    return (*turn_on(seen, marked(conf)), *(() if conf.is_shared else own(seen, conf.gateway_interface)))


def own(seen: Snapshot, interface: str) -> tuple[Op, ...]:
    """Forward what a container sends through an interface of its own, once the node forwards."""
    if seen.sysctl(HOST, ALL_FORWARDING) == "1" or seen.sysctl(HOST, SUPPORTED) is None:
        return ()
    return (SetSysctl(HOST, _force(interface), "1"),)


def own_questions(interface: str) -> tuple[Question, ...]:
    """The questions for ``own_lacking``."""
    return GetSysctl(HOST, ALL_FORWARDING), GetSysctl(HOST, SUPPORTED), GetSysctl(HOST, _force(interface))


def own_lacking(seen: Snapshot, interface: str) -> tuple[Op, ...]:
    """Those of the operations of ``own`` that are not done."""
    return () if is_on(seen, interface) else own(seen, interface)


# NDP proxy: an uplink on which the node answers for containers


def answering_questions(uplink: str) -> tuple[Question, ...]:
    """The questions whether the node answers neighbour solicitations for others on ``uplink``."""
    return GetSysctl(HOST, _own(uplink)), GetSysctl(HOST, SUPPORTED), GetSysctl(HOST, PROXY), GetIpv6Interfaces()


def answer(seen: Snapshot, uplink: str) -> tuple[Op, ...]:
    """The operations that make the node answer on ``uplink`` for others, and forward the packets that follow.

    The kernel answers only while the interface's own ``forwarding`` is 1 (ndisc_recv_ns, net/ipv6/ndisc.c);
    ``force_forwarding`` does not count. Turning ``forwarding`` on drops RA routes of interfaces that accept RAs, as
    ``all.forwarding`` does (addrconf_fixup_forwarding). A neighbour verifies an entry with a unicast solicitation to
    the address. With only the interface's own ``proxy_ndp`` the kernel would forward that packet and not answer it
    (ip6_forward, net/ipv6/ip6_output.c), so ``all.proxy_ndp`` is set.

    :param seen: answers to ``answering_questions``.
    """
    steps: list[Op] = []
    if seen.sysctl(HOST, _own(uplink)) != "1":
        steps += [*_keep_listening(seen), SetSysctl(HOST, _own(uplink), "1")]
    if seen.sysctl(HOST, SUPPORTED) is not None:
        steps.append(SetSysctl(HOST, _force(uplink), "1"))
    return (*steps, SetSysctl(HOST, PROXY, "1"))


def answers(seen: Snapshot, uplink: str) -> bool:
    """Whether the node answers for others on ``uplink``, as ``answer`` makes it do."""
    return seen.sysctl(HOST, PROXY) == "1" and seen.sysctl(HOST, _own(uplink)) == "1"


def _own(interface: str) -> str:
    return f"ipv6/conf/{interface}/forwarding"


def _force(interface: str) -> str:
    return f"ipv6/conf/{interface}/force_forwarding"
