"""Our rtnetlink messages against pyroute2's: an independent encoding of the same kernel headers is the referee."""

from __future__ import annotations

import socket
import struct
from dataclasses import replace
from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cni_v6.kernel import ops
from cni_v6.kernel.facts import Link, RouteEntry
from cni_v6.kernel.netlink import answers, lookups, requests
from cni_v6.kernel.netlink.message import HEADER, Message, attribute, by_kind, each, nest, picked

MAC, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"


def nested(attributes: Any) -> Any:
    """pyroute2's attributes as plain values: a list of (name, value), nests and values alike."""
    if isinstance(attributes, dict) and "attrs" in attributes:
        named = [(name, nested(value)) for name, value, *_ in attributes["attrs"]]
        fields = {key: value for key, value in attributes.items() if key in ("index", "change") and value}
        return (fields, named) if fields else named
    return attributes


def heard(message: Message, kind: type[Any]) -> tuple[dict[str, Any], Any]:
    """Header fields and attributes of one of our requests, as pyroute2 reads it."""
    header = HEADER.pack(HEADER.size + len(message.body), message.type, message.flags, 1, 0)
    read = kind(header + message.body)
    read.decode()
    fields = {key: value for key, value in read.items() if key not in ("attrs", "header", "event") and value}
    fields = {key: value for key, value in fields.items() if key != "state" or isinstance(value, int)}
    return fields, [(name, nested(value)) for name, value, *_ in read["attrs"]]


VETH = ops.CreateVeth("veth0", OTHER, "br0", "/run/netns/a", "eth0", MAC, 1400)
LINKS: list[Any] = [
    pytest.param(
        requests.create_bridge(ops.EnsureBridge("br0", MAC, 9000, False, True)),
        {},
        [
            ("IFLA_IFNAME", "br0"),
            ("IFLA_ADDRESS", MAC),
            ("IFLA_MTU", 9000),
            (
                "IFLA_LINKINFO",
                [
                    ("IFLA_INFO_KIND", "bridge"),
                    (
                        "IFLA_INFO_DATA",
                        [
                            ("IFLA_BR_MCAST_SNOOPING", 0), ("IFLA_BR_VLAN_FILTERING", 1),
                            ("IFLA_BR_GROUP_FWD_MASK", 1 << 14),
                        ],
                    ),
                ],
            ),
        ],
        id="bridge",
    ),
    pytest.param(
        requests.create_veth(VETH, 7, 9),
        {"flags": 1, "change": 1},
        [
            ("IFLA_IFNAME", "veth0"),
            ("IFLA_ADDRESS", OTHER),
            ("IFLA_MASTER", 7),
            ("IFLA_MTU", 1400),
            (
                "IFLA_LINKINFO",
                [
                    ("IFLA_INFO_KIND", "veth"),
                    (
                        "IFLA_INFO_DATA",
                        [
                            (
                                "VETH_INFO_PEER",
                                [
                                    ("IFLA_IFNAME", "eth0"),
                                    ("IFLA_ADDRESS", MAC),
                                    ("IFLA_MTU", 1400),
                                    ("IFLA_NET_NS_FD", 9),
                                ],
                            )
                        ],
                    ),
                ],
            ),
        ],
        id="veth",
    ),
    pytest.param(
        requests.set_link(ops.SetLink("", "br0", up=True, promisc=True, group=7)),
        {"flags": 0x101, "change": 0x101},
        [("IFLA_IFNAME", "br0"), ("IFLA_GROUP", 7)],
        id="up and promiscuous, in a group",
    ),
    pytest.param(
        requests.set_link(ops.SetLink("", "br0", up=False)), {"change": 1}, [("IFLA_IFNAME", "br0")], id="down"
    ),
    pytest.param(
        requests.set_mac("eth0", MAC), {}, [("IFLA_IFNAME", "eth0"), ("IFLA_ADDRESS", MAC)], id="mac"
    ),
    pytest.param(
        requests.set_alias(ops.SetAlias("", "veth0", "cni-v6 n/c/eth0")),
        {},
        [("IFLA_IFNAME", "veth0"), ("IFLA_IFALIAS", "cni-v6 n/c/eth0")],
        id="alias",
    ),
    pytest.param(
        requests.claim_mac(ops.ClaimMac("veth0", "br0", MAC)),
        {},
        [("IFLA_IFNAME", "veth0"), ("IFLA_PROP_LIST", [("IFLA_ALT_IFNAME", f"br0.{MAC.replace(':', '-')}")])],
        id="claim of a mac",
    ),
    pytest.param(
        requests.get_claimant(ops.ClaimMac("veth0", "br0", MAC)),
        {},
        [("IFLA_ALT_IFNAME", f"br0.{MAC.replace(':', '-')}"), ("IFLA_EXT_MASK", 8)],
        id="whose a mac is",
    ),
    pytest.param(
        requests.set_port(ops.SetPort("veth0", hairpin=True, isolated=True)),
        {},
        [
            ("IFLA_IFNAME", "veth0"),
            (
                "IFLA_LINKINFO",
                [
                    ("IFLA_INFO_SLAVE_KIND", "bridge"),
                    ("IFLA_INFO_SLAVE_DATA", [("IFLA_BRPORT_MODE", 1), ("IFLA_BRPORT_ISOLATED", 1)]),
                ],
            ),
        ],
        id="port",
    ),
    pytest.param(
        requests.get_ports(5), {}, [("IFLA_MASTER", 5), ("IFLA_EXT_MASK", 8)], id="ports of a bridge"
    ),
    pytest.param(requests.deletion([4], 99)[0], {"index": 4}, [], id="delete one"),
]


