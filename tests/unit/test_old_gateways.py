"""A subnet that changed: what the node keeps for the containers of the old one, and when that goes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from cni_v6.attachments import old_gateways
from cni_v6.attachments.old_gateways import Memo
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import Link
from cni_v6.leases.attachment import Attachment, GatewayAddress
from cni_v6.leases.memory import MemoryDataDirs
from cni_v6.plan import bridge_port
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner
from tests.unit import parts
from tests.unit.harness import BOOT, CONFIG, World, gc

OLD6, OLD4 = GatewayAddress("cni0", "2001:db8:1::1/64"), GatewayAddress("cni0", "10.1.0.1/24")
NEW6, NEW4 = GatewayAddress("cni0", "2001:db8:2::1/64"), GatewayAddress("cni0", "10.2.0.1/24")
MEMO = Memo((NEW6,), (OLD4, GatewayAddress("cni0.7", "2001:db8::/64", on_link=True)))


def config(*subnets: str, **keys: Any) -> dict[str, Any]:
    gateway = {"gateway": keys.pop("gateway")} if "gateway" in keys else {}
    ranges = [[{"subnet": subnet, **gateway}] for subnet in subnets]
    return CONFIG | {"ipam": {"type": "cni-v6-ipam", "ranges": ranges}} | keys


OLD = config("2001:db8:1::/64", "10.1.0.0/24")
NEW = config("2001:db8:2::/64", "10.2.0.0/24")


def on_bridge(world: World, name: str = "cni0") -> set[str]:
    return set(world.kernel.spaces[HOST].addresses.get(name, ()))


def routes(world: World) -> set[str]:
    return {route.dst for route in world.kernel.spaces[HOST].routes.get("cni0", ())}


def memo(world: World) -> Memo:
    with world.leases().transaction() as leases:
        return old_gateways.decode(leases.memo(), BOOT)


def prefixes(*anchors: GatewayAddress) -> set[str]:
    return {anchor.prefix for anchor in anchors}


def test_a_memo_comes_back() -> None:
    assert old_gateways.decode(old_gateways.encode(MEMO, BOOT), BOOT) == MEMO


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"null", b'{"boot": "b007"}', old_gateways.encode(MEMO, "another"),
    old_gateways.encode(MEMO, BOOT).replace(b"2001:db8:2::1/64", b"2001:db8:2::1"),
    old_gateways.encode(MEMO, BOOT).replace(b'"cni0"', b'"../cni0"'),
    old_gateways.encode(MEMO, BOOT).replace(b"on-link", b"somehow"),
    old_gateways.encode(MEMO, BOOT).replace(b"2001:db8::/64", b"2001:db8::1/64"),
    json.dumps({"boot": BOOT, "live": [["cni0"]], "draining": []}).encode(),
    json.dumps({"boot": BOOT, "live": 1, "draining": []}).encode(),
])
def test_a_memo_of_nothing_of_another_boot_and_a_damaged_one(content: bytes) -> None:
    assert old_gateways.decode(content, BOOT) == Memo()


def test_the_old_gateways_stay_while_a_container_counts_on_them() -> None:
    world = World()
    world.add("c1", OLD)
    world.add("c2", OLD)
    world.add("c3", NEW)
    assert memo(world) == Memo((NEW6, NEW4), (OLD6, OLD4))
    for left, gone in (("c2", False), ("c1", True)):
        assert on_bridge(world) == prefixes(OLD6, OLD4, NEW6, NEW4)
        world.call("DEL", left, NEW).ok()
        assert (on_bridge(world) == prefixes(NEW6, NEW4)) is gone
    assert memo(world) == Memo((NEW6, NEW4))


def delete_bridge(world: World) -> None:
    """As ``ip link delete cni0``: the ports stay, in no bridge."""
    world.kernel.remove([ops.DeleteLink(HOST, "cni0")])


@pytest.mark.parametrize("running", [False, True])
def test_the_subnet_is_changed_and_the_bridge_deleted(running: bool) -> None:
    world = World()
    world.add("c1", OLD)
    if not running:
        world.call("DEL", "c1", OLD).ok()
    delete_bridge(world)
    world.add("c2", NEW)
    assert on_bridge(world) == prefixes(NEW6, NEW4)
    world.call("DEL", "c1", OLD).ok()
    assert (memo(world), on_bridge(world)) == (Memo((NEW6, NEW4)), prefixes(NEW6, NEW4))


def test_back_to_what_drained_on_a_bridge_that_was_deleted() -> None:
    world = World()
    world.add("c1", OLD)
    world.add("c2", NEW)
    delete_bridge(world)
    world.add("c3", OLD)
    assert on_bridge(world) == prefixes(OLD6, OLD4)


def test_the_last_one_of_an_old_subnet_goes_after_the_bridge() -> None:
    world = World()
    world.add("c1", OLD)
    world.add("c2", NEW)
    delete_bridge(world)
    world.call("DEL", "c1", OLD).ok()
    assert memo(world) == Memo((NEW6, NEW4))


def test_an_ordinary_network_writes_its_memo_once() -> None:
    world = World()
    world.add("c1")
    with world.leases().transaction() as leases:
        first = leases.memo()
    world.add("c2")
    world.call("DEL", "c1").ok()
    with world.leases().transaction() as leases:
        assert leases.memo() is first


def test_the_next_add_takes_away_what_nobody_counts_on() -> None:
    world = World()
    world.add("c1", OLD)
    world.call("DEL", "c1", OLD).ok()
    world.add("c2", NEW)
    assert on_bridge(world) == prefixes(NEW6, NEW4)
    assert memo(world) == Memo((NEW6, NEW4))


def test_back_again() -> None:
    world = World()
    world.add("c1", OLD)
    world.add("c2", NEW)
    world.add("c3", OLD)
    assert memo(world) == Memo((OLD6, OLD4), (NEW6, NEW4))
    world.call("DEL", "c1").ok()
    assert on_bridge(world) == prefixes(OLD6, OLD4, NEW6, NEW4)
    world.call("DEL", "c2").ok()
    assert on_bridge(world) == prefixes(OLD6, OLD4)


def test_gc() -> None:
    world = World()
    world.add("c1", OLD)
    world.add("c2", NEW)
    world.now += 1
    world.call("GC", config=gc("c2", config=NEW)).ok()
    assert on_bridge(world) == prefixes(NEW6, NEW4)


def test_a_container_of_an_earlier_boot_counts_on_nothing() -> None:
    world = World()
    world.add("c1", OLD)
    [record] = world.attachments()
    with world.leases().transaction() as leases:
        leases.update(replace(record, boot="earlier"))
    world.add("c2", NEW)
    assert on_bridge(world) == prefixes(NEW6, NEW4)


def test_a_container_of_the_reference_plugin_counts_on_the_gateways_of_its_addresses() -> None:
    world = World()
    world.add("c1", OLD)
    with world.leases().transaction() as leases:
        leases.put(Attachment(Owner("pods", "theirs", "eth0"), ("10.1.0.9",)))
    world.call("DEL", "c1", OLD).ok()
    world.add("c2", NEW)
    assert on_bridge(world) == prefixes(OLD4, NEW6, NEW4)
    world.container("theirs")
    world.call("DEL", "theirs", NEW).ok()
    assert on_bridge(world) == prefixes(NEW6, NEW4)


def test_what_somebody_else_put_there_stays() -> None:
    world = World()
    world.add("c1", OLD)
    world.kernel.spaces[HOST].addresses["cni0"] += ["10.9.0.1/24", "fd00::1/64"]
    world.add("c2", NEW)
    world.call("DEL", "c1", OLD).ok()
    assert on_bridge(world) == prefixes(NEW6, NEW4) | {"10.9.0.1/24", "fd00::1/64"}


def test_a_gateway_that_another_network_has_too_stays() -> None:
    world = World()
    world.add("c1", config("10.1.0.0/24"))
    other = config("10.1.0.0/24", name="other")
    other["ipam"]["ranges"][0][0]["rangeStart"] = "10.1.0.100"
    world.add("c2", other)
    world.add("c3", config("10.2.0.0/24"))
    world.call("DEL", "c1").ok()
    assert on_bridge(world) == prefixes(OLD4, NEW4)
    world.add("c4", config("10.3.0.0/24", name="other"))
    world.call("DEL", "c2", other).ok()
    assert on_bridge(world) == {"10.2.0.1/24", "10.3.0.1/24"}


def test_a_dry_run_has_no_other_networks() -> None:
    assert list(MemoryDataDirs().memos()) == []


def test_nothing_is_kept_in_mind_of_an_administrators_bridge() -> None:
    world = World()
    world.kernel.add_link(HOST, Link("cni0", "02:aa:aa:aa:aa:aa", 1500, kind="bridge", up=True))
    world.add("c1", config("2001:db8:1::/64"))
    world.add("c2", config("2001:db8:2::/64"))
    world.call("DEL", "c1").ok()
    assert on_bridge(world) == prefixes(OLD6, NEW6)
    assert memo(world) == Memo()


def test_the_route_of_a_link_local_gateway() -> None:
    world = World()
    world.add("c1", config("2001:db8:1::/64", gateway="link-local"))
    world.add("c2", config("2001:db8:2::/64", gateway="link-local"))
    assert routes(world) >= {"2001:db8:1::/64", "2001:db8:2::/64"}
    world.call("DEL", "c1").ok()
    assert "2001:db8:1::/64" not in routes(world) and "2001:db8:2::/64" in routes(world)
    assert on_bridge(world) == {"fe80::1/64"}


def test_in_a_vlan() -> None:
    world = World()
    world.add("c1", OLD | {"vlan": 7})
    world.add("c2", NEW | {"vlan": 7})
    assert on_bridge(world, "cni0.7") == prefixes(OLD6, OLD4, NEW6, NEW4)
    world.call("DEL", "c1", NEW | {"vlan": 7}).ok()
    assert on_bridge(world, "cni0.7") == prefixes(NEW6, NEW4)


@pytest.mark.parametrize(("vlan", "interface"), [(0, "cni0"), (7, "cni0.7")])
def test_whose_the_interface_is(vlan: int, interface: str) -> None:
    conf = parts.conf(is_gateway=True, vlan=vlan)
    own = names.container_mac(bridge_port.gateway_owner(conf, parts.NODE)) if vlan else parts.BRIDGE_MAC
    for mac, ours in ((None, True), (own, True), ("02:aa:aa:aa:aa:aa", False)):
        fake = parts.kernel()
        if mac:
            fake.add_link(HOST, Link(interface, mac, 1500, kind="veth" if vlan else "bridge"))
        assert bridge_port.is_ours(conf, parts.NODE, parts.look(fake, conf)) is ours
