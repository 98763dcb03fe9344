"""Attachments and the firewall, through the plugin, on a node of fakes: in, out, and all of it made anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.attachments import firewall_reload
from cni_v6.errors import CniError
from cni_v6.firewall import ruleset
from cni_v6.firewall.sets import Element
from cni_v6.kernel import ops
from cni_v6.leases.attachment import Attachment
from tests.unit.harness import CONFIG, FOREIGN, LAYER_2, World, gc, plugin

OPEN: dict[str, Any] = CONFIG | {"ingress": "open", "guard": False}
HERE = {"runtimeConfig": {"portMappings": [{"hostPort": 53, "containerPort": 5353, "protocol": "udp"}]}}
PUBLISHING: dict[str, Any] = CONFIG | {"capabilities": {"portMappings": True}} | HERE
DHCP = plugin(ADD={"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.5/24", "gateway": "10.9.0.1"}]})


def sets(world: World) -> set[str]:
    return {each.set for each in world.kernel.firewall.elements()}


def keys(world: World, name: str) -> list[tuple[str, ...]]:
    """Without the interface."""
    return sorted(each.key[:1] for each in world.kernel.firewall.elements() if each.set == name)


def test_what_needs_no_firewall_gets_none() -> None:
    world = World()
    world.add("c1", OPEN)
    assert world.kernel.firewall.mark == ""
    assert world.attachments()[0].policy is None
    world.call("DEL", "c1", OPEN).ok()
    assert not any(isinstance(each, ops.RemoveElements) for each in world.kernel.applied)


def test_the_tables_are_loaded_once() -> None:
    world = World()
    for name in ("c1", "c2"):
        world.add(name)
    assert [type(each) for each in world.kernel.applied].count(ops.LoadRuleset) == 1
    assert keys(world, "published4") == [("10.1.0.2",), ("10.1.0.3",)]


@pytest.mark.parametrize("mark", ["", "cni-v6 another"])
def test_tables_that_are_gone_or_another_versions_come_back_with_all_attachments(mark: str) -> None:
    world = World()
    world.add("c1")
    world.add("c2", CONFIG | {"name": "others", "bridge": "cni1", "ipam": {
        "type": "cni-v6-ipam", "ranges": [[{"subnet": "10.2.0.0/24"}]], "dataDir": "/elsewhere"}})
    before = set(world.kernel.firewall.elements())
    world.kernel.firewall.unload()
    world.kernel.firewall.mark = mark
    world.add("c3", CONFIG)
    assert world.kernel.firewall.mark == ruleset.mark()
    assert before < set(world.kernel.firewall.elements())
    assert ("10.2.0.2",) in keys(world, "published4")  # though its leases are in another folder
    assert firewall_reload.reload(world.node()) == 3


def test_an_attachment_of_an_earlier_boot_is_left_out() -> None:
    world = World()
    world.add("c1")
    with world.leases().transaction() as leases:
        [record] = leases.attachments()
        leases.update(replace(record, boot="before"))
    assert firewall_reload.reload(world.node()) == 0
    assert world.kernel.firewall.elements() == ()


def test_a_port_that_is_taken_names_its_owner_and_costs_nothing() -> None:
    world = World()
    world.add("c1", PUBLISHING)
    before = world.state()
    world.container("c2")
    words = world.call("ADD", "c2", PUBLISHING).error(errors.PORT_TAKEN)
    assert "53" in words and "pods c1/eth0" in words
    assert world.state()[1:] == before[1:]
    world.call("DEL", "c1", PUBLISHING).ok()
    world.add("c2", PUBLISHING)


def test_udp_flows_are_forgotten_both_ways() -> None:
    world = World()
    world.add("c1", PUBLISHING)
    world.call("DEL", "c1").ok()
    flushed = world.kernel.firewall.flushed
    assert flushed == [ops.FlushFlows((), ((4, 53), (6, 53)))] * 2


def test_udp_flows_of_an_address_are_forgotten_where_they_are_translated_and_it_is_given_out_again() -> None:
    world = World()
    for config, expected in (
        (CONFIG | {"ipMasq": True}, [ops.FlushFlows(("10.1.0.2",), ())]),  # the other one is of a /64
        (CONFIG, []),
    ):
        world.kernel.firewall.flushed.clear()
        world.add("c1", config)
        world.call("DEL", "c1").ok()
        assert world.kernel.firewall.flushed == expected


def test_udp_flows_of_an_address_that_is_asked_for_are_forgotten_at_add_already() -> None:
    """It may have been another's before, translated or not, and one that is given out once."""
    world = World()
    asked = CONFIG | {"args": {"cni": {"ips": ["2001:db8:1::9", "10.1.0.9"]}}}
    both = ops.FlushFlows(("2001:db8:1::9", "10.1.0.9"))
    for config, expected in ((asked | {"ipMasq": True}, [both, ops.FlushFlows(("10.1.0.9",))]), (asked, [both])):
        world.kernel.firewall.flushed.clear()
        world.add("c1", config)
        world.call("DEL", "c1").ok()
        assert world.kernel.firewall.flushed == expected


def test_of_a_port_of_one_family_only_that_is_forgotten() -> None:
    mappings = [{"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.1"},
                {"hostPort": 80, "containerPort": 80, "protocol": "tcp"}]
    world = World()
    world.add("c1", PUBLISHING | {"runtimeConfig": {"portMappings": mappings}})
    assert world.kernel.firewall.flushed[-1].ports == ((4, 53),)


def test_another_plugins_addresses_are_let_in_once_they_are_known() -> None:
    world = World(plugins={"dhcp": DHCP})
    world.add("c1", FOREIGN)
    assert keys(world, "published4") == [("10.9.0.5",)]
    assert world.attachments()[0].policy is not None
    world.call("DEL", "c1", FOREIGN).ok()
    assert world.kernel.firewall.elements() == ()


