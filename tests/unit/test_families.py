"""``ipam.required``: containers that are attached with the one family that there is, on a node of fakes."""

from __future__ import annotations

from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.kernel.facts import RouteEntry
from cni_v6.kernel.ops import HOST
from tests.unit.fake_context import CONFIG, FakeContext

SMALL = [[{"subnet": "2001:db8:1::/64"}], [{"subnet": "10.1.0.0/30"}]]
ONE = {"address": "2001:db8:1::2/64", "gateway": "2001:db8:1::1", "interface": 2}
TOLD = "which ipam.required does not name: "


def requiring(*families: str, **keys: Any) -> dict[str, Any]:
    return CONFIG | {"ipam": CONFIG["ipam"] | {"ranges": SMALL, "required": list(families)}} | keys


def without_ipv6() -> FakeContext:
    """A node whose administrator has turned IPv6 off."""
    fake = FakeContext()
    fake.kernel.spaces[HOST].sysctls["ipv6/conf/all/disable_ipv6"] = "1"
    return fake


def test_a_node_with_ipv6_off() -> None:
    fake, config = without_ipv6(), requiring("ipv4")
    netns = fake.container("c1")
    answer = fake.call("ADD", "c1", config)
    assert answer.ok()["ips"] == [{"address": "10.1.0.2/30", "gateway": "10.1.0.1", "interface": 2}]
    assert answer.stdout["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]
    assert f"attached without IPv6 (its addresses, routes and published ports), {TOLD}IPv6 is off" in answer.stderr
    assert [each.addresses for each in fake.attachments()] == [("10.1.0.2",)]
    assert fake.kernel.spaces[netns].addresses["eth0"] == ["10.1.0.2/30"]
    assert fake.kernel.spaces[HOST].addresses["cni0"] == ["10.1.0.1/30"]
    assert fake.call("CHECK", "c1", config | {"prevResult": answer.stdout}).ok() is None
    fake.call("DEL", "c1", config).ok()
    assert fake.call("STATUS", config=config).ok() is None


def test_status_says_nothing_of_a_family_that_is_off_and_not_required() -> None:
    fake, config = without_ipv6(), requiring("ipv4")
    fake.add("c1", config)
    told = fake.call("STATUS", config=config)
    assert told.error(errors.NOT_AVAILABLE).startswith("ipam.ranges[1] of pods is exhausted")
    large = config | {"ipam": config["ipam"] | {"ranges": CONFIG["ipam"]["ranges"]}}
    assert fake.call("STATUS", config=large).ok() is None
    assert "IPv6 is off" in fake.call("STATUS", config=CONFIG).error(errors.NOT_AVAILABLE)


@pytest.mark.parametrize("config", [CONFIG, requiring("ipv6"), requiring("ipv4", "ipv6")])
def test_where_ipv6_is_required_no_address_is_spent_on_it(config: dict[str, Any]) -> None:
    fake = without_ipv6()
    fake.container("c1")
    assert "IPv6 is off" in fake.call("ADD", "c1", config).error(errors.IPV6_DISABLED)
    assert fake.attachments() == [] and fake.kernel.applied == []
    fake.kernel.spaces[HOST].sysctls["ipv6/conf/all/disable_ipv6"] = "0"
    assert fake.add("c1", config)["ips"][0] == ONE


def test_a_layer_2_network_needs_no_ipv6_of_the_node() -> None:
    fake = without_ipv6()
    assert len(fake.add("c1", CONFIG | {"isDefaultGateway": False})["ips"]) == 2


def test_an_exhausted_family_and_its_ports() -> None:
    fake = FakeContext()
    fake.add("c1", requiring("ipv6"))
    web = {"hostPort": 80, "containerPort": 80}
    ports = [web | {"hostIP": "192.0.2.1"}, web | {"hostIP": "::1"}, {"hostPort": 443, "containerPort": 443}]
    config = requiring("ipv6", runtimeConfig={"portMappings": ports})
    netns = fake.container("c2")
    answer = fake.call("ADD", "c2", config)
    assert [each["address"] for each in answer.ok()["ips"]] == ["2001:db8:1::3/64"]
    assert answer.stdout["routes"] == [{"dst": "::/0", "gw": "2001:db8:1::1"}]
    assert TOLD in answer.stderr and "1 in all, 1 taken" in answer.stderr
    policy = fake.attachments()[1].policy
    assert policy and [(port.host_port, port.host_ip) for port in policy.ports] == [(80, "::1"), (443, "")]
    assert fake.kernel.spaces[netns].routes["eth0"] == [RouteEntry("::/0", "2001:db8:1::1", priority=1024)]
    assert fake.call("CHECK", "c2", config | {"prevResult": answer.stdout}).ok() is None
    assert fake.call("STATUS", config=config).ok() is None


def test_a_port_of_a_family_without_ranges_is_refused_all_the_same() -> None:
    fake = FakeContext()
    fake.container("c1")
    config = CONFIG | {"ipam": CONFIG["ipam"] | {"ranges": SMALL[:1], "required": ["ipv6"]}}
    ports = {"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "192.0.2.1"}]}
    answer = fake.call("ADD", "c1", config | {"runtimeConfig": ports})
    assert "the container has no IPv4 address" in answer.error(errors.INVALID_CONFIG)
