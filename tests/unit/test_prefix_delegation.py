"""Prefixes that are containers': which one may be asked for, and what is done for it."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.allocation.policy import DEFAULT, NEVER, RANDOM, STABLE, AllocationPolicy
from cni_v6.allocation.ranges import RangeSet
from cni_v6.config import prefix_delegation
from cni_v6.config.prefix_delegation import PrefixRequest
from cni_v6.config.reader import Section
from cni_v6.ctl import plan as plan_command
from cni_v6.firewall.elements import elements
from cni_v6.firewall.policy import MASQUERADED
from cni_v6.firewall.sets import INET
from cni_v6.kernel import ops
from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import HasRoute
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment, GatewayAddress
from cni_v6.plan import features, prefix_routes
from cni_v6.plan.site import Allocation, RoutedPrefix
from cni_v6.protocol.result import Address, Result
from tests.unit import sample_values
from tests.unit.fake_context import CONFIG, FOREIGN, LAYER_2, FakeContext, gc

SUBNET = "2001:db8:1::/64"
P = "2001:db8:1:0:1::/80"
FIRST = RoutedPrefix(P, sample_values.IPV6)
NETNS, IFNAME = sample_values.NETNS, "eth0"


def network(length: int = 80, **keys: Any) -> dict[str, Any]:
    return {**CONFIG, "ipam": {**CONFIG["ipam"], "delegate": length, **keys.pop("ipam", {})}, **keys}


# Which prefix may be asked for


def section(path: str, length: int | None) -> Section:
    return Section(path, frozenset(), {"delegate": length})


def read(
    *sets: RangeSet, ipam: int | None = None, args: int | None = None, runtime: int | None = None,
    policy: AllocationPolicy = DEFAULT,
) -> PrefixRequest | None:
    sections = section("runtimeConfig", runtime), section("args.cni", args), section("ipam", ipam)
    return prefix_delegation.read(sections, sets, policy)


SIX, FOUR = sample_values.range_set(SUBNET), sample_values.range_set("10.1.0.0/16")
SMALL = sample_values.range_set("2001:db8:2::/112")


def test_nobody_asks() -> None:
    assert read(SIX, FOUR) is None


def test_whoever_is_nearest_to_the_container_is_heard() -> None:
    assert read(FOUR, SIX, ipam=80) == PrefixRequest(1, 80, "ipam.delegate", True)
    assert read(FOUR, SIX, ipam=80, args=96) == PrefixRequest(1, 96, "args.cni.delegate", True)
    assert read(SIX, args=96, runtime=112) == PrefixRequest(0, 112, "runtimeConfig.delegate", False)


def test_the_first_set_that_gives_nothing_twice() -> None:
    found = read(SMALL, SIX, ipam=80)
    assert found and found.index == 1
    found = read(SMALL, SIX, ipam=126, policy=AllocationPolicy(reuse=NEVER))
    assert found and found.index == 0


@pytest.mark.parametrize(("sets", "length", "policy", "says"), [
    ((FOUR,), 80, DEFAULT, "no range is IPv6"),
    ((SMALL,), 120, DEFAULT, "give their addresses again"),
    ((SIX,), 80, AllocationPolicy(RANDOM), 'ipam.allocation: "random" exclude'),
    ((SIX,), 80, AllocationPolicy(STABLE), 'ipam.allocation: "stable" exclude'),
    ((SIX,), 64, DEFAULT, "is no part of"),
    ((sample_values.range_set(SUBNET, "2001:db8:9::/96"),), 90, DEFAULT, "is no part of"),
    ((SIX,), 73, DEFAULT, "room for 511 prefixes"),
])
def test_what_cannot_be_given(sets: tuple[RangeSet, ...], length: int, policy: AllocationPolicy, says: str) -> None:
    with pytest.raises(errors.CniError, match=says) as caught:
        read(*sets, ipam=length, policy=policy)
    assert caught.value.code == errors.INVALID_CONFIG and f"ipam.delegate: {length}" in caught.value.msg


def test_room_is_counted_in_whole_prefixes() -> None:
    assert prefix_delegation.blocks(SIX, 74) == 1023  # the first has the network's own address
    part = replace(SIX.written[0], first=(1 << 48) + SIX.written[0].network, last=(1 << 50) + SIX.written[0].network)
    assert prefix_delegation.blocks(RangeSet((part,)), 80) == 3
    assert prefix_delegation.blocks(RangeSet((replace(part, first=part.first + 1),)), 80) == 2
    assert prefix_delegation.blocks(RangeSet((replace(part, last=part.first + 1),)), 80) == 0


@pytest.mark.parametrize(("config", "says"), [
    ({**network(), "isDefaultGateway": False}, "ipam.delegate: 80 needs isGateway"),
    (network(nptv6={"internal": SUBNET, "external": "2001:db8:9::/64"}), "and nptv6 exclude each other"),
    ({**FOREIGN, "args": {"cni": {"delegate": 80}}}, "args.cni.delegate: 80 has no effect"),
    ({**LAYER_2, "runtimeConfig": {"delegate": 80}}, "runtimeConfig.delegate: 80 has no effect"),
    (network(128), "ipam.delegate: 128 is not between 64 and 127"),
])
def test_what_is_refused(config: dict[str, Any], says: str) -> None:
    fake = FakeContext()
    fake.container("c1")
    before = fake.state()
    assert says in fake.call("ADD", "c1", config).error(errors.INVALID_CONFIG)
    assert fake.state() == before


def test_translation_of_another_range_is_nobodys_business() -> None:
    ranges = [[{"subnet": SUBNET}], [{"subnet": "fd00:1::/64"}]]
    nptv6 = {"internal": "fd00:1::/64", "external": "2001:db8:9::/64"}
    result = FakeContext().add("c1", network(nptv6=nptv6, ipam={"ranges": ranges}))
    assert result["ips"][-1] == {"address": P}


def test_of_a_prefix_that_the_node_follows() -> None:
    """The ranges are not known when the configuration is read first."""
    fake = FakeContext()
    fake.kernel.add_link(HOST, Link("up", "02:00:00:00:00:09", 1500, up=True))
    fake.kernel.spaces[HOST].addresses["up"] = ["2001:db8:5::1/56"]
    follows = {"ranges": [[{"from": "up", "subnetId": "1", "length": 64}]], "delegate": None}
    result = fake.add("c1", network(ipam=follows, args={"cni": {"delegate": 80}}))
    assert result["ips"][-1] == {"address": "2001:db8:5:1:1::/80"}


def test_another_main_plugin_could_not_route_it() -> None:
    fake = FakeContext()
    fake.container("c1")
    said = fake.call("ADD", "c1", {**network(), "type": "bridge"}, type="cni-v6-ipam")
    assert 'ipam.delegate: 80 needs "type": "cni-v6"' in said.error(errors.INVALID_CONFIG)
    assert fake.attachments() == []


# What is done


def steps(conf: Any, given: RoutedPrefix = FIRST) -> list[ops.Op]:
    return list(prefix_routes.container_steps(sample_values.SITE, conf, Allocation(delegated=(given,)), Snapshot({})))


def conf(everybody: bool = True, **keys: Any) -> Any:
    ipam = replace(sample_values.ipam_conf(SIX), delegation=PrefixRequest(0, 80, "ipam.delegate", everybody))
    return sample_values.conf(is_gateway=True, ipam=ipam, **keys)


UNREACHABLE = ops.AddUnreachable(NETNS, P)


def test_neighbours_prefixes_are_found_by_the_gateway() -> None:
    by_gateway = ops.AddRoute(NETNS, IFNAME, SUBNET, "2001:db8:1::1", priority=128)
    assert steps(conf()) == [UNREACHABLE, ops.AddRoute(NETNS, IFNAME, "2001:db8:1::1/128"), by_gateway]
    behind = steps(conf(), RoutedPrefix(P, sample_values.BEHIND_LINK_LOCAL))
    assert behind == [UNREACHABLE, replace(by_gateway, gateway="fe80::1")]


def test_containers_that_are_closed_to_each_other_stay_so() -> None:
    assert steps(conf(port_isolation=True)) == [UNREACHABLE]
    assert steps(conf(), RoutedPrefix(P, Address("2001:db8:1::2/64"))) == [UNREACHABLE]


def test_what_one_container_asks_for_changes_no_others_way() -> None:
    assert steps(conf(everybody=False)) == [UNREACHABLE]
    assert steps(sample_values.conf()) == [UNREACHABLE]


def test_the_node_has_a_route() -> None:
    assert list(prefix_routes.arrival_steps(conf(vlan=7), Allocation(delegated=(FIRST,)), Snapshot({}))) == [
        ops.AddRoute(HOST, "cni0.7", P, "2001:db8:1::2")
    ]


def test_the_record_alone_tells_what_to_take_away() -> None:
    record = Attachment(
        sample_values.OWNER, ("2001:db8:1::2",), prefixes=(P,),
        anchors=(GatewayAddress("cni0", "2001:db8:1::1/64"), GatewayAddress("cni0", "10.1.0.1/24")),
    )
    assert prefix_routes.removal(record) == (ops.RemoveRoute(HOST, "cni0", P),)
    assert prefix_routes.removal(replace(record, prefixes=())) == ()


def test_check_names_a_route_that_is_gone() -> None:
    record = Attachment(sample_values.OWNER, ("2001:db8:1::2",), prefixes=(P,))
    asked = list(features.check_questions(conf(), record))
    route = HasRoute(HOST, "cni0", P, by=("2001:db8:1::2",))
    assert asked == [route]
    assert features.differences(conf(), record, Snapshot({route: True})) == []
    gone = features.differences(conf(), record, Snapshot({route: False}))
    assert gone == [f"route {P} through cni0 is missing"]


def test_without_a_prefix_there_is_nothing_to_compare() -> None:
    for record in (None, Attachment(sample_values.OWNER, ("2001:db8:1::2",))):
        assert features.check_questions(conf(), record) == ()
        assert features.differences(conf(), record, Snapshot({})) == []


def test_a_result_without_prefixes() -> None:
    result = Result(ips=(Address("2001:db8:1::2/64", interface=2), Address(P), Address("2001:db8:9::/80")))
    assert prefix_routes.without(result, None) == result
    record = Attachment(sample_values.OWNER, (), prefixes=(P,))
    assert prefix_routes.without(result, record).ips == (result.ips[0], result.ips[2])


# All of it


def test_from_add_to_del() -> None:
    fake = FakeContext()
    config = network(masquerade={"ipv6": "on"}, egress=[{"to": "2001:db8:9::/48"}])
    before = fake.add("first", config)
    assert before["ips"][-1] == {"address": P}
    result = fake.add("c1", config)
    second = "2001:db8:1:0:2::/80"
    assert [ip["address"] for ip in result["ips"]] == ["2001:db8:1::3/64", "10.1.0.3/24", second]
    assert [route["dst"] for route in result["routes"]] == ["::/0", "0.0.0.0/0"]
    [record] = [each for each in fake.attachments() if each.owner.container_id == "c1"]
    assert record.prefixes == (second,) and record.policy and record.policy.prefixes == ((second, MASQUERADED),)
    own = [each for each in elements(record.owner, record.policy) if second in each.key]
    assert {each.set for each in own} == {
        "home_prefixes6", "container_prefixes6", "published_prefixes6", "limited_prefixes6", "allowed6",
        "masquerade_prefixes6", "source_prefixes6",
    }
    assert set(own) <= set(fake.kernel.firewall.elements())
    assert fake.kernel.spaces["/run/netns/c1"].unreachable == [second]
    [route] = [each for each in fake.kernel.spaces[HOST].routes["cni0"] if each.dst == second]
    assert route.gateway == "2001:db8:1::3"
    fake.call("CHECK", "c1", {**config, "prevResult": result}).ok()
    fake.kernel.spaces[HOST].routes["cni0"].remove(route)
    said = fake.call("CHECK", "c1", {**config, "prevResult": result}).error(errors.CHECK_FAILED)
    assert f"route {second} through cni0 is missing" in said
    fake.kernel.spaces[HOST].routes["cni0"].append(route)
    fake.call("DEL", "c1", CONFIG).ok()
    assert route not in fake.kernel.spaces[HOST].routes["cni0"]
    assert not any(second in each.key for each in fake.kernel.firewall.elements())
    assert fake.add("c1", config)["ips"][-1] == {"address": "2001:db8:1:0:3::/80"}


def test_an_old_result_has_no_room_for_it() -> None:
    result = FakeContext().add("c1", network(cniVersion="0.2.0"))
    assert result["ip6"]["ip"] == "2001:db8:1::2/64" and P not in json.dumps(result)


def test_gc() -> None:
    fake = FakeContext()
    fake.add("c1", network(ingress="open", guard=False))
    fake.now += 1
    said = fake.call("GC", config=gc(config=network()))
    said.ok()
    assert f"removed pods/c1/eth0 2001:db8:1::2 10.1.0.2 {P}" in said.stderr
    assert P not in [route.dst for route in fake.kernel.spaces[HOST].routes["cni0"]]


def test_a_failed_add_leaves_nothing() -> None:
    fake = FakeContext()
    fake.add("first", network())
    fake.container("c1")
    before = fake.state()

    def fail(operation: ops.Op) -> Exception | None:
        last = isinstance(operation, ops.AddRoute) and operation.netns == HOST and operation.gateway
        return errors.CniError(errors.KERNEL_REFUSED, "no", "") if last else None

    fake.kernel.fail = fail
    assert "no" in fake.call("ADD", "c1", network()).error(errors.KERNEL_REFUSED)
    fake.kernel.spaces["/run/netns/c1"].unreachable.clear()  # the container's own namespace, which goes
    assert fake.state() == before


def test_a_fixed_source_and_what_is_kept_from_it() -> None:
    fake = FakeContext()
    keep = ["2001:db8:7::/48", "10.0.0.0/8"]
    source = {"ipv6": "2001:db8:9::9"}
    fake.add("c1", network(masquerade={"ipv6": "on"}, snat=source, nonMasquerade=keep, ingress="isolated"))
    found = {each.set: each for each in fake.kernel.firewall.elements() if each.key[0] == P}
    assert found["snat_prefixes6"].data == ("2001:db8:9::9",)
    assert found["keep6"].key == (P, "2001:db8:7::/48") and "isolated_prefixes6" in found
    assert all(each.family == INET for each in found.values())


def test_without_a_guard_no_port_is_pinned() -> None:
    fake = FakeContext()
    fake.add("c1", network(guard=False))
    assert {each.set for each in fake.kernel.firewall.elements() if P in each.key} == {
        "home_prefixes6", "container_prefixes6", "published_prefixes6",
    }


def test_an_address_of_anothers_prefix_is_refused() -> None:
    fake = FakeContext()
    fake.add("c1", network())
    fake.container("c2")
    asked = {**network(), "args": {"cni": {"ips": ["2001:db8:1:0:1::5"]}}}
    said = fake.call("ADD", "c2", asked).error(errors.ADDRESS_UNAVAILABLE)
    assert "2001:db8:1:0:1::5 lies in a prefix that was given to c1 eth0" in said
    fake.call("DEL", "c1").ok()
    assert fake.call("ADD", "c2", asked).ok()["ips"][0]["address"] == "2001:db8:1:0:1::5/64"


def test_a_prefix_around_ones_own_address_is_passed_over() -> None:
    """It would be routed by an address that lies in it."""
    fake = FakeContext()
    result = fake.add("c1", {**network(), "args": {"cni": {"ips": ["2001:db8:1:0:1::5", "10.1.0.9"]}}})
    assert result["ips"][-1] == {"address": "2001:db8:1:0:2::/80"}


def test_a_family_that_is_gone_without_takes_its_prefix_along() -> None:
    fake = FakeContext()
    fake.container("c1")
    del fake.kernel.spaces["/run/netns/c1"].sysctls["ipv6/conf/lo/disable_ipv6"]
    result = fake.call("ADD", "c1", network(ipam={"required": ["ipv4"]})).ok()
    assert [ip["address"] for ip in result["ips"]] == ["10.1.0.2/24"]


def test_neighbours_of_the_uplink_do_not_find_it() -> None:
    fake = FakeContext()
    fake.kernel.add_link(HOST, replace(fake.kernel.spaces[HOST].links["lo"], name="six"))
    fake.container("c1")
    said = fake.call("ADD", "c1", network(ndpProxy="six"))
    said.ok()
    assert f"cannot for all of {P}" in said.stderr


def test_plan_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "10.conflist"
    file.write_text(json.dumps(network()))
    chosen = argparse.Namespace(conflist=file, container="example", ifname="eth0", pod=None, json=False)
    assert plan_command.run(chosen, FakeContext().context, lambda: True) == 0
    said = capsys.readouterr().out
    assert f"add route {P} via 2001:db8:1::2 through cni0 in the node" in said
    assert f"make the rest of {P} unreachable in /run/netns/example" in said
    assert f"inet home_prefixes6: {P} . cni0" in said and f'"address": "{P}"' in said
