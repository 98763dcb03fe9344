"""A bridge that is deleted, a port that is taken out of it, and whatever else differs from the records: found and
mended by the next ADD and by ``cni-v6ctl check``; on fakes."""

from __future__ import annotations

import argparse
import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from cni_v6 import errors
from cni_v6.attachments import firewall_reload, repair
from cni_v6.ctl import check as command
from cni_v6.errors import CniError
from cni_v6.firewall.shape import Chain, Table
from cni_v6.kernel import ops
from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST
from cni_v6.leases.attachment import Attachment
from cni_v6.plan import bridge_port, features, repair as plan_repair
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner
from tests.outputs import unwrapped
from tests.unit.fake_context import CONFIG, DATA_DIR, LAYER_2, FakeContext
from tests.unit.test_interface_prefix import uplink

Capture = pytest.CaptureFixture[str]
Damage = Callable[[FakeContext], None]
NAMES = ("c1", "c2", "c3")
UPLINK = "2001:db8:1::ffff/64"
RANGES = [[{"subnet": "2001:db8:1::/64", "gateway": "link-local"}], [{"subnet": "10.1.0.0/24"}]]
EVERYTHING = CONFIG | {
    "ingress": "isolated", "ndpProxy": "auto", "multicastSnooping": True, "netfilter": True,
    "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]},
    "ipam": {"type": "cni-v6-ipam", "ranges": RANGES, "delegate": 80},
}
PLAIN = CONFIG | {"name": "plain", "ipam": {"type": "cni-v6-ipam", "ranges": [[{"subnet": "10.2.0.0/24"}]]}}


def host(name: str, network: str = "pods") -> str:
    return names.host_interface(Owner(network, name, "eth0"))


def config(number: int, base: dict[str, Any] = EVERYTHING) -> dict[str, Any]:
    """The network's, with ports of one container."""
    mapping = {"hostPort": 8080 + number, "containerPort": 80, "protocol": "tcp"}
    return base | {"runtimeConfig": {"portMappings": [mapping]}}


def node(base: dict[str, Any] = EVERYTHING, fake: FakeContext | None = None) -> FakeContext:
    """Three containers."""
    fake = fake or FakeContext()
    fake.kernel.spaces[HOST].sysctls[bridge_port.FRAMES[4]] = "0"  # there is br_netfilter
    uplink(UPLINK if base is EVERYTHING else "2001:db8:9::ffff/64", fake=fake.kernel)
    for number, name in enumerate(NAMES):
        fake.add(name, config(number) if base is EVERYTHING else base)
    return fake


def state(fake: FakeContext) -> Any:
    """What the kernel has; in any order, as what is mended comes back last."""
    spaces = copy.deepcopy(fake.kernel.spaces)
    for space in spaces.values():
        space.addresses = {name: sorted(held) for name, held in space.addresses.items() if held}
        space.routes = {name: sorted(held, key=str) for name, held in space.routes.items() if held}
        space.proxies = {name: sorted(held) for name, held in space.proxies.items() if held}
        space.links = dict(sorted(space.links.items()))
    vlans = {name: held for name, held in fake.kernel.vlans.items() if held}
    return spaces, vlans, set(fake.kernel.firewall.elements())


class Checked:
    """A run of ``cni-v6ctl check``."""

    def __init__(self, fake: FakeContext, capture: Capture, *arguments: str) -> None:
        parser = argparse.ArgumentParser()
        command.register(parser.add_subparsers())
        self.status = command.run(parser.parse_args(["check", *arguments]), fake.context)
        printed = capture.readouterr().out
        assert "--json" in arguments or max(map(len, printed.splitlines())) <= 80
        self.out = unwrapped(printed)
        self.lines = self.out.splitlines()


def lose_bridge(fake: FakeContext) -> None:
    fake.kernel.delete(HOST, "cni0")


def change(name: str, **changes: Any) -> Damage:
    def damage(fake: FakeContext) -> None:
        links = fake.kernel.spaces[HOST].links
        links[name] = replace(links[name], **changes)

    return damage


def unplug(name: str, master: str = "") -> Damage:
    def damage(fake: FakeContext) -> None:
        change(host(name), master=master, hairpin=False, isolated=False)(fake)
        fake.kernel.vlans.pop(host(name), None)

    return damage