def test_layer_2_is_guarded_as_far_as_its_addresses_go() -> None:
    world = World()
    world.add("c1", LAYER_2)
    assert sets(world) == {"bound", "macs", "guarded"}
    world.call("DEL", "c1", LAYER_2).ok()
    assert world.kernel.firewall.elements() == ()


def test_gc_takes_the_elements_of_what_it_removes() -> None:
    world = World()
    for name in ("c1", "c2"):
        world.add(name)
    world.now += 1
    world.call("GC", config=gc("c2")).ok()
    assert keys(world, "published4") == [("10.1.0.3",)]


def test_elements_that_cannot_be_removed_keep_the_lease() -> None:
    """A DEL that is tried again finds what there is to remove."""
    world = World()
    world.add("c1")
    world.kernel.fail = lambda op: REFUSED if isinstance(op, ops.RemoveElements) else None
    world.call("DEL", "c1").error(errors.KERNEL_REFUSED)
    assert len(world.attachments()) == 1
    world.kernel.fail = lambda _: None
    world.call("DEL", "c1").ok()
    assert (world.attachments(), world.kernel.firewall.elements()) == ([], ())


REFUSED = CniError(errors.KERNEL_REFUSED, "cannot do it")


def test_addresses_that_another_plugin_gave_to_somebody_else_stay_theirs() -> None:
    """The reference plugin's DEL frees a lease of ours, its ADD gives it to the next one."""
    world = World()
    world.add("c1", CONFIG | {"ipMasq": True})
    store = world.leases()
    with store.transaction() as leases:
        [record] = leases.attachments()
        leases.drop(record.owner)
        leases.put(replace(record, owner=replace(record.owner, container_id="c2")))
        leases.put(replace(record, addresses=(), reuse=()))
    world.call("DEL", "c1").ok()
    assert keys(world, "published4") == keys(world, "masquerade4") == [("10.1.0.2",)]
    assert sets(world).isdisjoint({"bound", "macs", "pinned"})
    world.call("DEL", "c2").ok()
    assert world.kernel.firewall.elements() == ()


def test_what_is_nobody_elses_goes_though_the_address_went() -> None:
    """Its bridge port, and its ports of the node: the next holder of the address has others."""
    world = World()
    world.add("c1", PUBLISHING | {"ipMasq": True})
    with world.leases().transaction() as leases:
        [record] = leases.attachments()
        leases.drop(record.owner)
        leases.put(Attachment(replace(record.owner, container_id="host-local's"), record.addresses))
        leases.put(replace(record, addresses=(), reuse=()))
    world.call("DEL", "c1").ok()
    left = ("home", "containers", "published", "masquerade")
    assert sets(world) == {f"{name}{version}" for name in left for version in (4, 6)}


def test_gc_says_removed_of_what_is() -> None:
    world = World()
    world.add("c1")
    world.now += 1
    world.kernel.fail = lambda op: REFUSED if isinstance(op, ops.RemoveElements) else None
    answer = world.call("GC", config=gc())
    answer.error(errors.KERNEL_REFUSED)
    assert "removed" not in answer.stderr and len(world.attachments()) == 1
    world.kernel.fail = lambda _: None
    assert "removed pods/c1/eth0" in world.call("GC", config=gc()).stderr


def test_a_bug_while_it_is_let_in_leaves_no_lease() -> None:
    world = World()
    world.container("c1")
    world.kernel.fail = lambda op: ZeroDivisionError("oh") if isinstance(op, ops.AddElements) else None
    world.call("ADD", "c1").error(errors.INTERNAL)
    assert world.attachments() == []


def test_check_names_what_is_missing() -> None:
    world = World()
    result = world.add("c1")
    checked = CONFIG | {"prevResult": result}
    world.call("CHECK", "c1", checked).ok()
    lost = [each for each in world.kernel.firewall.elements() if each.set == "published6"]
    world.kernel.firewall.remove(tuple(lost))
    assert "2001:db8:1::2 . cni0 is missing in inet published6" in world.call("CHECK", "c1", checked).error(
        errors.CHECK_FAILED)
    world.kernel.firewall.unload()
    assert "tables are not as they were loaded" in world.call("CHECK", "c1", checked).error(errors.CHECK_FAILED)


def test_a_pod_without_the_key_is_told_that_it_is_closed() -> None:
    world = World()
    world.container("c1")
    args = "IgnoreUnknown=1;K8S_POD_NAME=web;K8S_POD_NAMESPACE=default"
    assert 'write "ingress": "open"' in world.call("ADD", "c1", CNI_ARGS=args).stderr
    world.container("c2")
    assert "ingress" not in world.call("ADD", "c2", CONFIG | {"ingress": "published"}, CNI_ARGS=args).stderr


def test_tables_are_taken_away_where_nobody_counts_on_them() -> None:
    world = World()
    world.add("c1")
    with pytest.raises(CniError, match="1 attachments count on the firewall's tables, such as pods/c1/eth0"):
        firewall_reload.unload(world.node(), force=False)
    assert firewall_reload.unload(world.node(), force=True) == 1
    assert world.kernel.firewall.mark == ""
    world.call("DEL", "c1").ok()
    assert firewall_reload.unload(world.node(), force=False) == 0


def test_an_element_is_one_attachments() -> None:
    world = World()
    for name in ("c1", "c2"):
        world.add(name)
    before: tuple[Element, ...] = world.kernel.firewall.elements()
    world.call("DEL", "c1").ok()
    left = world.kernel.firewall.elements()
    assert set(left) < set(before) and len(left) * 2 == len(before)