@pytest.mark.parametrize(("message", "fields", "attributes"), LINKS)
def test_link_requests(message: Message, fields: dict[str, int], attributes: Any) -> None:
    assert heard(message, ifinfmsg) == (fields, attributes)


def test_several_links_are_deleted_as_a_group_of_their_own() -> None:
    heards = [heard(message, ifinfmsg) for message in requests.deletion([4, 5], 99)]
    assert heards == [({"index": index} if index else {}, [("IFLA_GROUP", 99)]) for index in (4, 5, 0)]


@pytest.mark.parametrize(
    ("address", "dad", "attributes"),
    [
        ("fd00::2/64", False, [("IFA_LOCAL", "fd00::2"), ("IFA_ADDRESS", "fd00::2"), ("IFA_FLAGS", 2)]),
        ("fd00::2/64", True, [("IFA_LOCAL", "fd00::2"), ("IFA_ADDRESS", "fd00::2")]),
        (
            "10.0.0.2/24",
            False,
            [("IFA_LOCAL", "10.0.0.2"), ("IFA_ADDRESS", "10.0.0.2"), ("IFA_BROADCAST", "10.0.0.255")],
        ),
        ("10.0.0.2/31", False, [("IFA_LOCAL", "10.0.0.2"), ("IFA_ADDRESS", "10.0.0.2")]),
    ],
)
def test_address_requests(address: str, dad: bool, attributes: Any) -> None:
    fields, found = heard(requests.add_address(ops.AddAddress("", "eth0", address, dad=dad), 3), ifaddrmsg)
    assert found == attributes
    assert fields == {"family": 10 if ":" in address else 2, "prefixlen": int(address.split("/")[1]), "index": 3}