def lose(*held: str) -> Damage:
    """Addresses, routes and proxy entries that begin so."""
    def damage(fake: FakeContext) -> None:
        space = fake.kernel.spaces[HOST]
        for name in space.addresses:
            space.addresses[name] = [each for each in space.addresses[name] if not each.startswith(held)]
        for name in space.routes:
            space.routes[name] = [each for each in space.routes[name] if not each.dst.startswith(held)]
        for name in space.proxies:
            space.proxies[name] = [each for each in space.proxies[name] if not each.startswith(held)]

    return damage


def sysctl(key: str, value: str = "0") -> Damage:
    def damage(fake: FakeContext) -> None:
        fake.kernel.spaces[HOST].sysctls[key] = value

    return damage


def lose_elements(fake: FakeContext) -> None:
    fake.kernel.firewall.remove(fake.kernel.firewall.elements()[3:9])


DAMAGES = [
    pytest.param(lose_bridge, "pods: bridge cni0 is missing", id="bridge"),
    pytest.param(change("cni0", up=False), "pods: bridge cni0 is down", id="bridge down"),
    pytest.param(unplug("c2"), f"pods/c2/eth0: host interface {host('c2')} is in no bridge, not in cni0", id="port"),
    pytest.param(unplug("c2", "up0"), f"pods/c2/eth0: host interface {host('c2')} is in bridge up0", id="elsewhere"),
    pytest.param(change(host("c1"), up=False), f"pods/c1/eth0: host interface {host('c1')} is down", id="port down"),
    pytest.param(change(host("c1"), isolated=False), "has hairpin True and isolated False, not True, True", id="flags"),
    pytest.param(lose("fe80::1"), "pods: gateway address fe80::1/64 is missing on cni0", id="link-local gateway"),
    pytest.param(lose("10.1.0.1"), "pods: gateway address 10.1.0.1/24 is missing on cni0", id="gateway"),
    pytest.param(lose("2001:db8:1::/64"), "pods: route 2001:db8:1::/64 through cni0 is missing", id="on-link route"),
    pytest.param(sysctl("ipv4/ip_forward"), "pods: IPv4 forwarding is off", id="IPv4 forwarding"),
    pytest.param(sysctl("ipv6/conf/up0/force_forwarding"), "pods: IPv6 forwarding is off on up0", id="uplink"),
    pytest.param(sysctl("ipv4/conf/cni0/route_localnet"), "net/ipv4/conf/cni0/route_localnet is not 1", id="loopback"),
    pytest.param(lose_elements, "pods/c1/eth0: ", id="elements"),
    pytest.param(lose("2001:db8:1::2/128"), "eth0: route 2001:db8:1::2/128 through cni0", id="proxy route"),
    pytest.param(lose("2001:db8:1::2"), "eth0: the node does not answer for 2001:db8:1::2 on up0", id="proxy entry"),
    pytest.param(sysctl("ipv6/conf/all/proxy_ndp"), "pods/c1/eth0: the node answers for nobody on up0", id="proxying"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_what_differs_is_named_and_mended(damage: Damage, words: str, capsys: Capture) -> None:
    fake = node()
    before = state(fake)
    assert (checked := Checked(fake, capsys)).status == 0, checked.out
    assert checked.lines == ["nothing differs on 1 network"]
    damage(fake)
    damaged = state(fake)
    checked = Checked(fake, capsys)
    assert checked.status == 1 and words in checked.out
    assert state(fake) == damaged, "to look changes nothing"
    repaired = Checked(fake, capsys, "--repair")
    assert repaired.status == 0, repaired.out
    assert words in repaired.out and "  1. " in repaired.out and repaired.lines[-1] == "nothing differs on 1 network"
    assert state(fake) == before


def test_a_port_of_a_container_without_ipv4_needs_no_setting(capsys: Capture) -> None:
    fake = FakeContext()
    six = CONFIG | {"ipam": {"type": "cni-v6-ipam", "ranges": [[{"subnet": "2001:db8:1::/64"}]]}}
    fake.add("c1", config(1, six))
    assert (checked := Checked(fake, capsys)).status == 0, checked.out
    assert fake.kernel.spaces[HOST].sysctls.get("ipv4/conf/cni0/route_localnet") != "1"


def test_a_delegated_prefix_and_its_proxied_address(capsys: Capture) -> None:
    fake = node()
    before = state(fake)
    prefixes = [prefix for record in fake.attachments() for prefix in record.prefixes]
    assert len(prefixes) == len(NAMES)
    lose(*prefixes)(fake)
    checked = Checked(fake, capsys)
    assert all(f"route {prefix} through cni0 is missing" in checked.out for prefix in prefixes)
    assert Checked(fake, capsys, "--repair").status == 0
    assert state(fake) == before


def test_a_bridge_that_was_down_is_not_called_gone() -> None:
    fake = node()
    change("cni0", up=False)(fake)
    fake.container("late")
    answer = fake.call("ADD", "late", config(7))
    answer.ok()
    assert "bridge cni0 was down: put right for 3 containers of network pods" in answer.stderr


def test_the_next_add_plugs_in_what_is_left_of_the_bridge() -> None:
    fake = node()
    before = state(fake)
    lose_bridge(fake)
    words = fake.call("STATUS", config=EVERYTHING).error(errors.LIMITED)
    assert "c1/eth0, c2/eth0, c3/eth0" in words and "cni-v6ctl check pods --repair" in words
    fake.container("late")
    answer = fake.call("ADD", "late", config(7))
    assert "bridge cni0 was gone: plugged 3 containers of network pods in again" in answer.stderr
    answer.ok()
    fake.call("STATUS", config=EVERYTHING).ok()
    fake.call("DEL", "late", config(7)).ok()
    fake.kernel.remove_netns("/run/netns/late")
    assert state(fake) == before


def test_all_networks_of_the_bridge(capsys: Capture) -> None:
    """The one whose ADD makes it anew is a third one; containers elsewhere are left alone."""
    fake = FakeContext()
    fake.add("c3", LAYER_2 | {"name": "other", "bridge": "br1"}, CNI_IFNAME="net1")
    fake = node(fake=fake)
    fake.add("c1", PLAIN, CNI_IFNAME="net1")
    fake.add("c2", LAYER_2 | {"name": "flat"}, CNI_IFNAME="net1")
    before = state(fake)
    lose_bridge(fake)
    unplug("c2", "br1")(fake)
    fake.container("late")
    answer = fake.call("ADD", "late", LAYER_2 | {"name": "late"})
    assert [word in answer.stderr for word in ("network pods", "network plain", "network flat", "network other")] == [
        True, True, True, False,
    ]
    assert fake.kernel.spaces[HOST].links[host("c2")].master == "br1"
    assert Checked(fake, capsys, "--repair").status == 0
    fake.call("DEL", "late", LAYER_2 | {"name": "late"}).ok()
    fake.kernel.remove_netns("/run/netns/late")
    assert state(fake) == before


def test_an_add_that_fails_has_plugged_them_in_before() -> None:
    fake = node()
    lose_bridge(fake)
    fake.container("late")
    refused = CniError(errors.KERNEL_REFUSED, "cannot do it", "Operation not permitted")
    fake.kernel.fail = lambda op: refused if isinstance(op, ops.CreateVeth) else None
    fake.call("ADD", "late", config(7)).error(errors.KERNEL_REFUSED)
    fake.call("STATUS", config=EVERYTHING).ok()


def test_a_bridge_that_is_gone() -> None:
    fake = node()
    before = state(fake)
    assert list(repair.restore("cni0", fake.context())) == []
    lose_bridge(fake)
    assert list(repair.restore("br9", fake.context())) == [], "another one"
    [words] = repair.restore("cni0", fake.context())
    assert words == "bridge cni0 was gone: plugged 3 containers of network pods in again"
    assert state(fake) == before


def test_a_network_that_was_repaired_meanwhile() -> None:
    """By another call, while this one repaired the network before it."""
    fake = node()
    fake.add("c1", LAYER_2 | {"name": "flat", "bridge": "cni0"}, CNI_IFNAME="net1")
    lose_bridge(fake)
    first = repair.restore("cni0", fake.context())
    said = [next(first), *repair.restore("cni0", fake.context())]
    assert sorted(re.findall("network (\\w+)", "; ".join(said))) == ["flat", "pods"]
    assert list(first) == []


def test_a_prefix_whose_container_has_no_address_left() -> None:
    """The reference plugin may have freed it: there is no next hop."""
    fake = node()
    record = replace(fake.attachments()[0], addresses=())
    [view] = plan_repair.views([record], fake.kernel.spaces[HOST].links.values())
    assert view.conf
    seen = fake.kernel.observe(features.check_questions(view.conf, record))
    assert any("is missing" in words for words in features.differences(view.conf, record, seen))
    steps = [op for step in features.mending(view.conf, record, seen) for op in step]
    assert not any(isinstance(op, ops.AddRoute) and op.dst in record.prefixes for op in steps)


def test_rules_that_others_have_changed_are_loaded_again() -> None:
    fake = node()
    before = state(fake)
    context = fake.context()
    assert firewall_reload.put_right(context, ()) == ([], 3)
    firewall = fake.kernel.firewall
    loaded = firewall.tables
    chains = [replace(chain, rules=(*chain.rules, b"new")) if chain.name == "clamp" else
              replace(chain, rules=(b"other", *chain.rules[1:])) if chain.name == "published6" else
              replace(chain, policy="drop") if chain.name == "input_local" else chain for chain in loaded[0].chains]
    mine = [*chains[1:], Chain("mine")]
    firewall.tables = (Table("inet", tuple(mine), (*loaded[0].sets[1:], "mine"), dormant=True),)
    differs, count = firewall_reload.put_right(context, loaded)
    assert count == 3 and len(differs) == 9, differs
    assert firewall.tables == loaded and state(fake) == before
    for name in NAMES:
        fake.call("DEL", name, EVERYTHING).ok()
    firewall.unload()
    assert firewall_reload.put_right(context, loaded) == ([], 0), "nobody needs them"


class Held:
    """Leases whose lock somebody holds."""

    def transaction(self) -> Any:
        raise CniError(errors.TRY_AGAIN, "the lock is held", "try again")


@pytest.mark.parametrize("unplugged", [False, True])
def test_a_network_whose_lock_is_held_keeps_no_other_from_its_add(unplugged: bool) -> None:
    """It is asked for only if the network has lost something."""
    fake = node()
    fake.stores["held", DATA_DIR] = cast(Any, Held())
    if unplugged:
        alias = names.alias(Owner("held", "c9", "eth0"))
        fake.kernel.add_link(HOST, Link("veth9", "02:00:00:00:00:09", 1500, up=True, alias=alias))
    lose_bridge(fake)
    fake.container("late")
    answer = fake.call("ADD", "late", config(7))
    answer.ok()
    assert "plugged 3 containers of network pods in again" in answer.stderr
    assert ("network held cannot be repaired: the lock is held" in answer.stderr) == unplugged


def test_a_port_that_has_left_its_bridge_is_plugged_in_again() -> None:
    """What an engine does when the kernel says so. A network of that name in another data folder has other records."""
    fake = node()
    fake.add("c9", PLAIN | {"name": "pods", "bridge": "br1", "ipam": PLAIN["ipam"] | {"dataDir": "/a"}})
    before = state(fake)
    unplug("c2")(fake)
    words = f"port {host('c2')} of pods/c2/eth0 was taken out of bridge cni0: plugged in again"
    assert [*repair.plug_in(host("c2"), fake.context())] == [words]
    assert state(fake) == before


def test_a_port_that_is_taken_out_again_so_soon_is_left_alone() -> None:
    fake = node()
    unplug("c2")(fake)
    before = state(fake)
    words = (f"port {host('c2')} of pods/c2/eth0 was taken out of bridge cni0 again: left alone; "
             "cni-v6ctl check pods --repair plugs it in")
    assert [*repair.plug_in(host("c2"), fake.context(), "again: left alone")] == [words]
    assert state(fake) == before


def test_a_port_that_cannot_be_plugged_in_is_not_said_to_be() -> None:
    fake = node()
    unplug("c2")(fake)
    refused = CniError(errors.KERNEL_REFUSED, "cannot do it", "Operation not permitted")
    fake.kernel.fail = lambda op: refused if isinstance(op, ops.PlugIn) else None
    [words] = repair.plug_in(host("c2"), fake.context())
    assert "was taken out of bridge cni0: cannot do it" in words and "plugged in again" not in words


def test_another_interface_with_the_alias_of_a_port_is_left_alone() -> None:
    fake = node()
    links = fake.kernel.spaces[HOST].links
    links["other0"] = replace(links[host("c2")], name="other0", master="")
    before = state(fake)
    assert [*repair.plug_in("other0", fake.context())] == [] and state(fake) == before


@pytest.mark.parametrize("damage", [
    pytest.param(lambda _: None, id="it is in its bridge"), pytest.param(unplug("c2", "up0"), id="in another one"),
    pytest.param(lambda fake: fake.kernel.delete(HOST, host("c2")), id="it has ended"),
    pytest.param(lambda fake: (unplug("c2")(fake), change(host("c2"), alias="")(fake)), id="a stranger's"),
    pytest.param(lambda fake: (unplug("c2")(fake), fake.kernel.delete(HOST, "cni0")), id="its bridge is gone"),
    pytest.param(lambda fake: (unplug("c2")(fake), fake.stores.clear()), id="no record"),
])
def test_another_port_that_has_left_its_bridge_is_left_alone(damage: Callable[[FakeContext], object]) -> None:
    fake = node()
    damage(fake)
    before = state(fake)
    assert [*repair.plug_in(host("c2"), fake.context())] == [] and state(fake) == before


def test_what_the_store_has_no_record_of(capsys: Capture) -> None:
    fake = node()
    for name in ("d1", "d2"):
        fake.add(name, PLAIN)
    del fake.stores["plain", DATA_DIR]
    words = [f"plain/{name}/eth0: the store has no record of it (STATUS or the next ADD of the network makes it anew)"
             for name in ("d1", "d2")]
    for arguments, checked_networks in (((), "2 networks"), (("plain",), "1 network"), (("--repair",), "2 networks")):
        checked = Checked(fake, capsys, *arguments)
        assert (checked.status, checked.lines) == (1, [*words, f"2 differences on {checked_networks}"])
    assert Checked(fake, capsys, "pods").lines == ["nothing differs on 1 network"]
    [*_, found] = json.loads(Checked(fake, capsys, "--json").out)
    assert (found["network"], found["dataDir"], len(found["left"])) == ("plain", "", 2)


def test_what_cannot_be_mended_keeps_the_rest_from_nothing(capsys: Capture) -> None:
    fake = node()
    lose_bridge(fake)
    refused = CniError(errors.KERNEL_REFUSED, "cannot do it", "Operation not permitted")
    fake.kernel.fail = lambda op: refused if isinstance(op, ops.PlugIn) and op.ifname == host("c2") else None
    checked = Checked(fake, capsys, "--repair")
    assert checked.status == 1
    assert "pods: not done: cannot do it" in checked.out
    still = [line for line in checked.lines if "still" in line]
    assert still == [f"pods/c2/eth0: still: host interface {host('c2')} is in no bridge, not in cni0"]
    assert checked.lines[-1] == "1 difference on 1 network"


def test_a_vlan_with_its_gateway(capsys: Capture) -> None:
    """The gateway's interface is a port of the bridge itself."""
    wanted = CONFIG | {"vlan": 5, "vlanTrunk": [{"minID": 7, "maxID": 9}], "preserveDefaultVlan": False}
    fake = node(wanted)
    before = state(fake)
    lose_bridge(fake)
    assert "of gateway interface cni0.5 is not in cni0" in Checked(fake, capsys).out
    assert Checked(fake, capsys, "--repair").status == 0
    assert state(fake) == before
    fake.kernel.vlans[host("c1")] = {1: True}
    assert f"port {host('c1')} is not in its VLANs" in Checked(fake, capsys).out
    assert Checked(fake, capsys, "--repair").status == 0
    assert state(fake) == before
    change("cni0.5", up=False)(fake)
    assert "gateway interface cni0.5 is down" in Checked(fake, capsys).out
    assert Checked(fake, capsys, "--repair").status == 0
    fake.kernel.delete(HOST, "cni0.5")
    assert "gateway interface cni0.5 is missing" in Checked(fake, capsys).out
    assert Checked(fake, capsys, "--repair").status == 0
    assert fake.kernel.spaces[HOST].links["cni0.5"] == before[0][HOST].links["cni0.5"]


def test_layer_2_alone(capsys: Capture) -> None:
    fake = node(LAYER_2 | {"promiscMode": True, "guard": False})
    before = state(fake)
    lose_bridge(fake)
    assert Checked(fake, capsys, "--repair").status == 0
    assert state(fake) == before


def test_the_bridge_is_something_else_by_now(capsys: Capture) -> None:
    fake = node()
    lose_bridge(fake)
    fake.kernel.add_link(HOST, Link("cni0", "02:00:00:00:00:01", 1500, kind="dummy"))
    checked = Checked(fake, capsys, "--repair")
    assert checked.status == 1 and "pods: cni0 is no bridge" in checked.out


def test_containers_that_are_gone_and_those_of_another_node(capsys: Capture) -> None:
    fake = node()
    fake.kernel.delete(HOST, host("c1"))
    links = fake.kernel.spaces[HOST].links
    links["renamed"] = replace(links.pop(host("c2")), name="renamed")
    with fake.leases().transaction() as leases:
        [record] = [each for each in leases.attachments() if each.owner.container_id == "c3"]
        leases.update(replace(record, home=(1, 1)))
    fake.kernel.delete(HOST, host("c3"))
    checked = Checked(fake, capsys, "--repair")
    assert checked.status == 1
    assert [line for line in checked.lines if "not on the node" in line][0].startswith("pods/c1/eth0: host interface")
    assert checked.lines[-1] == "1 difference on 1 network"


def older(fake: FakeContext) -> None:
    """Records of a version that wrote no port."""
    with fake.leases().transaction() as leases:
        for record in list(leases.attachments()):
            leases.update(replace(record, port=None))


@pytest.mark.parametrize("keys", [{"ingress": "isolated"}, {"vlan": 5}], ids=["bridge", "vlan"])
def test_records_without_a_port(keys: dict[str, Any], capsys: Capture) -> None:
    fake = node(CONFIG | keys)
    before = state(fake)
    older(fake)
    assert Checked(fake, capsys).status == 0
    lose_bridge(fake)
    assert Checked(fake, capsys, "--repair").status == 0
    assert state(fake) == before


def test_records_without_a_port_on_layer_2(capsys: Capture) -> None:
    fake = node(LAYER_2 | {"guard": False})
    older(fake)
    assert Checked(fake, capsys).status == 0
    lose_bridge(fake)
    assert "it is not known which bridge" in Checked(fake, capsys, "--repair").out


def test_tables_that_are_gone_are_loaded_first(capsys: Capture) -> None:
    fake = node()
    before = state(fake)
    fake.kernel.firewall.unload()
    assert "the firewall's tables are not as they were loaded" in Checked(fake, capsys).out
    fake.kernel.fail = lambda op: CniError(11, "cannot run nft") if isinstance(op, ops.LoadRuleset) else None
    checked = Checked(fake, capsys, "--repair")
    assert checked.status == 1 and "cannot be loaded: cannot run nft" in checked.out
    fake.kernel.fail = lambda _: None
    checked = Checked(fake, capsys, "--repair")
    assert checked.status == 0 and checked.lines[0] == "loaded the firewall's tables, with 3 attachments"
    assert state(fake) == before


def test_json(capsys: Capture) -> None:
    fake = node()
    fake.add("c1", PLAIN, CNI_IFNAME="net1")
    unplug("c2")(fake)
    differs = {"containerID": "c2", "ifname": "eth0",
               "differs": f"host interface {host('c2')} is in no bridge, not in cni0"}
    [pods] = json.loads(Checked(fake, capsys, "pods", "--json").out)
    assert pods["network"] == "pods" and pods["differences"] == pods["left"] == [differs] and pods["plan"] == []
    checked = Checked(fake, capsys, "--json", "--repair")
    plain, pods = json.loads(checked.out)
    assert checked.status == 0 and plain["network"] == "plain" and plain["differences"] == plain["plan"] == []
    assert pods["differences"] == [differs] and pods["left"] == pods["errors"] == []
    assert pods["plan"][0] == f"plug {host('c2')} into bridge cni0"
    lose_bridge(fake)
    fake.kernel.firewall.unload()
    first, _ = json.loads(Checked(fake, capsys, "--json", "--repair").out)
    assert first["firewall"].startswith("loaded") and {"differs": "bridge cni0 is missing"} in first["differences"]


def test_a_network_that_is_not_there(capsys: Capture) -> None:
    with pytest.raises(CniError, match="no attachment of network absent"):
        Checked(node(), capsys, "absent")


def test_a_record_is_all_that_is_needed() -> None:
    """Of the configuration nothing is left: another one of the same name comes after it."""
    fake = node(CONFIG | {"hairpinMode": True, "portIsolation": True})
    lose_bridge(fake)
    fake.add("late", CONFIG)
    flags = {record.owner.container_id: _flags(fake, record) for record in fake.attachments()}
    assert flags == {**dict.fromkeys(NAMES, (True, True)), "late": (False, False)}


def _flags(fake: FakeContext, record: Attachment) -> tuple[bool, bool]:
    link = fake.kernel.spaces[HOST].links[record.host]
    return link.hairpin, link.isolated
