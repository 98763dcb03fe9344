"""Which MAC a container gets, and what its neighbours have to be told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cni_v6.allocation.policy import STABLE, AllocationPolicy
from cni_v6.config.bridge import BridgeConf
from cni_v6.config.main import ForeignIpam
from cni_v6.errors import ADDRESS_UNAVAILABLE, CHECK_FAILED
from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST
from cni_v6.plan import mac as plan_mac
from cni_v6.plan.bridge_port import NO_MAC
from cni_v6.protocol import names
from tests.unit.fake_context import CONFIG, Answer, FakeContext
from tests.unit.sample_values import BRIDGE_MAC, MAC, NODE, OWNER, conf, ipam_conf, kernel, look, range_set

IPV4, SMALL, LARGE = "10.1.0.2", "2001:db8:2::2", "2001:db8:1::2"
SETS = range_set("10.1.0.0/24"), range_set("2001:db8:1::/64"), range_set("2001:db8:2::/120")
OURS = conf(is_gateway=True, ipam=ipam_conf(*SETS))
FOREIGN = replace(OURS, ipam=ForeignIpam("host-local"))
ASKED = replace(OURS, ipam=ipam_conf(*SETS, requested=(LARGE,)))
STABLE_ONES = replace(OURS, ipam=replace(ipam_conf(*SETS), policy=AllocationPolicy(order=STABLE, secret=b"s")))
LAYER_2 = replace(OURS, is_gateway=False)
OF_IPV4 = names.address_mac("pods", NODE, IPV4)


@pytest.mark.parametrize(
    ("wanted", "addresses", "mac", "told"),
    [
        pytest.param(OURS, (LARGE, IPV4), OF_IPV4, set(), id="dual-stack"),
        pytest.param(OURS, (LARGE,), MAC, set(), id="ipv6 given once"),
        pytest.param(OURS, (SMALL,), MAC, {6}, id="ipv6 given again"),
        pytest.param(OURS, (SMALL, IPV4), OF_IPV4, {6}, id="ipv6 given again beside ipv4"),
        pytest.param(OURS, (IPV4, "10.1.0.3"), OF_IPV4, {4}, id="two of ipv4"),
        pytest.param(OURS, (), MAC, set(), id="none"),
        pytest.param(ASKED, (LARGE, IPV4), OF_IPV4, {6}, id="asked for"),
        pytest.param(STABLE_ONES, (LARGE, IPV4), OF_IPV4, {6}, id="stable"),
        pytest.param(FOREIGN, (LARGE, IPV4), OF_IPV4, {6}, id="another plugin's"),
        pytest.param(LAYER_2, (LARGE, IPV4), MAC, {4, 6}, id="no gateway"),
        pytest.param(replace(OURS, mac="02:00:00:00:00:07"), (LARGE, IPV4), "02:00:00:00:00:07", {4}, id="mac"),
    ],
)
def test_mac_and_what_is_announced(wanted: BridgeConf, addresses: tuple[str, ...], mac: str, told: set[int]) -> None:
    seen = look(kernel(), wanted)
    assert plan_mac.mac(wanted, OWNER, NODE, addresses, seen) == mac
    assert plan_mac.to_announce(wanted, NODE, addresses, seen) == told


@pytest.mark.parametrize(("bridge", "private"), [(BRIDGE_MAC, True), ("02:aa:aa:aa:aa:aa", False)])
def test_on_a_bridge_that_is_there_already(bridge: str, private: bool) -> None:
    """Whatever is behind one that we did not make knows MACs by their port, and other nodes may be there."""
    fake = kernel()
    fake.add_link(HOST, Link("cni0", bridge, 1500, kind="bridge", up=True))
    seen = look(fake, OURS)
    assert plan_mac.mac(OURS, OWNER, NODE, (LARGE, IPV4), seen) == (OF_IPV4 if private else MAC)
    assert plan_mac.to_announce(OURS, NODE, (LARGE, IPV4), seen) == (set() if private else {4, 6})


def test_who_has_an_address_next_has_its_mac_here_and_nowhere_else() -> None:
    seen = look(kernel(), OURS)
    second = replace(OWNER, container_id="c2")
    assert plan_mac.mac(OURS, second, NODE, (IPV4,), seen) == OF_IPV4
    others = {names.address_mac(*words) for words in (
        ("pods", NODE, IPV4), ("pods", "another", IPV4), ("others", NODE, IPV4), ("pods", NODE, "10.1.0.3"))}
    assert len(others) == 4


def asking(fake: FakeContext, name: str, mac: str, **keys: Any) -> Answer:
    """An ADD that asks for a MAC."""
    return fake.call("ADD", name, CONFIG | keys | {"args": {"cni": {"mac": mac}}}, CNI_NETNS=fake.container(name))


def test_a_requested_mac_is_nobody_elses_on_the_bridge() -> None:
    fake = FakeContext()
    taken = fake.add("c1")["interfaces"]
    bridge, port, inside = (interface["mac"] for interface in taken)
    for mac in (bridge, port, inside):
        assert f"MAC {mac} is taken" in asking(fake, "c2", mac).error(ADDRESS_UNAVAILABLE)
    assert "held by pods/c1/eth0" in asking(fake, "c2", inside).error(ADDRESS_UNAVAILABLE)
    assert asking(fake, "c2", "02:00:00:00:00:07").ok()["interfaces"][2]["mac"] == "02:00:00:00:00:07"


def test_nor_that_of_the_bridge_that_is_made_for_it() -> None:
    fake = FakeContext()
    mac = names.bridge_mac("cni0", fake.context().id)
    assert "held by bridge cni0" in asking(fake, "c1", mac).error(ADDRESS_UNAVAILABLE)


def test_nor_that_of_the_gateway_in_a_vlan() -> None:
    fake = FakeContext()
    mac = fake.add("c1", CONFIG | {"vlan": 5})["interfaces"][3]["mac"]
    for _ in range(2):
        assert f"MAC {mac} is taken" in asking(fake, "c2", mac, vlan=5).error(ADDRESS_UNAVAILABLE)


def test_a_bridge_of_others_without_a_mac_has_one_pinned() -> None:
    fake = FakeContext()
    fake.kernel.add_link(HOST, Link("cni0", NO_MAC, 1500, kind="bridge", up=True))
    result = fake.add("c1")
    mac = names.pinned_mac("cni0", fake.context().id)
    assert result["interfaces"][0]["mac"] == mac == fake.kernel.spaces[HOST].links["cni0"].mac
    assert fake.call("CHECK", "c1", CONFIG | {"prevResult": result}).ok() is None


def test_check_names_a_mac_that_a_chained_plugin_changed() -> None:
    fake = FakeContext()
    result = fake.add("c1")
    netns = "/run/netns/c1"
    links = fake.kernel.spaces[netns].links
    links["eth0"] = replace(links["eth0"], mac="02:00:00:00:00:99")
    result["interfaces"][2]["mac"] = "02:00:00:00:00:99"
    message = fake.call("CHECK", "c1", CONFIG | {"prevResult": result}).error(CHECK_FAILED)
    assert "mac is 02:00:00:00:00:99, and the guard lets only" in message