def test_route_requests() -> None:
    op = ops.AddRoute("", "eth0", "2001:db8::/32", "fd00::1", mtu=1400, advmss=1340, priority=50, table=1000)
    fields, found = heard(requests.add_route(op, 3), rtmsg)
    assert fields == {"family": 10, "dst_len": 32, "proto": 4, "type": 1}
    assert found == [
        ("RTA_OIF", 3),
        ("RTA_TABLE", 1000),
        ("RTA_DST", "2001:db8::"),
        ("RTA_GATEWAY", "fd00::1"),
        ("RTA_PRIORITY", 50),
        ("RTA_METRICS", [("RTAX_MTU", 1400), ("RTAX_ADVMSS", 1340)]),
    ]
    _, found = heard(requests.add_route(ops.AddRoute("", "eth0", "10.0.0.2/32", source="10.0.0.9"), 3), rtmsg)
    assert found == [("RTA_OIF", 3), ("RTA_TABLE", 254), ("RTA_DST", "10.0.0.2"), ("RTA_PREFSRC", "10.0.0.9")]
    fields, found = heard(requests.add_route(ops.AddRoute("", "eth0", "0.0.0.0/0", "10.0.0.1"), 3), rtmsg)
    assert fields == {"family": 2, "table": 254, "proto": 4, "type": 1}
    assert found == [("RTA_OIF", 3), ("RTA_TABLE", 254), ("RTA_GATEWAY", "10.0.0.1")]
    fields, _ = heard(requests.add_route(ops.AddRoute("", "eth0", "10.9.0.0/16"), 3), rtmsg)
    assert fields["scope"] == 253


def test_the_next_hop_of_a_route_may_be_of_the_other_family() -> None:
    op = ops.AddRoute("", "eth0", "0.0.0.0/0", "fe80::1")
    fields, found = heard(requests.add_route(op, 3), rtmsg)
    assert (fields["family"], fields.get("scope", 0)) == (2, 0)
    assert dict(found)["RTA_VIA"] == {"family": 10, "addr": "fe80::1"} and "RTA_GATEWAY" not in dict(found)


@pytest.mark.parametrize(("dst", "header"), [
    ("2001:db8:0:0:1::/80", (10, 80, 0)),
    ("10.9.0.0/16", (2, 16, 253)),
])
@pytest.mark.parametrize(("kind", "sent"), [(ops.AddUnreachable, (24, 0x600)), (ops.RemoveUnreachable, (25, 0))])
def test_what_is_unreachable(
    kind: type[ops.AddUnreachable | ops.RemoveUnreachable], sent: tuple[int, int], dst: str,
    header: tuple[int, int, int],
) -> None:
    message = requests.unreachable(kind("", dst))
    fields, found = heard(message, rtmsg)
    assert (fields["family"], fields["dst_len"], fields.get("scope", 0)) == header
    assert (fields["type"], fields["table"], fields["proto"]) == (7, 254, 4)
    assert (message.type, message.flags) == sent
    assert found == [("RTA_DST", dst.partition("/")[0]), ("RTA_PRIORITY", 2**32 - 1)]


@pytest.mark.parametrize(("address", "family"), [("2001:db8::2", 10), ("192.0.2.2", 2)])
def test_a_neighbour_is_set_for_good(address: str, family: int) -> None:
    message = requests.set_neighbour(ops.SetNeighbour("", "eth0", address, MAC), 3)
    fields, found = heard(message, ndmsg)
    assert (fields["family"], fields["ifindex"], fields["state"], message.flags) == (family, 3, 0x80, 0x500)
    assert found == [("NDA_DST", address), ("NDA_LLADDR", MAC)]


@pytest.mark.parametrize(("address", "family"), [("2001:db8::2", 10), ("192.0.2.2", 2)])
@pytest.mark.parametrize("proxy", [False, True])
def test_one_neighbour_is_asked_for(address: str, family: int, proxy: bool) -> None:
    message = lookups.get_neighbour(address, 3, proxy=proxy)
    fields, found = heard(message, ndmsg)
    expected = {"family": family, "ifindex": 3, **({"flags": 8} if proxy else {})}
    assert (message.type, message.flags, fields, found) == (30, 0, expected, [("NDA_DST", address)])


