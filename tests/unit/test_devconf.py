"""Settings of an interface by rtnetlink, as pyroute2 reads the requests."""

from __future__ import annotations

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from cni_v6.kernel.netlink.devconf import interface_of, setting
from cni_v6.kernel.netlink.message import HEADER


@pytest.mark.parametrize(
    ("key", "family", "words"),
    [
        ("ipv4/conf/eth0/arp_notify", "AF_INET", {"arp_notify": 1}),
        ("ipv4/conf/eth0/accept_local", "AF_INET", {"accept_local": 1}),
        ("ipv4/conf/eth0.5/route_localnet", "AF_INET", {"route_localnet": 1}),
        ("ipv6/conf/eth0/addr_gen_mode", "AF_INET6", {"IFLA_INET6_ADDR_GEN_MODE": 1}),
    ],
)
def test_what_can_be_set(key: str, family: str, words: dict[str, int]) -> None:
    message = setting(key, "1", 7)
    assert message and interface_of(key).startswith("eth0")
    read = ifinfmsg(HEADER.pack(HEADER.size + len(message.body), message.type, 0, 1, 0) + message.body)
    read.decode()
    assert read["index"] == 7
    inside = read.get_attr("IFLA_AF_SPEC").get_attr(family)
    if family == "AF_INET6":
        assert dict(inside["attrs"]) == words
    else:
        raw = message.body[-8:]
        numbers = {"arp_notify": 22, "accept_local": 23, "route_localnet": 26}
        assert raw[:4] == bytes((8, 0, numbers[next(iter(words))], 0))
        assert int.from_bytes(raw[4:], "little") == 1


@pytest.mark.parametrize("key", ["ipv6/conf/eth0/accept_ra", "ipv4/ip_forward", "ipv4/conf/eth0/forwarding"])
def test_what_cannot(key: str) -> None:
    assert setting(key, "1", 7) is None


@pytest.mark.parametrize("key", ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/default/accept_ra"])
def test_what_is_of_no_interface(key: str) -> None:
    assert interface_of(key) == ""
