"""A subnet that changed: what the node keeps for the containers of the old one, and when that goes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from cni_v6.attachments import old_gateways
from cni_v6.attachments.old_gateways import Memo
from cni_v6.kernel import ops
from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST
from cni_v6.leases.attachment import Attachment, GatewayAddress
from cni_v6.leases.memory import MemoryDataDirs
from cni_v6.plan import bridge_port
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner
from tests.unit import sample_values
from tests.unit.fake_context import BOOT, CONFIG, FakeContext, gc

OLD6, OLD4 = GatewayAddress("cni0", "2001:db8:1::1/64"), GatewayAddress("cni0", "10.1.0.1/24")
NEW6, NEW4 = GatewayAddress("cni0", "2001:db8:2::1/64"), GatewayAddress("cni0", "10.2.0.1/24")
MEMO = Memo((NEW6,), (OLD4, GatewayAddress("cni0.7", "2001:db8::/64", on_link=True)))


def config(*subnets: str, **keys: Any) -> dict[str, Any]:
    gateway = {"gateway": keys.pop("gateway")} if "gateway" in keys else {}
    ranges = [[{"subnet": subnet, **gateway}] for subnet in subnets]
    return CONFIG | {"ipam": {"type": "cni-v6-ipam", "ranges": ranges}} | keys


OLD = config("2001:db8:1::/64", "10.1.0.0/24")
NEW = config("2001:db8:2::/64", "10.2.0.0/24")


def on_bridge(fake: FakeContext, name: str = "cni0") -> set[str]:
    return set(fake.kernel.spaces[HOST].addresses.get(name, ()))


def routes(fake: FakeContext) -> set[str]:
    return {route.dst for route in fake.kernel.spaces[HOST].routes.get("cni0", ())}


def memo(fake: FakeContext) -> Memo:
    """Without what ``overlaps`` and ``recall`` keep there."""
    with fake.leases().transaction() as leases:
        return replace(old_gateways.decode(leases.memo(), BOOT), looked_at=(), recalled=False)


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
    fake = FakeContext()
    fake.add("c1", OLD)
    fake.add("c2", OLD)
    fake.add("c3", NEW)
    assert memo(fake) == Memo((NEW6, NEW4), (OLD6, OLD4))
    for left, gone in (("c2", False), ("c1", True)):
        assert on_bridge(fake) == prefixes(OLD6, OLD4, NEW6, NEW4)
        fake.call("DEL", left, NEW).ok()
        assert (on_bridge(fake) == prefixes(NEW6, NEW4)) is gone
    assert memo(fake) == Memo((NEW6, NEW4))


def delete_bridge(fake: FakeContext) -> None:
    """As ``ip link delete cni0``: the ports stay, in no bridge."""
    fake.kernel.remove([ops.DeleteLink(HOST, "cni0")])


@pytest.mark.parametrize("running", [False, True])
def test_the_subnet_is_changed_and_the_bridge_deleted(running: bool) -> None:
    fake = FakeContext()
    fake.add("c1", OLD)
    if not running:
        fake.call("DEL", "c1", OLD).ok()
    delete_bridge(fake)
    fake.add("c2", NEW)
    plugged_in_again = prefixes(OLD6, OLD4) if running else set()
    assert on_bridge(fake) == prefixes(NEW6, NEW4) | plugged_in_again
    fake.call("DEL", "c1", OLD).ok()
    assert (memo(fake), on_bridge(fake)) == (Memo((NEW6, NEW4)), prefixes(NEW6, NEW4))


def test_back_to_what_drained_on_a_bridge_that_was_deleted() -> None:
    fake = FakeContext()
    fake.add("c1", OLD)
    fake.add("c2", NEW)
    delete_bridge(fake)
    fake.add("c3", OLD)
    assert on_bridge(fake) == prefixes(OLD6, OLD4, NEW6, NEW4), "c2 is plugged in again"


def test_the_last_one_of_an_old_subnet_goes_after_the_bridge() -> None:
    fake = FakeContext()
    fake.add("c1", OLD)
    fake.add("c2", NEW)
    delete_bridge(fake)
    fake.call("DEL", "c1", OLD).ok()
    assert memo(fake) == Memo((NEW6, NEW4))


def test_an_ordinary_network_writes_its_memo_once() -> None:
    fake = FakeContext()
    fake.add("c1")
    with fake.leases().transaction() as leases:
        first = leases.memo()
    fake.add("c2")
    fake.call("DEL", "c1").ok()
    with fake.leases().transaction() as leases:
        assert leases.memo() is first


def test_the_next_add_takes_away_what_nobody_counts_on() -> None:
    fake = FakeContext()
    fake.add("c1", OLD)
    fake.call("DEL", "c1", OLD).ok()
    fake.add("c2", NEW)
    assert on_bridge(fake) == prefixes(NEW6, NEW4)
    assert memo(fake) == Memo((NEW6, NEW4))


def test_back_again() -> None:
    fake = FakeContext()
    fake.add("c1", OLD)
    fake.add("c2", NEW)
    fake.add("c3", OLD)
    assert memo(fake) == Memo((OLD6, OLD4), (NEW6, NEW4))
    fake.call("DEL", "c1").ok()
    assert on_bridge(fake) == prefixes(OLD6, OLD4, NEW6, NEW4)
    fake.call("DEL", "c2").ok()
    assert on_bridge(fake) == prefixes(OLD6, OLD4)


def test_gc() -> None:
    fake = FakeContext()
    fake.add("c1", OLD)
    fake.add("c2", NEW)
    fake.now += 1
    fake.call("GC", config=gc("c2", config=NEW)).ok()
    assert on_bridge(fake) == prefixes(NEW6, NEW4)


def test_a_container_of_an_earlier_boot_counts_on_nothing() -> None:
    fake = FakeContext()
    fake.add("c1", OLD)
    [record] = fake.attachments()
    with fake.leases().transaction() as leases:
        leases.update(replace(record, boot="earlier"))
    fake.add("c2", NEW)
    assert on_bridge(fake) == prefixes(NEW6, NEW4)


def test_a_container_of_the_reference_plugin_counts_on_the_gateways_of_its_addresses() -> None:
    fake = FakeContext()
    fake.add("c1", OLD)
    with fake.leases().transaction() as leases:
        leases.put(Attachment(Owner("pods", "theirs", "eth0"), ("10.1.0.9",)))
    fake.call("DEL", "c1", OLD).ok()
    fake.add("c2", NEW)
    assert on_bridge(fake) == prefixes(OLD4, NEW6, NEW4)
    fake.container("theirs")
    fake.call("DEL", "theirs", NEW).ok()
    assert on_bridge(fake) == prefixes(NEW6, NEW4)


def test_what_somebody_else_put_there_stays() -> None:
    fake = FakeContext()
    fake.add("c1", OLD)
    fake.kernel.spaces[HOST].addresses["cni0"] += ["10.9.0.1/24", "fd00::1/64"]
    fake.add("c2", NEW)
    fake.call("DEL", "c1", OLD).ok()
    assert on_bridge(fake) == prefixes(NEW6, NEW4) | {"10.9.0.1/24", "fd00::1/64"}


def test_a_gateway_that_another_network_has_too_stays() -> None:
    fake = FakeContext()
    fake.add("c1", config("10.1.0.0/24"))
    other = config("10.1.0.0/24", name="other")
    other["ipam"]["ranges"][0][0]["rangeStart"] = "10.1.0.100"
    fake.add("c2", other)
    fake.add("c3", config("10.2.0.0/24"))
    fake.call("DEL", "c1").ok()
    assert on_bridge(fake) == prefixes(OLD4, NEW4)
    fake.add("c4", config("10.3.0.0/24", name="other"))
    fake.call("DEL", "c2", other).ok()
    assert on_bridge(fake) == {"10.2.0.1/24", "10.3.0.1/24"}


def test_a_dry_run_has_no_other_networks() -> None:
    assert list(MemoryDataDirs().memos()) == []


def test_nothing_is_kept_in_mind_of_an_administrators_bridge() -> None:
    fake = FakeContext()
    fake.kernel.add_link(HOST, Link("cni0", "02:aa:aa:aa:aa:aa", 1500, kind="bridge", up=True))
    fake.add("c1", config("2001:db8:1::/64"))
    fake.add("c2", config("2001:db8:2::/64"))
    fake.call("DEL", "c1").ok()
    assert on_bridge(fake) == prefixes(OLD6, NEW6)
    assert memo(fake) == Memo()


def test_the_route_of_a_link_local_gateway() -> None:
    fake = FakeContext()
    fake.add("c1", config("2001:db8:1::/64", gateway="link-local"))
    fake.add("c2", config("2001:db8:2::/64", gateway="link-local"))
    assert routes(fake) >= {"2001:db8:1::/64", "2001:db8:2::/64"}
    fake.call("DEL", "c1").ok()
    assert "2001:db8:1::/64" not in routes(fake) and "2001:db8:2::/64" in routes(fake)
    assert on_bridge(fake) == {"fe80::1/64"}


def test_in_a_vlan() -> None:
    fake = FakeContext()
    fake.add("c1", OLD | {"vlan": 7})
    fake.add("c2", NEW | {"vlan": 7})
    assert on_bridge(fake, "cni0.7") == prefixes(OLD6, OLD4, NEW6, NEW4)
    fake.call("DEL", "c1", NEW | {"vlan": 7}).ok()
    assert on_bridge(fake, "cni0.7") == prefixes(NEW6, NEW4)


@pytest.mark.parametrize(("vlan", "interface"), [(0, "cni0"), (7, "cni0.7")])
def test_whose_the_interface_is(vlan: int, interface: str) -> None:
    conf = sample_values.conf(is_gateway=True, vlan=vlan)
    own = names.container_mac(bridge_port.gateway_owner(conf, sample_values.NODE)) if vlan else sample_values.BRIDGE_MAC
    for mac, ours in ((None, True), (own, True), ("02:aa:aa:aa:aa:aa", False)):
        fake = sample_values.kernel()
        if mac:
            fake.add_link(HOST, Link(interface, mac, 1500, kind="veth" if vlan else "bridge"))
        assert bridge_port.is_ours(conf, sample_values.NODE, sample_values.look(fake, conf)) is ours