@pytest.mark.parametrize(("state", "mac"), [(0x80, MAC), (0x02, "")])
def test_a_neighbour_counts_if_it_was_set_for_good(state: int, mac: str) -> None:
    body = requests.NDMSG.pack(10, 3, state, 0, 0) + attribute(2, bytes.fromhex(MAC.replace(":", "")))
    assert lookups.read_neighbour(bytes(HEADER.size) + body) == mac
    assert lookups.read_entry(bytes(HEADER.size) + body) == (bool(mac), "", MAC)
    node = attribute(1, bytes.fromhex("20010db8") + bytes(11) + b"\x02")
    assert lookups.read_entry(bytes(HEADER.size) + body + node) == (bool(mac), "2001:db8::2", MAC)


@pytest.mark.parametrize(("dst", "last", "flags"), [
    ("2001:db8:1::/56", "2001:db8:1:ff:ffff:ffff:ffff:ffff", 0x2000), ("2001:db8::7/128", "2001:db8::7", 0x2000),
    ("192.0.2.0/24", "192.0.2.255", 0x3000), ("192.0.2.7/32", "192.0.2.7", 0x3000),
])
def test_the_route_to_a_prefix_is_looked_up_by_its_last_address(dst: str, last: str, flags: int) -> None:
    message = lookups.get_exact_route(dst, 3)
    fields, found = heard(message, rtmsg)
    family, length = (10, 128) if ":" in dst else (2, 32)
    assert (message.type, message.flags, fields) == (26, 0, {"family": family, "dst_len": length, "flags": flags})
    assert found == [("RTA_DST", last), ("RTA_OIF", 3)]


def test_routes_of_a_table_are_asked_for() -> None:
    fields, found = heard(requests.get_routes(6, 0, 254), rtmsg)
    assert (fields, found) == ({"family": 10, "table": 254}, [])


def test_name_and_alias_of_an_interface_are_read_alone() -> None:
    body = requests.IFINFOMSG.pack(0, 0, 4, 0, 0) + attribute(3, b"veth0\0") + attribute(4, b"\0\0\0\0")
    assert answers.alias_of(bytes(HEADER.size) + body) == ("veth0", "", 0)
    named = bytes(HEADER.size) + body + attribute(20, b"cni-v6 n/c/eth0\0") + attribute(10, struct.pack("=I", 7))
    assert answers.alias_of(named) == ("veth0", "cni-v6 n/c/eth0", 7)


@pytest.mark.parametrize(("flags", "state", "running"), [(0x41, 6, True), (0x41, 0, False), (0x40, 6, False)])
def test_an_interface_runs_once_the_kernel_has_seen_its_carrier(flags: int, state: int, running: bool) -> None:
    body = requests.IFINFOMSG.pack(0, 0, 4, flags, 0) + attribute(16, bytes((state,)))
    assert answers.read_link(bytes(HEADER.size) + body)[0].running is running


@pytest.mark.parametrize(("flags", "state", "running"), [(0x10041, 0, True), (0x41, 0, False), (0x10041, 2, False)])
def test_a_bridge_whose_carrier_was_always_there_runs(flags: int, state: int, running: bool) -> None:
    kind = attribute(18, attribute(1, b"bridge\0"))
    body = requests.IFINFOMSG.pack(0, 0, 4, flags, 0) + attribute(16, bytes((state,))) + kind
    assert answers.read_link(bytes(HEADER.size) + body)[0].running is running


def test_a_pair_without_a_bridge_has_a_group() -> None:
    _, found = heard(requests.create_veth(replace(VETH, bridge="", group=7), 0, 9), ifinfmsg)
    assert dict(found)["IFLA_GROUP"] == 7 and "IFLA_MASTER" not in dict(found)


def test_a_route_is_removed_by_its_destination_alone() -> None:
    message = requests.remove_route(ops.RemoveRoute("", "br0", "2001:db8:0:0:1::/80"), 3)
    fields, found = heard(message, rtmsg)
    assert (message.type, message.flags) == (25, 0)
    assert fields == {"family": 10, "dst_len": 80, "table": 254, "proto": 4}
    assert found == [("RTA_DST", "2001:db8:0:0:1::"), ("RTA_OIF", 3)]
    fields, found = heard(requests.remove_route(ops.RemoveRoute("", "br0", "10.9.0.0/16"), 3), rtmsg)
    assert (fields["family"], fields["scope"]) == (2, 255), "of any scope"
    fields, found = heard(requests.remove_route(ops.RemoveRoute("", "br0", "::/0", 1 << 30), 3), rtmsg)
    assert fields.get("table", 0) == 0 and found[1:] == [("RTA_OIF", 3), ("RTA_TABLE", 1 << 30)]


