"""A node to draw: networks of three kinds, with as many containers as a test wants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cni_v6.allocation.policy import AllocationPolicy
from cni_v6.allocation.traces import Traces
from cni_v6.attachments import load_config
from cni_v6.attachments.stale import Here
from cni_v6.config.ipam import IpamConf
from cni_v6.drawing.cluster import PARTLY, REACHED, REMOVED, UNKNOWN, UNREACHED, Block, Member
from cni_v6.drawing.node import NodeMap, node_map
from cni_v6.drawing.picture import Facts, Shown
from cni_v6.drawing.space import spaces
from cni_v6.firewall.policy import GUARD_FULL, PUBLISHED, Allowed, Policy, Port
from cni_v6.kernel.facts import Link, RouteEntry, Surroundings
from cni_v6.leases.attachment import Attachment, BridgePort, ChildLink, GatewayAddress, ProxyEntry, RoutedLink
from cni_v6.net.addresses import from_text, to_text
from cni_v6.planning import usage
from cni_v6.protocol.names import Owner
from tests.unit.config_tables import call
from tests.unit.fake_context import FakeContext

CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0", "name": "pods", "type": "cni-v6", "bridge": "cni0", "isDefaultGateway": True,
    "ipam": {
        "type": "cni-v6-ipam", "ranges": [[{"subnet": "2001:db8:de30:1::/64"}], [{"subnet": "10.88.0.0/16"}]],
        "reserve": {"default/db": ["2001:db8:de30:1::50", "10.88.0.200"]}, "exclude": ["2001:db8:de30:1::a0/123"],
    },
}
BOOT, HOME = "b007", (4, 17)
NOW = 1_800_000_000.0
HERE = Here(BOOT, HOME)


def moment(seconds: float) -> str:
    return f"2027-01-{15 - int((NOW - seconds) // 86400):02}"


def plus(address: str, number: int) -> str:
    family, value = from_text(address)
    return to_text(family, value + number)


def bridged(number: int, of: int = 1200, *, ports: bool = False) -> Attachment:
    """A container of network pods: dual-stack, IPv4 masqueraded, IPv6 proxied. ``of``: as many in three days."""
    owner = Owner("pods", f"{number * 0x9e3779b97f4a7c15 % 2**64:016x}" * 4, "eth0")
    six, four = plus("2001:db8:de30:1::2", number), plus("10.88.0.2", number)
    published = (Port("tcp", 8080 + number, 80), Port("udp", 5353, 53, "2001:db8::5")) if ports else ()
    policy = Policy("cni0", f"veth{number}", addresses=(six, four), guard=GUARD_FULL, ingress=PUBLISHED,
                    masquerade=(four,), ports=published)
    return Attachment(
        owner, (six, four), f"veth{number}", created=NOW - 86400 * 3 * (1 - number / of), boot=BOOT, policy=policy,
        home=HOME, proxied=(ProxyEntry("eth0", "cni0", six),), port=BridgePort("cni0"),
        anchors=(GatewayAddress("cni0", "2001:db8:de30:1::1/64"), GatewayAddress("cni0", "10.88.0.1/16")),
    )


def others() -> Iterator[Attachment]:
    """A routed container with a delegated prefix, one on the LAN, one of an earlier boot, a lease of host-local."""
    routed = Owner("edge", "router", "eth0")
    yield Attachment(routed, ("fd42:7::5",), "vethr", created=NOW - 900, boot=BOOT, home=HOME,
                     port=RoutedLink("02:00:00:00:00:01"), prefixes=("fd42:7:0:1::/80",),
                     policy=Policy("vethr", "vethr", addresses=("fd42:7::5",), snat=(("fd42:7::5", "2001:db8:e::5"),),
                                   inbound=(("2001:db8:e::5", "fd42:7::5"),), egress=(Allowed("2001:db8::/32"),)))
    yield Attachment(Owner("lan", "printer", "net1"), ("2001:db8:1::77",), created=NOW - 90, boot=BOOT,
                     home=HOME, port=ChildLink("/run/netns/p", "eth1"))
    yield replace(bridged(3000), boot="an earlier one")
    yield Attachment(Owner("old", "legacy", "eth0"), ("10.9.0.4",))


def links(records: list[Attachment]) -> list[Link]:
    found = [Link("eth0", "02::1", 1500, up=True, running=True), Link("eth1", "02::2", 9000, up=True, running=True),
             Link("cni0", "02::3", 1500, "bridge", up=True, running=True)]
    found += [Link(record.host, "02::4", 1500, "veth", up=number % 50 != 7, running=True, port_enabled=True,
                   master="cni0" if isinstance(record.port, BridgePort) else "")
              for number, record in enumerate(records) if record.host and record.boot == BOOT]
    return found


AROUND = Surroundings(
    (("eth0", "2001:db8::10/64"), ("eth0", "192.0.2.10/24"), ("eth0", "fe80::1:2ff:fe03:405/64"),
     ("eth1", "2001:db8:1::10/64"), ("cni0", "2001:db8:de30:1::1/64"), ("cni0", "10.88.0.1/16")),
    (("eth0", RouteEntry("::/0", "fe80::1")), ("eth0", RouteEntry("0.0.0.0/0", "192.0.2.1")),
     ("cni0", RouteEntry("10.88.0.0/16", None))),
)


def attached(count: int) -> list[Attachment]:
    return [*(bridged(number, count + 5, ports=number % 40 == 0) for number in range(count)), *others()]


def node(count: int) -> NodeMap:
    records = attached(count)
    return node_map("rack1", records, links(records), AROUND, HERE, True)


def shown(records: list[Attachment]) -> list[Shown]:
    """The address spaces of network pods: a /64 in sequence, and an IPv4 /16 with reuse."""
    own = [record for record in records if record.owner.network == "pods"]
    last = from_text(plus("2001:db8:de30:1::2", len(own) + 40))[1]
    six = Traces((), ((from_text("2001:db8:de30:1::2")[1], last),))
    waiting = [from_text(plus("10.88.0.2", len(own) + number))[1] for number in range(30)]
    four = Traces(tuple((value, NOW - 60) for value in waiting))
    conf = load_config.bridge(call(CONFIG), FakeContext().context()).ipam
    assert isinstance(conf, IpamConf)
    held = [(text, record.created) for record in own for text in record.addresses]
    counts = [last - from_text("2001:db8:de30:1::1")[1], 0]
    usages = [usage.usage(addresses, AllocationPolicy(), count, held, NOW, None)
              for addresses, count in zip(conf.sets, counts)]
    growths = [usage.growth(addresses, seen, held, NOW) for addresses, seen in zip(conf.sets, usages)]
    return [Shown(space, usages[space.number], growths[space.number]) for space in spaces(conf, own, (six, four))]


def members(count: int) -> list[Member]:
    """The nodes of a cluster: of thirty one does not answer, one does in part, one is not measured, one was removed."""
    states = {7: UNREACHED, 11: PARTLY, 17: UNKNOWN, 23: REMOVED}
    found = []
    for number in range(count):
        state = states.get(number % 30, REACHED)
        blocks = (Block(f"fd42:8e1f:6a00:{number:x}::/64", None if state == UNKNOWN else 12 * number, 2**64 - 2),
                  Block(f"10.{244 + number // 1024}.{number // 4 % 256}.{number % 4 * 64}/26",
                        None if state == UNKNOWN else number % 62, 61))
        said = {REACHED: ("IPv6 since 2027-01-14", "IPv4 since 2027-01-14"), PARTLY: ("IPv6 to 2 of 5",),
                UNREACHED: ("IPv6 not since 2027-01-15", "IPv4 not since 2027-01-15")}
        found.append(Member(f"worker-{number:03}", state, "vxlan", (f"2001:db8:11::{number + 1:x}",
                                                                    f"172.30.{number // 250}.{number % 250 + 1}"),
                            () if state == REMOVED else blocks, said.get(state, ())))
    return found


def facts(count: int) -> Facts:
    return Facts(node(count), shown(attached(count)), NOW, ("old",))
