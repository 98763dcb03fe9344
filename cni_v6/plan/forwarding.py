"""IPv6 forwarding that never costs the node its own IPv6.

``net.ipv6.conf.all.forwarding=1`` makes the kernel drop routes learnt from router advertisements, and ignore further
ones on every interface whose ``accept_ra`` is 1 (net/ipv6/addrconf.c, ipv6_accept_ra). A node that lives on RAs is cut
off.

So: where the kernel has ``force_forwarding`` (6.17), it is set on the bridge and on the node's interfaces that use
IPv6, and ``all.forwarding`` stays as it is: RAs are accepted as before. Elsewhere ``accept_ra`` becomes 2 first, on
every interface that listens and for those to come, and then forwarding is turned on.
"""

from __future__ import annotations

from cni_v6.config.main import MainConf
from cni_v6.kernel.ops import HOST, Op, SetSysctl
from cni_v6.kernel.questions import GetIpv6Interfaces, GetSysctl, GetUplinks, Question, Snapshot
from cni_v6.plan.site import Allocation

ALL_FORWARDING = "ipv6/conf/all/forwarding"
SUPPORTED = "ipv6/conf/default/force_forwarding"
PROXY = "ipv6/conf/all/proxy_ndp"
FUTURE_ACCEPT_RA = "ipv6/conf/default/accept_ra"  # of interfaces to come


def questions(interface: str) -> tuple[Question, ...]:
    """What tells whether IPv6 is forwarded between ``interface`` and the uplink."""
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
    """What has to be known beside ``questions`` to turn forwarding on; nothing when it is on already."""
    return () if is_on(seen, interface) else (GetIpv6Interfaces(), GetSysctl(HOST, FUTURE_ACCEPT_RA))


def turn_on(seen: Snapshot, interface: str) -> tuple[Op, ...]:
    """The operations that forward IPv6 between ``interface`` and the world.

    :param seen: answers to ``questions`` and ``more_questions``.
    """
    if seen.sysctl(HOST, ALL_FORWARDING) == "1":
        return ()
    if seen.sysctl(HOST, SUPPORTED) is None:
        return _careful(seen)
    names = [interface, *(uplink.ifname for uplink in seen.uplinks() if uplink.family == 6)]
    if not is_on(seen, interface):
        names += [each.name for each in seen.ipv6_interfaces() if not each.disabled]
    return tuple(SetSysctl(HOST, _force(name), "1") for name in dict.fromkeys(names))


def _careful(seen: Snapshot) -> tuple[Op, ...]:
    """Without ``force_forwarding``: listeners keep listening, then all interfaces forward."""
    future = ("default",) if seen.sysctl(HOST, FUTURE_ACCEPT_RA) == "1" else ()
    return (*_keep_listening(seen, *future), SetSysctl(HOST, ALL_FORWARDING, "1"))


def _keep_listening(seen: Snapshot, *more: str) -> tuple[Op, ...]:
    listening = [each.name for each in seen.ipv6_interfaces() if each.accept_ra == "1" and not each.disabled]
    return tuple(SetSysctl(HOST, f"ipv6/conf/{name}/accept_ra", "2") for name in (*listening, *more))


# As a feature of a network whose gateway is the node


def gateway_questions(conf: MainConf) -> tuple[Question, ...]:
    """What an ADD has to know."""
    return questions(conf.gateway_interface) if conf.is_gateway else ()


def gateway_more_questions(conf: MainConf, seen: Snapshot) -> tuple[Question, ...]:
    """What has to be known besides where the gateway has IPv6 addresses."""
    return more_questions(seen, conf.gateway_interface)


def node_steps(conf: MainConf, allocation: Allocation, seen: Snapshot) -> tuple[Op, ...]:
    """Forwarding, where the container has an IPv6 address."""
    return turn_on(seen, conf.gateway_interface) if 6 in allocation.families() else ()


# An interface that answers for containers


def answering_questions(uplink: str) -> tuple[Question, ...]:
    """What tells whether the node answers neighbour solicitations on ``uplink`` for others, and can be made to."""
    return GetSysctl(HOST, _own(uplink)), GetSysctl(HOST, SUPPORTED), GetSysctl(HOST, PROXY), GetIpv6Interfaces()


def answer(seen: Snapshot, uplink: str) -> tuple[Op, ...]:
    """The operations that have it answer, and forward what then comes in.

    It answers while its own ``forwarding`` is 1 (ndisc_recv_ns, net/ipv6/ndisc.c), in whose place ``force_forwarding``
    is not taken. Turning that on costs every listener its routes, as for all interfaces (addrconf_fixup_forwarding). A
    neighbour that checks on an address asks the address itself, and with ``proxy_ndp`` of the interface alone that
    packet would be forwarded, not answered (ip6_forward, net/ipv6/ip6_output.c): so the one of all interfaces is set.

    :param seen: answers to ``answering_questions``.
    """
    steps: list[Op] = []
    if seen.sysctl(HOST, _own(uplink)) != "1":
        steps += [*_keep_listening(seen), SetSysctl(HOST, _own(uplink), "1")]
    if seen.sysctl(HOST, SUPPORTED) is not None:
        steps.append(SetSysctl(HOST, _force(uplink), "1"))
    return (*steps, SetSysctl(HOST, PROXY, "1"))


def answers(seen: Snapshot, uplink: str) -> bool:
    """Whether ``answer`` has been done, as far as the answers go."""
    return seen.sysctl(HOST, PROXY) == "1" and seen.sysctl(HOST, _own(uplink)) == "1"


def _own(interface: str) -> str:
    return f"ipv6/conf/{interface}/forwarding"


def _force(interface: str) -> str:
    return f"ipv6/conf/{interface}/force_forwarding"