def told(kind: type[Any], number: int, header: dict[str, int], attributes: list[Any]) -> bytes:
    """A message of the kernel's, as pyroute2 writes it."""
    message = kind()
    for key, value in header.items():
        message[key] = value
    message["attrs"] = attributes
    message["header"]["type"] = number
    message.encode()
    return bytes(message.data)


def test_a_bridge_port_is_read() -> None:
    port = {"attrs": [("IFLA_BRPORT_STATE", 3), ("IFLA_BRPORT_MODE", 1), ("IFLA_BRPORT_ISOLATED", 1)]}
    info = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", port)]}
    attributes = [("IFLA_IFNAME", "veth0"), ("IFLA_MTU", 1400), ("IFLA_ADDRESS", MAC), ("IFLA_MASTER", 7)]
    data = told(ifinfmsg, 16, {"index": 4, "flags": 0x101}, [*attributes, ("IFLA_LINKINFO", info)])
    link = Link(
        "veth0", MAC, 1400, "veth", up=True, promisc=True, hairpin=True, isolated=True, port_enabled=True
    )
    assert answers.read_link(data) == (link, 7)
    assert (answers.index_of(data), answers.peer_of(data), answers.name_of(data)) == (4, 0, "veth0")
    assert answers.family_of(data) == socket.AF_UNSPEC


def test_the_other_end_of_a_pair_is_read() -> None:
    assert answers.peer_of(told(ifinfmsg, 16, {"index": 4}, [("IFLA_IFNAME", "veth0"), ("IFLA_LINK", 9)])) == 9


