"""What containers need of a bridge's settings, and what it is once they are gone, on a node of fakes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cni_v6.attachments import node_settings, old_gateways
from cni_v6.attachments.old_gateways import Memo
from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST
from cni_v6.leases.attachment import SETTING_KEYS, Setting
from cni_v6.plan import node_settings as planned
from tests.unit.fake_context import BOOT, CONFIG, LAYER_2, FakeContext, gc

LOCALNET = "ipv4/conf/cni0/route_localnet"
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # the configuration, what its containers need of the link
    "promisc": (CONFIG | {"promiscMode": True}, {"promisc": True}),
    "netfilter": (CONFIG | {"netfilter": True}, {"netfilter": frozenset((4, 6))}),
    "vlan": (LAYER_2 | {"vlan": 7}, {"vlan_filtering": True}),
    "trunk": (LAYER_2 | {"vlanTrunk": [{"id": 7}]}, {"vlan_filtering": True}),
}


def bridge(fake: FakeContext) -> Link:
    return fake.kernel.spaces[HOST].links["cni0"]


def of_somebody(fake: FakeContext, **settings: Any) -> None:
    """A bridge that an administrator made."""
    link = Link("cni0", "02:aa:aa:aa:aa:aa", 1500, kind="bridge", up=True)
    fake.kernel.add_link(HOST, replace(link, **settings))


def has(link: Link, wanted: dict[str, Any]) -> bool:
    return all(getattr(link, name) == value for name, value in wanted.items())


def memo(fake: FakeContext, network: str = "pods") -> Memo:
    with fake.leases(network).transaction() as leases:
        return old_gateways.decode(leases.memo(), BOOT)


def localnet(fake: FakeContext) -> str:
    return fake.kernel.spaces[HOST].sysctls[LOCALNET]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ours", [True, False])
def test_a_bridge_is_what_it_was_after_the_last_container_that_needs_more(shape: str, ours: bool) -> None:
    fake, (config, needed) = FakeContext(), SHAPES[shape]
    if not ours:
        of_somebody(fake)
    keys = ("promiscMode", "netfilter", "vlan", "vlanTrunk")
    plain = {key: value for key, value in config.items() if key not in keys}
    for name in ("a", "b"):
        fake.add(name, config)
    fake.add("plain", plain)
    for name, left in (("b", True), ("a", False)):
        assert has(bridge(fake), needed)
        fake.call("DEL", name, plain).ok()
        assert has(bridge(fake), needed) == left
    assert memo(fake).settings == ()
    fake.add("again", config)
    assert has(bridge(fake), needed)
    fake.now += 1
    fake.call("GC", config=gc(config=config)).ok()
    assert not has(bridge(fake), needed)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_an_administrator_had_set_stays(shape: str) -> None:
    fake, (config, needed) = FakeContext(), SHAPES[shape]
    of_somebody(fake, **needed)
    fake.add("a", config)
    fake.call("DEL", "a", config).ok()
    assert has(bridge(fake), needed)


def test_half_of_a_setting_comes_back() -> None:
    fake = FakeContext()
    of_somebody(fake, netfilter=frozenset((4,)))
    fake.add("a", CONFIG | {"netfilter": True})
    assert bridge(fake).netfilter == {4, 6}
    fake.call("DEL", "a").ok()
    assert bridge(fake).netfilter == {4}


def test_what_somebody_sets_meanwhile_is_his() -> None:
    fake = FakeContext()
    of_somebody(fake)
    fake.add("a", CONFIG | {"netfilter": True})
    fake.kernel.spaces[HOST].links["cni0"] = replace(bridge(fake), netfilter=frozenset((6,)))
    fake.call("DEL", "a").ok()
    assert bridge(fake).netfilter == {6}


def test_a_bridge_that_is_down_stays_down() -> None:
    fake = FakeContext()
    of_somebody(fake)
    fake.add("a", CONFIG | {"promiscMode": True})
    fake.kernel.spaces[HOST].links["cni0"] = replace(bridge(fake), up=False)
    fake.call("DEL", "a").ok()
    assert not bridge(fake).promisc and not bridge(fake).up


def test_a_bridge_that_is_gone() -> None:
    fake = FakeContext()
    fake.add("a", CONFIG | {"netfilter": True})
    fake.kernel.delete(HOST, "cni0")
    fake.call("DEL", "a").ok()
    assert memo(fake).settings == () and "cni0" not in fake.kernel.spaces[HOST].links


def test_vlans_stay_apart_while_a_port_is_in_one() -> None:
    """The gateway interface of a VLAN outlives its containers; an administrator's port is his own."""
    fake = FakeContext()
    fake.add("a", CONFIG | {"vlan": 7})
    fake.call("DEL", "a").ok()
    assert bridge(fake).vlan_filtering
    fake = FakeContext()
    of_somebody(fake)
    fake.kernel.add_link(HOST, Link("ens1", "02:00:00:00:00:01", 1500, up=True, master="cni0"))
    fake.add("a", LAYER_2 | {"vlan": 7})
    fake.kernel.vlans["ens1"] = {1: True, 9: False}
    fake.call("DEL", "a").ok()
    assert bridge(fake).vlan_filtering


def test_the_last_port_that_is_published_at_a_loopback_address() -> None:
    fake = FakeContext()
    for name, port in (("a", 8080), ("b", 9090)):
        mapping = {"hostPort": port, "containerPort": 80, "protocol": "tcp"}
        fake.add(name, CONFIG | {"runtimeConfig": {"portMappings": [mapping]}})
    fake.add("plain")
    for name, left in (("a", "1"), ("b", "0")):
        assert localnet(fake) == "1"
        fake.call("DEL", name).ok()
        assert localnet(fake) == left
    elsewhere = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1"}
    fake.add("c", CONFIG | {"runtimeConfig": {"portMappings": [elsewhere]}})
    assert localnet(fake) == "0" and memo(fake).settings == ()


