"""What the node does on the bridge that a routed network had, on a node of fakes."""

from __future__ import annotations

from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.conversion.convert import convert
from cni_v6.conversion.report import Wanted
from cni_v6.errors import CniError
from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST
from cni_v6.leases.attachment import GatewayAddress
from cni_v6.plan import former_bridge
from tests.unit.fake_context import CONFIG, FakeContext

ROUTED = {key: value for key, value in CONFIG.items() if key not in ("bridge", "isDefaultGateway")}
ROUTED |= {"type": "cni-v6-routed"}


def attached(fake: FakeContext, name: str, config: dict[str, Any] = CONFIG) -> Any:
    fake.container(name)
    return fake.call("ADD", name, config, type=config["type"]).ok()


def test_the_node_answers_on_the_bridge_until_it_is_gone() -> None:
    fake = FakeContext()
    attached(fake, "old")
    result = attached(fake, "new", ROUTED)
    node, checked = fake.kernel.spaces[HOST], ROUTED | {"prevResult": result}
    assert node.proxies["cni0"] == ["2001:db8:1::3"]
    assert (node.sysctls["ipv4/conf/cni0/proxy_arp"], node.sysctls["ipv4/neigh/cni0/proxy_delay"]) == ("1", "0")
    assert node.sysctls["ipv6/neigh/cni0/proxy_delay"] == "0"
    node.proxies["cni0"].clear()
    said = fake.call("CHECK", "new", checked, type="cni-v6-routed")
    assert "does not answer for 2001:db8:1::3 on cni0" in said.error(errors.CHECK_FAILED)
    fake.call("DEL", "old", ROUTED, type="cni-v6-routed").ok()
    fake.kernel.delete(HOST, "cni0")
    fake.call("CHECK", "new", checked, type="cni-v6-routed").ok()
    attached(fake, "newer", ROUTED)
    assert [record.proxied for record in fake.attachments() if record.owner.container_id == "newer"] == [()]
    fake.call("DEL", "new", ROUTED, type="cni-v6-routed").ok()


def answers(fake: FakeContext) -> tuple[str, ...]:
    sysctls = fake.kernel.spaces[HOST].sysctls
    keys = ("ipv4/conf/cni0/proxy_arp", "ipv4/neigh/cni0/proxy_delay", "ipv6/neigh/cni0/proxy_delay")
    return tuple(sysctls[key] for key in keys)


NOT, YES = ("0", "80", "80"), ("1", "0", "0")


def test_the_node_falls_silent_with_the_last_container_on_the_bridge() -> None:
    fake = FakeContext()
    for name in ("old", "older"):
        attached(fake, name)
    assert answers(fake) == NOT
    attached(fake, "new", ROUTED)
    assert answers(fake) == YES
    fake.call("DEL", "old", ROUTED, type="cni-v6-routed").ok()
    assert answers(fake) == YES
    fake.call("DEL", "older", ROUTED, type="cni-v6-routed").ok()
    assert answers(fake) == NOT
    attached(fake, "newer", ROUTED)
    assert answers(fake) == NOT
    fake.call("DEL", "new", ROUTED, type="cni-v6-routed").ok()


def test_a_network_that_goes_back_to_its_bridge_answers_for_routed_containers() -> None:
    """Until the last of them is gone: those on the bridge ask for them there."""
    fake = FakeContext()
    attached(fake, "old")
    attached(fake, "new", ROUTED)
    attached(fake, "back")
    assert answers(fake) == YES
    fake.call("DEL", "new", CONFIG).ok()
    assert answers(fake) == NOT


def test_another_network_still_answers_there() -> None:
    fake = FakeContext()
    other = CONFIG | {"name": "other", "ipam": {**CONFIG["ipam"], "ranges": [[{"subnet": "10.9.0.0/24"}]]}}
    routed = {key: value for key, value in other.items() if key in ROUTED} | {"type": "cni-v6-routed"}
    for config in (CONFIG, other):
        attached(fake, f"old-{config['name']}", config)
    for config in (ROUTED, routed):
        attached(fake, f"new-{config['name']}", config)
    fake.call("DEL", f"old-{CONFIG['name']}", ROUTED, type="cni-v6-routed").ok()
    assert answers(fake)[0] == "1"
    fake.call("DEL", "old-other", routed, type="cni-v6-routed").ok()
    assert answers(fake) == NOT


