"""Rules by source address for a container's further networks, on a node of fakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.config.bridge import parse_bridge
from cni_v6.config.macvlan import parse_macvlan
from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.kernel import awaits, ops
from cni_v6.kernel.facts import Lifetime, Link
from cni_v6.kernel.ops import HOST
from cni_v6.leases import records
from cni_v6.leases.attachment import SourceRules
from cni_v6.plan import source_routing
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Address
from tests.unit.config_tables import call, config
from tests.unit.fake_context import CONFIG, FakeContext
from tests.unit.test_renumber import A, B, Bench, make  # noqa: F401  (a fixture)

NETNS = "/run/netns/c1"
OTHER_IPAM = {"type": "cni-v6-ipam", "ranges": [[{"subnet": "2001:db8:2::/64"}], [{"subnet": "10.2.0.0/24"}]]}
OTHER = CONFIG | {"name": "others", "bridge": "cni1", "ipam": OTHER_IPAM}
PORTS = {"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 8080}]}}
TABLE = names.source_table(Owner("others", "c1", "net1"))
BOTH = ("2001:db8:2::2/128", "10.2.0.2/32")


def attach(fake: FakeContext, conf: dict[str, Any], ifname: str = "net1", command: str = "ADD") -> Any:
    fake.container("c1")
    return fake.call(command, "c1", conf, type=conf["type"], CNI_IFNAME=ifname)


def sources(fake: FakeContext) -> tuple[str, ...]:
    space = fake.kernel.spaces[NETNS]
    assert all(table == TABLE for _, table in space.rules)
    return tuple(source for source, _ in space.rules)


def table(fake: FakeContext) -> dict[str, str | None]:
    """Destination -> next hop of the table."""
    held = fake.kernel.spaces[NETNS].routes["net1"]
    return {route.dst: route.gateway for route in held if route.table == TABLE}


@pytest.mark.parametrize(("first", "keys", "wanted"), [
    (True, PORTS, BOTH),
    (True, {}, ()),
    (True, PORTS | {"sourceBasedRouting": False}, ()),
    (True, {"sourceBasedRouting": True}, BOTH),
    (False, PORTS, ()),  # the default route is its own
    (False, {"sourceBasedRouting": True}, BOTH),
    (False, PORTS | {"isDefaultGateway": False, "isGateway": True}, BOTH),  # nobody has one
    (True, PORTS | {"ingress": "open", "guard": False}, BOTH),
])
def test_when_there_are_rules(first: bool, keys: dict[str, Any], wanted: tuple[str, ...]) -> None:
    fake = FakeContext()
    if first:
        attach(fake, CONFIG, "eth0").ok()
    result = attach(fake, OTHER | keys).ok()
    assert sources(fake) == wanted
    checked = OTHER | keys | {"prevResult": result}
    attach(fake, checked, command="CHECK").ok()
    attach(fake, OTHER | keys, command="DEL").ok()
    assert sources(fake) == ()


def test_only_the_family_that_another_network_has() -> None:
    fake = FakeContext()
    attach(fake, CONFIG | {"ipam": {"type": "cni-v6-ipam", "ranges": [[{"subnet": "10.1.0.0/24"}]]}}, "eth0").ok()
    attach(fake, OTHER | PORTS).ok()
    assert sources(fake) == BOTH[1:]


def test_the_table_of_a_bridge() -> None:
    fake = FakeContext()
    routes = [{"dst": "198.51.100.0/24", "gw": "10.2.0.9"}, {"dst": "10.2.0.0/24"}, {"dst": "192.0.2.0/24", "table": 7}]
    attach(fake, OTHER | {"sourceBasedRouting": True, "ipam": OTHER_IPAM | {"routes": routes}}).ok()
    assert table(fake) == {
        "10.2.0.0/24": "10.2.0.1", "198.51.100.0/24": "10.2.0.9", "0.0.0.0/0": "10.2.0.1",
        "2001:db8:2::/64": None, "::/0": "2001:db8:2::1",
    }


@pytest.mark.parametrize(("keys", "wanted"), [
    ({}, {"0.0.0.0/0": "fe80::1", "::/0": "fe80::1"}),
    ({"ipv4Gateway": "169.254.1.1"},
     {"0.0.0.0/0": "169.254.1.1", "169.254.1.1/32": None, "::/0": "fe80::1"}),
])
def test_the_table_of_a_routed_container(keys: dict[str, Any], wanted: dict[str, str | None]) -> None:
    fake, conf = FakeContext(), OTHER | {"type": "cni-v6-routed", "sourceBasedRouting": True} | keys
    result = attach(fake, conf).ok()
    assert table(fake) == wanted and sources(fake) == BOTH
    attach(fake, conf | {"prevResult": result}, command="CHECK").ok()


def test_the_table_of_a_macvlan() -> None:
    """Without a gateway there is no default route."""
    fake = FakeContext()
    fake.kernel.add_link(HOST, Link("up0", "02:00:00:00:00:99", 1500, up=True))
    gateway = {"type": "cni-v6-ipam", "ranges": [[{"subnet": "10.2.0.0/24", "gateway": "10.2.0.1"}]]}
    conf = {"cniVersion": "1.1.0", "name": "others", "type": "cni-v6-macvlan", "master": "up0",
            "sourceBasedRouting": True, "ipam": gateway}
    attach(fake, conf).ok()
    assert table(fake) == {"10.2.0.0/24": None, "0.0.0.0/0": "10.2.0.1"}


def test_a_delegated_prefix_is_a_source_too() -> None:
    fake = FakeContext()
    ipam = {"type": "cni-v6-ipam", "ranges": [[{"subnet": "2001:db8:2::/64"}]], "delegate": 80}
    result = attach(fake, OTHER | {"sourceBasedRouting": True, "ipam": ipam})
    result.ok()
    [record] = fake.attachments("others")
    assert record.prefixes and sources(fake) == ("2001:db8:2::2/128", *record.prefixes)
    hop = {"2001:db8:2::1/128": None, "2001:db8:2::/64": "2001:db8:2::1", "::/0": "2001:db8:2::1"}
    assert table(fake) == hop


def test_a_gateway_beside_its_subnet() -> None:
    ips = Address("10.2.0.2/24", "203.0.113.1"), Address("10.2.0.3/24"), Address("2001:db8::2/64", "fe80::1")
    assert [list(source_routing._on_link(ip)) for ip in ips] == [
        ["10.2.0.0/24", "203.0.113.1/32"], ["10.2.0.0/24"], ["2001:db8::/64"]]


def test_an_add_that_fails_leaves_no_rule() -> None:
    fake = FakeContext()
    fake.kernel.fail = lambda op: CniError(KERNEL_REFUSED, "no") if isinstance(op, awaits.AwaitPort) else None
    attach(fake, OTHER | {"sourceBasedRouting": True}).error(KERNEL_REFUSED)
    assert sources(fake) == () and fake.attachments("others") == []


def test_check_names_what_is_missing() -> None:
    fake, conf = FakeContext(), OTHER | {"sourceBasedRouting": True}
    result = attach(fake, conf).ok()
    space = fake.kernel.spaces[NETNS]
    space.rules.remove((BOTH[0], TABLE))
    space.routes["net1"] = [route for route in space.routes["net1"] if (route.dst, route.table) != ("::/0", TABLE)]
    said = attach(fake, conf | {"prevResult": result}, command="CHECK").error(errors.CHECK_FAILED)
    assert f"rule from {BOTH[0]} to table {TABLE} is missing; route ::/0 of table {TABLE} is missing" in said


# The record


RULES = SourceRules(NETNS, TABLE, BOTH, ("::/0", "0.0.0.0/0"))


def test_the_record_comes_back() -> None:
    fake = FakeContext()
    attach(fake, OTHER | {"sourceBasedRouting": True}).ok()
    [record] = fake.attachments("others")
    assert record.rules and (record.rules.netns, record.rules.table, record.rules.sources) == (NETNS, TABLE, BOTH)
    assert records.decode("others", "c1:net1", records.encode(record)) == record


@pytest.mark.parametrize("rules", [
    replace(RULES, netns="net"), replace(RULES, netns="/a\0b"), replace(RULES, table=0), replace(RULES, table=1 << 32),
    replace(RULES, sources=("10.2.0.2/24",)), replace(RULES, destinations=("default",)),
])
def test_a_record_that_we_did_not_write_is_damaged(rules: SourceRules) -> None:
    fake = FakeContext()
    attach(fake, OTHER).ok()
    [record] = fake.attachments("others")
    assert records.decode("others", "c1:net1", records.encode(replace(record, rules=rules))) is None


def test_a_table_that_is_no_number_is_damaged() -> None:
    fake = FakeContext()
    attach(fake, OTHER).ok()
    [record] = fake.attachments("others")
    words = json.loads(records.encode(replace(record, rules=RULES)))
    words["rules"][1] = "7"
    assert records.decode("others", "c1:net1", json.dumps(words).encode()) is None


# The configuration


def test_what_is_refused() -> None:
    with pytest.raises(CniError, match="sourceBasedRouting: true needs an ipam"):
        parse_bridge(call({"cniVersion": "1.1.0", "name": "pods", "type": "cni-v6", "sourceBasedRouting": True}))
    slaac = {"cniVersion": "1.1.0", "name": "pods", "type": "cni-v6-macvlan", "sourceBasedRouting": True,
             "ipam": {"type": "cni-v6-slaac"}}
    with pytest.raises(CniError, match="needs an ipam with ranges"):
        parse_macvlan(call(slaac))
    assert parse_bridge(call(config())).source_routing is None


# Renumbering


@pytest.mark.parametrize("kind", ["cni-v6", "cni-v6-routed"])
def test_rules_follow_the_prefix(make: Callable[..., Bench], kind: str) -> None:  # noqa: F811
    bench = make(type=kind, sourceBasedRouting=True)
    fake, old, new = bench.fake, "2001:db8:a:0:ab00::", "2001:db8:b:0:ab00::"
    fake.container("c1")
    result = fake.call("ADD", "c1", bench.config, type=kind).ok()
    space = fake.kernel.spaces[NETNS]

    def found() -> tuple[set[str], set[str]]:
        [number] = {number for _, number in space.rules}
        routes = {route.dst for route in space.routes["eth0"] if route.table == number and ":ab00" in route.dst}
        return {source for source, _ in space.rules if ":" in source}, routes

    on_link = kind == "cni-v6"
    assert found() == ({f"{old}1/128"}, {f"{old}/80"} if on_link else set())
    bench.has(Lifetime(A, 0), B)
    bench.run()
    assert found() == ({f"{old}1/128", f"{new}1/128"}, {f"{old}/80", f"{new}/80"} if on_link else set())
    bench.has(B)
    bench.run()
    assert found() == ({f"{new}1/128"}, {f"{new}/80"} if on_link else set())
    fake.call("CHECK", "c1", bench.config | {"prevResult": result}, type=kind).ok()
    fake.call("DEL", "c1", bench.config, type=kind).ok()
    assert space.rules == []


def test_a_family_without_rules_gets_none() -> None:
    rules = replace(RULES, sources=BOTH[1:])
    further = [Address("2001:db8:3::2/64"), Address("10.2.0.3/24", "10.2.0.1")]
    extended = source_routing.extended(rules, further)
    assert extended.sources == (*BOTH[1:], "10.2.0.3/32")
    steps = source_routing.renumber_steps(extended, NETNS, "net1", further)
    assert [step.source for step in steps if isinstance(step, ops.AddRule)] == ["10.2.0.3/32"]
    left = source_routing.reduced(extended, further[1:])
    assert left.sources == BOTH[1:] and "10.2.0.0/24" in left.destinations, "the other address needs it"
