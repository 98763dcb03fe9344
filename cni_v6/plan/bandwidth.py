"""Plans ``bandwidth``: a token bucket for each direction of a container, both on the node.

What a container receives waits in the queue of its host interface. What it sends arrives there and would not wait, so
it is sent through a device made for that, an ifb, whose queue it has to pass before it goes on. Both are out of the
container's reach: a queue on its own interface could be removed by a container that has CAP_NET_ADMIN.

Pure. Imported only for containers that are shaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cni_v6.config.main import Bandwidth, MainConf
from cni_v6.errors import NODE_CONFLICT, CniError
from cni_v6.kernel import ops
from cni_v6.kernel.facts import TokenBucket
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetLink, GetShaping, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.plan import bridge_port, mtu as plan_mtu
from cni_v6.plan.site import Allocation, Site
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner

SECOND, TICK = 10**9, 64  # nanoseconds; those of a unit of ``TokenBucket.buffer``
MOST = 2**32 - 1  # the fields of struct tc_tbf_qopt, and the nanoseconds that the kernel keeps of a bucket (tbf_change)
HEADER = 18  # of Ethernet with a VLAN tag: the kernel counts it too
# What waits at most, in nanoseconds at the rate and in bytes, as long as the reference plugin's. Of a large burst no
# more than two of the largest packets count, which TCP hands over as one: a queue as long as the burst would delay.
LATENCY, LARGEST = 25 * 10**6, 128 * 1024


def bucket(bits: tuple[int, int]) -> TokenBucket | None:
    """The token bucket of a rate in bits a second with a burst in bits; None for a rate that limits nothing."""
    rate, burst = bits[0] // 8, bits[1] // 8
    if not bits[0] or rate > MOST:
        return None
    rate = max(rate, 1)
    buffer = min(-(-burst * SECOND // (rate * TICK)), MOST // TICK)
    limit = rate * LATENCY // SECOND + min(_holds(rate, buffer), LARGEST)
    return TokenBucket(rate, buffer, min(limit, MOST))


def _holds(rate: int, buffer: int) -> int:
    """The bytes that a bucket holds: no larger packet ever passes it."""
    return rate * buffer * TICK // SECOND


def check(conf: MainConf, seen: Snapshot) -> None:
    """Refuse a burst that is smaller than a packet, which the kernel would drop.

    :raises CniError: NODE_CONFLICT.
    """
    assert conf.bandwidth
    bridge = seen.link(HOST, conf.segment) if conf.segment else None
    wanted = plan_mtu.mtu(conf, frozenset(), seen) or (bridge.mtu if bridge else plan_mtu.DEFAULT_MTU)
    for direction, bits in _directions(conf.bandwidth).items():
        found = bucket(bits)
        if found and _holds(found.rate, found.buffer) < wanted + HEADER:
            words = f"bandwidth: {direction} of {bits[0]} bits a second with a burst of {bits[1]} lets no packet pass"
            remedy = f"a burst holds at least a packet of {wanted + HEADER} bytes, and at most what 4.29 seconds send"
            raise CniError(NODE_CONFLICT, words, remedy)


def _directions(bandwidth: Bandwidth) -> dict[str, tuple[int, int]]:
    return {"ingress": bandwidth.ingress, "egress": bandwidth.egress}


def container_steps(site: Site, conf: MainConf, _: Allocation, seen: Snapshot) -> Iterator[Op]:
    """Shape the container before it has a carrier."""
    assert conf.bandwidth
    yield from steps(site.owner, site.host, conf.bandwidth, seen)


def steps(owner: Owner, host: str, bandwidth: Bandwidth, seen: Snapshot) -> Iterator[Op]:
    """The operations that shape a container.

    :param host: the present name of its host interface.
    :param seen: answers to ``families.host_questions``.
    """
    received, sent, ifb = bucket(bandwidth.ingress), bucket(bandwidth.egress), names.ifb(owner)
    if received:
        yield ops.SetBucket(host, received)
    if sent:
        yield ops.CreateIfb(ifb)
        yield ops.SetAlias(HOST, ifb, names.ifb_alias(owner))
        yield from bridge_port.disable_ipv6(ifb, seen)
        yield ops.SetBucket(ifb, sent)
        yield ops.HookIngress(host)
        yield ops.Redirect(host, ifb)


def removal(record: Attachment, *_: frozenset[str]) -> tuple[Op, ...]:
    """Remove what does not go with the host interface."""
    return (ops.DeleteLink(HOST, names.ifb(record.owner)),)


# CHECK


def check_questions(_: MainConf, record: Attachment) -> tuple[Question, ...]:
    """The questions that CHECK asks."""
    ifb = names.ifb(record.owner)
    return GetLink(HOST, ifb), GetShaping(ifb), GetShaping(record.host)


def differences(_: MainConf, record: Attachment, seen: Snapshot) -> Iterable[str]:
    """The differences between the record and the kernel, one phrase for each."""
    if record.bandwidth is None:
        return
    received, sent = bucket(record.bandwidth.ingress), bucket(record.bandwidth.egress)
    ifb = names.ifb(record.owner)
    if received and seen.shaping(record.host).bucket != received:
        yield f"the container receives as fast as it can: {record.host} has no queue of {received.rate} bytes a second"
    if sent:
        link = seen.link(HOST, ifb)
        if link is None or not link.up:
            yield f"the container's packets are lost: {ifb} is {'down' if link else 'missing'}"
        elif seen.shaping(record.host).redirected != ifb:
            yield f"the container sends as fast as it can: what {record.host} receives does not pass {ifb}"
        elif seen.shaping(ifb).bucket != sent:
            yield f"the container sends as fast as it can: {ifb} has no queue of {sent.rate} bytes a second"


def mending(conf: MainConf, record: Attachment, seen: Snapshot) -> Iterable[Op]:
    """The operations that shape the container again."""
    if record.bandwidth and list(differences(conf, record, seen)):
        ifb = names.ifb(record.owner)
        yield from steps(record.owner, record.host, record.bandwidth, seen)
        link = seen.link(HOST, ifb)
        if link and not link.up:
            yield ops.SetLink(HOST, ifb, up=True)