def test_what_an_administrator_has_set_there_stays() -> None:
    fake = FakeContext()
    attached(fake, "old")
    sysctls = fake.kernel.spaces[HOST].sysctls
    sysctls |= {"ipv4/conf/cni0/proxy_arp": "1", "ipv6/neigh/cni0/proxy_delay": "30"}
    attached(fake, "new", ROUTED)
    assert answers(fake) == YES
    sysctls["ipv4/neigh/cni0/proxy_delay"] = "7"
    fake.call("DEL", "old", ROUTED, type="cni-v6-routed").ok()
    assert answers(fake) == ("1", "7", "30")


def test_a_bridge_that_is_gone_needs_no_end() -> None:
    fake = FakeContext()
    attached(fake, "old")
    attached(fake, "new", ROUTED)
    fake.kernel.delete(HOST, "cni0")
    fake.call("DEL", "old", ROUTED, type="cni-v6-routed").ok()
    assert "ipv4/conf/cni0/proxy_arp" not in fake.kernel.spaces[HOST].sysctls


def test_an_uplink_that_answers_stays_beside_the_bridge() -> None:
    fake = FakeContext()
    attached(fake, "old")
    fake.kernel.add_link(HOST, Link("up0", "02:00:00:00:00:99", 1500, up=True))
    attached(fake, "new", ROUTED | {"ndpProxy": "up0"})
    [record] = [record for record in fake.attachments() if record.owner.container_id == "new"]
    assert [entry.uplink for entry in record.proxied] == ["cni0", "up0"]


def test_the_addresses_that_are_on_link_there() -> None:
    draining = (
        GatewayAddress("cni0", "2001:db8:1::1/64"), GatewayAddress("cni0", "10.1.0.1/24"),
        GatewayAddress("lo", "2001:db8:1::1/128"), GatewayAddress("cni1", "2001:db8:9::/64", on_link=True),
    )
    own = ("2001:db8:1::5", "10.1.0.5", "2001:db8:9::5")
    assert former_bridge.interfaces(draining, own) == {"cni0": own[:2], "cni1": own[2:]}
    assert former_bridge.interfaces(draining, ("10.2.0.5",)) == {}


# The configuration


def converted(**keys: Any) -> Any:
    usual = {"type": "cni-v6", "bridge": "br7", "isDefaultGateway": True, "ipam": CONFIG["ipam"]}
    plugin: dict[str, Any] = {**usual, **keys}
    listed = [{key: value for key, value in plugin.items() if value is not None}, {"type": "tuning"}]
    return convert({"cniVersion": "1.0.0", "name": "pods", "plugins": listed}, Wanted(to="routed"))


def test_a_bridge_becomes_routed() -> None:
    found = converted(netfilter=True, hairpinMode=True, portIsolation=True, ingress=None)
    assert found.document["plugins"] == [
        {"type": "cni-v6-routed", "ingress": "isolated", "ipam": CONFIG["ipam"]}, {"type": "tuning"}]
    said = {remark.path.partition(".")[2]: remark.words for remark in found.remarks}
    assert said["type"] == "cni-v6: cni-v6-routed" and said["netfilter"].startswith("packets between containers")
    assert "both forms work" in found.leases and "ip link delete {bridge}" in found.commands and found.bridge == "br7"


@pytest.mark.parametrize(("keys", "path"), [
    ({"isDefaultGateway": None, "isGateway": True}, "ipam.routes"),
    ({"isDefaultGateway": None}, "isGateway"),
])
def test_what_a_person_must_look_at(keys: dict[str, Any], path: str) -> None:
    looked = [remark.path for remark in converted(**keys).remarks if remark.kind == "look at"]
    assert f"plugins[0].{path}" in looked


@pytest.mark.parametrize(("keys", "words"), [
    ({"vlan": 5}, "only a bridge has it"), ({"ipam": None}, "has no ipam"), ({"bridge": 7}, "is not a string"),
])
def test_a_bridge_that_stays_one(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(CniError, match=words):
        converted(**keys)