def test_another_container_stands_for_all_that_need_it() -> None:
    fake, config = FakeContext(), CONFIG | {"netfilter": True}
    for name in ("a", "b", "c"):
        fake.add(name, config)
    users = []
    for _ in range(3):
        [setting] = memo(fake).settings
        users.append(setting.user[0])
        fake.call("DEL", setting.user[0]).ok()
    assert sorted(users) == ["a", "b", "c"] and bridge(fake).netfilter == frozenset()


def test_a_container_that_does_not_stand_for_them_goes_without_a_look_at_the_others() -> None:
    fake, config = FakeContext(), CONFIG | {"netfilter": True}
    for name in ("a", "b"):
        fake.add(name, config)
    before = memo(fake)
    fake.call("DEL", "b").ok()
    assert memo(fake) == before and before.settings == (Setting("cni0", "netfilter", "", ("a", "eth0")),)


def test_a_container_whose_port_is_not_known_may_need_it() -> None:
    """As of a record that was rebuilt from what the node has."""
    fake, config = FakeContext(), CONFIG | {"netfilter": True}
    fake.add("a", config)
    fake.add("b", config)
    with fake.leases().transaction() as leases:
        [record] = [record for record in leases.attachments() if record.owner.container_id == "b"]
        leases.update(replace(record, port=None))
    fake.call("DEL", "a").ok()
    assert bridge(fake).netfilter == {4, 6}
    fake.call("DEL", "b").ok()
    assert bridge(fake).netfilter == frozenset()


@pytest.mark.parametrize("first", [0, 1])
def test_two_networks_of_one_bridge(first: int) -> None:
    """The last one gives back what the first one found, whichever it is."""
    fake = FakeContext()
    of_somebody(fake)
    configs = [LAYER_2 | {"name": name, "netfilter": True} for name in ("pods", "other")]
    for number, config in enumerate(configs):
        fake.add(f"c{number}", config)
    fake.call("DEL", f"c{first}", configs[first]).ok()
    assert bridge(fake).netfilter == {4, 6}
    fake.call("DEL", f"c{1 - first}", configs[1 - first]).ok()
    assert bridge(fake).netfilter == frozenset()


def test_a_network_that_comes_while_another_gives_back() -> None:
    """It is seen after it, if not before: no lock is held for both."""
    fake = FakeContext()
    fake.add("a", CONFIG | {"netfilter": True})
    context, theirs = fake.context(), fake.leases("other")
    apply, wanted = fake.kernel.apply, [Setting("cni0", "netfilter", user=("x", "eth0"))]

    def meanwhile(steps: Any) -> Any:
        if bridge(fake).netfilter and not memo(fake, "other").settings:
            with theirs.transaction() as leases:
                node_settings.claim(wanted, "other", leases, context)
        return apply(steps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake.kernel, "apply", meanwhile)
        node_settings.give_back(memo(fake).settings, "pods", context)
    assert bridge(fake).netfilter == {4, 6}


def test_what_was_given_back_meanwhile_is_set_again() -> None:
    """An ADD that looked at the bridge before a DEL: it is told that its network needed nothing until now."""
    fake, config = FakeContext(), CONFIG | {"netfilter": True}
    fake.add("a", config)
    fake.container("b")
    observe, looked = fake.kernel.observe, list[int]()

    def late(questions: Any) -> Any:
        seen = observe(questions)
        if not looked:
            looked.append(1)
            fake.call("DEL", "a", config).ok()
            assert bridge(fake).netfilter == frozenset()
        return seen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake.kernel, "observe", late)
        fake.call("ADD", "b", config).ok()
    assert bridge(fake).netfilter == {4, 6}


def test_an_add_that_fails_leaves_nothing() -> None:
    fake, config = FakeContext(), CONFIG | {"netfilter": True}
    of_somebody(fake)
    fake.container("a")
    fake.kernel.add_link("/run/netns/a", Link("eth0", "02:00:00:00:00:05", 1500))
    assert fake.call("ADD", "a", config).code == 1
    assert memo(fake).settings == () and bridge(fake).netfilter == frozenset()


@pytest.mark.parametrize("words", [
    ["cni0", "netfilter", "", "a"], ["../x", "promisc", "0", "a", "eth0"], ["cni0", "forwarding", "0", "a", "eth0"],
    ["cni0", "promisc", "", "a", "eth0"], ["cni0", "promisc", "-1", "a", "eth0"],
])
def test_a_setting_that_we_did_not_write(words: list[str]) -> None:
    with pytest.raises((ValueError, TypeError)):
        old_gateways.read_setting(*words)


def test_every_setting_is_known() -> None:
    assert tuple(planned.ON) == SETTING_KEYS and {*planned.SYSCTLS, *planned.OFF} == set(SETTING_KEYS)
    for key in SETTING_KEYS:
        setting = Setting("cni0", key, planned.OFF.get(key, "0"), ("a", "eth0"))
        assert old_gateways.read_setting(*old_gateways.setting_words(setting)) == setting


def test_a_family_that_is_off_has_nothing_to_give_back() -> None:
    fake = FakeContext()
    of_somebody(fake)
    for key in [key for key in fake.kernel.spaces[HOST].sysctls if key.startswith("ipv6/neigh")]:
        del fake.kernel.spaces[HOST].sysctls[key]
    with fake.leases().transaction() as leases:
        assert node_settings.claim([Setting("cni0", "proxy_delay6")], "pods", leases, fake.context()) == []