def test_a_bridge_is_read() -> None:
    bridge = {"attrs": [("IFLA_BR_VLAN_FILTERING", 1), ("IFLA_BR_VLAN_DEFAULT_PVID", 20)]}
    bridge["attrs"] += [("IFLA_BR_NF_CALL_IPTABLES", 0), ("IFLA_BR_NF_CALL_IP6TABLES", 1)]
    info = {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", bridge)]}
    data = told(ifinfmsg, 16, {"index": 4}, [("IFLA_IFNAME", "br0"), ("IFLA_LINKINFO", info)])
    link = Link("br0", "", 0, "bridge", vlan_filtering=True, default_vlan=20, netfilter=frozenset((6,)))
    assert answers.read_link(data) == (link, 0)


def test_addresses_are_read() -> None:
    header = {"family": 10, "prefixlen": 64, "index": 3}
    data = told(ifaddrmsg, 20, header, [("IFA_ADDRESS", "fd00::2"), ("IFA_FLAGS", 0x40)])
    assert answers.read_address(data) == (3, "fd00::2/64")
    assert answers.read_address_state(data) == ("fd00::2/64", True, False)
    header = {"family": 2, "prefixlen": 24, "index": 3}
    data = told(ifaddrmsg, 20, header, [("IFA_ADDRESS", "10.0.0.9"), ("IFA_LOCAL", "10.0.0.2")])
    assert answers.read_address(data) == (3, "10.0.0.2/24")


def test_routes_are_read() -> None:
    metrics = {"attrs": [("RTAX_MTU", 1400), ("RTAX_ADVMSS", 1340)]}
    attributes = [("RTA_OIF", 3), ("RTA_TABLE", 1000), ("RTA_GATEWAY", "fd00::1")]
    attributes += [("RTA_PRIORITY", 9), ("RTA_METRICS", metrics)]
    data = told(rtmsg, 24, {"family": 10, "type": 1}, attributes)
    assert answers.read_route(data) == (3, RouteEntry("::/0", "fd00::1", 1400, 1340, 9, 1000, 0))
    assert answers.read_uplinks(data) == (3,)
    unreachable = told(rtmsg, 24, {"family": 10, "type": 7}, attributes)
    assert answers.read_route(unreachable) is None
    assert answers.read_uplinks(unreachable) == ()
    assert answers.read_route(told(rtmsg, 24, {"family": 2, "type": 1, "table": 255}, [("RTA_OIF", 3)])) is None


def test_every_hop_of_several_is_an_uplink() -> None:
    hops = [{"oif": 5, "attrs": [("RTA_GATEWAY", "fe80::1")]}, {"oif": 6, "attrs": [("RTA_GATEWAY", "fe80::2")]}]
    assert answers.read_uplinks(told(rtmsg, 24, {"family": 10, "type": 1}, [("RTA_MULTIPATH", hops)])) == (5, 6)
    both = told(rtmsg, 24, {"family": 10, "type": 1}, [("RTA_OIF", 5), ("RTA_MULTIPATH", hops)])
    assert [(index, route.gateway) for index, route in answers.read_routes(both)] == [(5, "fe80::1"), (6, "fe80::2")]
    own = told(rtmsg, 24, {"family": 10, "type": 1, "table": 255}, [("RTA_OIF", 5)])
    assert answers.read_routes(own) == (), "the kernel's own, of an address"


@pytest.mark.parametrize("data", [b"", b"\0\0", b"\3\0\1\0", b"\xff\xff\1\0abc", b"\4\0\1\0\0"])
def test_what_is_cut_short_ends_the_attributes(data: bytes) -> None:
    assert all(isinstance(payload, bytes) for _, payload in each(data))
    assert by_kind(data) == dict(each(data))
    some = range(0, 0x4000, 2)
    assert picked(data, some) == {kind: payload for kind, payload in each(data) if kind in some}


def link_with(*values: int) -> bytes:
    """An RTM_NEWLINK message with the IPv6 settings that a kernel knows: IFLA_AF_SPEC, AF_INET6, IFLA_INET6_CONF."""
    conf = attribute(2, struct.pack(f"={len(values)}i", *values))
    specific = nest(26, nest(10, attribute(1, bytes(4)), conf))
    return bytes(HEADER.size) + requests.IFINFOMSG.pack(0, 0, 4, 0, 0) + specific


@pytest.mark.parametrize(("known", "expected"), [
    (60, {"accept_ra": "3", "autoconf": "5", "disable_ipv6": "26", "accept_dad": "-1", "force_forwarding": "59"}),
    (59, {"accept_ra": "3", "autoconf": "5", "disable_ipv6": "26", "accept_dad": "-1", "force_forwarding": None}),
    (0, dict.fromkeys(answers.IPV6_SETTINGS)),
])
def test_settings_of_an_interface_that_the_kernel_knows(known: int, expected: dict[str, str | None]) -> None:
    found: dict[str, str | None] = dict.fromkeys(answers.IPV6_SETTINGS)
    told = link_with(*(-1 if number == 27 else number for number in range(known)))
    answers.read_link(told, found)
    assert found == expected == answers.settings_of(told, answers.IPV6_SETTINGS)


def test_an_interface_without_ipv6_has_no_settings() -> None:
    found: dict[str, str | None] = {"accept_ra": None}
    answers.read_link(bytes(HEADER.size) + requests.IFINFOMSG.pack(0, 0, 4, 0, 0), found)
    assert found == {"accept_ra": None}


@pytest.mark.parametrize(("state", "enabled"), [(0, False), (3, True)])
def test_the_state_of_a_port(state: int, enabled: bool) -> None:
    port = nest(18, nest(5, attribute(1, bytes((state,)))))
    data = bytes(HEADER.size) + requests.IFINFOMSG.pack(0, 0, 4, 0, 0) + attribute(10, struct.pack("=I", 7)) + port
    assert answers.port_state(data) == (7, enabled)
