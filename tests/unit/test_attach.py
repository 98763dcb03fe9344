"""Attachments and the firewall, through the plugin, on a node of fakes: in, out, and all of it made anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.attachments import firewall_reload, repair
from cni_v6.errors import CniError
from cni_v6.firewall import ruleset
from cni_v6.firewall.sets import Element
from cni_v6.kernel import ops
from cni_v6.kernel.fake.kernel import FakeKernel
from cni_v6.kernel.ops import HOST
from cni_v6.leases.attachment import Attachment
from cni_v6.plan.health import network as judge
from cni_v6.plan.health.finding import REPAIR
from tests.unit.fake_context import CONFIG, FOREIGN, LAYER_2, FakeContext, gc, plugin

OPEN: dict[str, Any] = CONFIG | {"ingress": "open", "guard": False}
HERE = {"runtimeConfig": {"portMappings": [{"hostPort": 53, "containerPort": 5353, "protocol": "udp"}]}}
PUBLISHING: dict[str, Any] = CONFIG | {"capabilities": {"portMappings": True}} | HERE
DHCP = plugin(ADD={"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.5/24", "gateway": "10.9.0.1"}]})


def sets(fake: FakeContext) -> set[str]:
    return {each.set for each in fake.kernel.firewall.elements()}


def keys(fake: FakeContext, name: str) -> list[tuple[str, ...]]:
    """Without the interface."""
    return sorted(each.key[:1] for each in fake.kernel.firewall.elements() if each.set == name)


def test_what_needs_no_firewall_gets_none() -> None:
    fake = FakeContext()
    fake.add("c1", OPEN)
    assert fake.kernel.firewall.mark == ""
    assert fake.attachments()[0].policy is None
    fake.call("DEL", "c1", OPEN).ok()
    assert not any(isinstance(each, ops.RemoveElements) for each in fake.kernel.applied)


def test_the_tables_are_loaded_once() -> None:
    fake = FakeContext()
    for name in ("c1", "c2"):
        fake.add(name)
    assert [type(each) for each in fake.kernel.applied].count(ops.LoadRuleset) == 1
    assert keys(fake, "published4") == [("10.1.0.2",), ("10.1.0.3",)]


@pytest.mark.parametrize("mark", ["", "cni-v6 another"])
def test_tables_that_are_gone_or_another_versions_come_back_with_all_attachments(mark: str) -> None:
    fake = FakeContext()
    fake.add("c1")
    fake.add("c2", CONFIG | {"name": "others", "bridge": "cni1", "ipam": {
        "type": "cni-v6-ipam", "ranges": [[{"subnet": "10.2.0.0/24"}]], "dataDir": "/elsewhere"}})
    before = set(fake.kernel.firewall.elements())
    fake.kernel.firewall.unload()
    fake.kernel.firewall.mark = mark
    fake.add("c3", CONFIG)
    assert fake.kernel.firewall.mark == ruleset.mark()
    assert before < set(fake.kernel.firewall.elements())
    assert ("10.2.0.2",) in keys(fake, "published4")  # though its leases are in another folder
    assert firewall_reload.reload(fake.context()) == 3


def test_a_port_that_the_container_publishes_already_stays_where_it_is() -> None:
    """On another network, as Multus hands a pod's ports to each; a port of another container is taken."""
    more = {"hostPort": 54, "containerPort": 54, "protocol": "udp", "hostIP": "192.0.2.7"}
    second = CONFIG | {"name": "others", "bridge": "cni1", "ipam": {
        "type": "cni-v6-ipam", "ranges": [[{"subnet": "10.2.0.0/24"}], [{"subnet": "fd42:2::/64"}]],
    }, "runtimeConfig": {"portMappings": [*HERE["runtimeConfig"]["portMappings"], more]}}
    first = PUBLISHING | {"ipam": {"type": "cni-v6-ipam", "ranges": [[{"subnet": "10.1.0.0/24"}]]}}
    fake = FakeContext()
    fake.add("c1", first)
    before = set(fake.kernel.firewall.elements())
    answer = fake.call("ADD", "c1", second, CNI_IFNAME="net1")
    result = answer.ok()
    assert "warning: port udp/53 is left out: interface eth0 of this container publishes it already (network pods)" in (
        answer.stderr)
    [record] = fake.attachments("others")
    assert record.policy and [(port.host_port, port.host_ip) for port in record.policy.ports] == [
        (53, "::"), (54, "192.0.2.7"),
    ]
    fake.call("CHECK", "c1", second | {"prevResult": result}, CNI_IFNAME="net1").ok()
    fake.container("c2")
    fake.call("ADD", "c2", second).error(errors.PORT_TAKEN)
    fake.call("DEL", "c1", second, CNI_IFNAME="net1").ok()
    assert set(fake.kernel.firewall.elements()) == before


def test_the_route_of_loopback() -> None:
    """It ends when ``lo`` goes down, and CHECK of a container that publishes there says so, of no other one. While
    ``lo`` is down nobody calls from there. The next ADD that needs it adds it, and so does a repair."""
    other = PUBLISHING | {"runtimeConfig": {"portMappings": [{"hostPort": 54, "containerPort": 54, "protocol": "udp"}]}}
    fake = FakeContext()
    result, plain = fake.add("c1", PUBLISHING), fake.add("c2")
    check = PUBLISHING | {"prevResult": result}
    fake.call("CHECK", "c1", check).ok()
    firewall = fake.kernel.firewall
    firewall.is_routed = False
    said = fake.call("CHECK", "c1", check).error(errors.CHECK_FAILED)
    assert said.count("no published port answers at ::1") == 1 and "cni-v6ctl reload" in said
    fake.call("CHECK", "c2", CONFIG | {"prevResult": plain}).ok()
    lo = fake.kernel.spaces[HOST].links["lo"]
    fake.kernel.spaces[HOST].links["lo"] = replace(lo, up=False)
    fake.call("CHECK", "c1", check).ok()
    fake.kernel.spaces[HOST].links["lo"] = lo
    routed = [fake.add(name, config) and firewall.is_routed for name, config in (("c3", CONFIG), ("c4", other))]
    assert routed == [False, True]
    firewall.is_routed = False
    with fake.leases().transaction() as leases:
        found = repair.look(leases, fake.context())
        assert found.steps == [(ops.RouteLoopback(),)]
        assert len(found.differences) == 2
        assert judge.by_check("pods", found).fix == REPAIR
        assert repair.mend(found, fake.context()) == []
    assert firewall.is_routed
    fake.call("CHECK", "c1", check).ok()


class WithoutNft(FakeKernel):
    """The tables cannot be loaded."""

    def apply(self, operations: Iterable[ops.Op]) -> Mapping[ops.Op, ops.Op | None]:
        steps = list(operations)
        if any(isinstance(step, ops.LoadRuleset) for step in steps):
            raise CniError(errors.FIREWALL_MISSING, "cannot run nft", "install nftables")
        return super().apply(steps)


def test_status_loads_tables_that_are_gone_and_says_so_once() -> None:
    fake = FakeContext()
    fake.add("c1")
    fake.kernel.firewall.unload()
    assert "tables are gone or changed: loaded again, with 1" in fake.call("STATUS").error(errors.LIMITED)
    assert fake.kernel.firewall.mark == ruleset.mark()
    fake.call("STATUS").ok()


def test_after_an_upgrade_status_loads_the_rules_of_its_version() -> None:
    """Those of the other version guarded the containers until now: nobody was cut off or open."""
    fake = FakeContext()
    fake.add("c1")
    held = fake.kernel.firewall.elements()
    fake.kernel.firewall.mark = "cni-v6 0123456789abcdef"
    answer = fake.call("STATUS")
    answer.ok()
    assert "loaded the firewall's tables of this version, with 1 attachment" in answer.stderr
    assert (fake.kernel.firewall.mark, fake.kernel.firewall.elements()) == (ruleset.mark(), held)


def test_after_an_upgrade_check_loads_the_rules_of_its_version_too() -> None:
    """Tables that are gone are still a difference."""
    fake = FakeContext()
    fake.add("c1")
    config = CONFIG | {"prevResult": fake.add("c2")}
    for _ in range(2):
        fake.kernel.firewall.mark = "cni-v6 0123456789abcdef"
        answer = fake.call("CHECK", "c2", config)
        answer.ok()
        assert "loaded the firewall's tables of this version, with 2 attachments" in answer.stderr
        assert fake.kernel.firewall.mark == ruleset.mark()
    fake.kernel.firewall.unload()
    assert "not as they were loaded" in fake.call("CHECK", "c2", config).error(errors.CHECK_FAILED)


def test_tables_that_cannot_be_loaded_fail_no_other_call() -> None:
    fake = FakeContext(kernel=WithoutNft())
    fake.kernel.firewall.load(())
    fake.add("c1")
    fake.add("c2")
    fake.kernel.firewall.unload()
    assert "cannot be loaded: cannot run nft" in fake.call("STATUS").error(errors.LIMITED)
    removed = fake.call("DEL", "c1")
    assert removed.code == 0 and "cannot be loaded" in removed.stderr


def test_an_attachment_of_an_earlier_boot_is_left_out() -> None:
    fake = FakeContext()
    fake.add("c1")
    with fake.leases().transaction() as leases:
        [record] = leases.attachments()
        leases.update(replace(record, boot="before"))
    assert firewall_reload.reload(fake.context()) == 0
    assert fake.kernel.firewall.elements() == ()


def test_a_port_that_is_taken_names_its_owner_and_costs_nothing() -> None:
    fake = FakeContext()
    fake.add("c1", PUBLISHING)
    before = fake.state()
    fake.container("c2")
    words = fake.call("ADD", "c2", PUBLISHING).error(errors.PORT_TAKEN)
    assert "53" in words and "pods c1/eth0" in words
    assert fake.state()[1:] == before[1:]
    fake.call("DEL", "c1", PUBLISHING).ok()
    fake.add("c2", PUBLISHING)


def test_udp_flows_are_forgotten_both_ways() -> None:
    fake = FakeContext()
    fake.add("c1", PUBLISHING)
    fake.call("DEL", "c1").ok()
    flushed = fake.kernel.firewall.flushed
    assert flushed == [ops.FlushFlows((), ((4, 53), (6, 53)))] * 2


def test_udp_flows_of_an_address_are_forgotten_where_they_are_translated_and_it_is_given_out_again() -> None:
    fake = FakeContext()
    for config, expected in (
        (CONFIG | {"ipMasq": True}, [ops.FlushFlows(("10.1.0.2",), ())]),  # the other one is of a /64
        (CONFIG, []),
    ):
        fake.kernel.firewall.flushed.clear()
        fake.add("c1", config)
        fake.call("DEL", "c1").ok()
        assert fake.kernel.firewall.flushed == expected


def test_udp_flows_of_an_address_that_is_asked_for_are_forgotten_at_add_already() -> None:
    """It may have been another's before, translated or not, and one that is given out once."""
    fake = FakeContext()
    asked = CONFIG | {"args": {"cni": {"ips": ["2001:db8:1::9", "10.1.0.9"]}}}
    both = ops.FlushFlows(("2001:db8:1::9", "10.1.0.9"))
    for config, expected in ((asked | {"ipMasq": True}, [both, ops.FlushFlows(("10.1.0.9",))]), (asked, [both])):
        fake.kernel.firewall.flushed.clear()
        fake.add("c1", config)
        fake.call("DEL", "c1").ok()
        assert fake.kernel.firewall.flushed == expected


def test_of_a_port_of_one_family_only_that_is_forgotten() -> None:
    mappings = [{"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.1"},
                {"hostPort": 80, "containerPort": 80, "protocol": "tcp"}]
    fake = FakeContext()
    fake.add("c1", PUBLISHING | {"runtimeConfig": {"portMappings": mappings}})
    assert fake.kernel.firewall.flushed[-1].ports == ((4, 53),)


def test_another_plugins_addresses_are_let_in_once_they_are_known() -> None:
    fake = FakeContext(plugins={"dhcp": DHCP})
    fake.add("c1", FOREIGN)
    assert keys(fake, "published4") == [("10.9.0.5",)]
    assert fake.attachments()[0].policy is not None
    fake.call("DEL", "c1", FOREIGN).ok()
    assert fake.kernel.firewall.elements() == ()


def test_layer_2_is_guarded_as_far_as_its_addresses_go() -> None:
    fake = FakeContext()
    fake.add("c1", LAYER_2)
    assert sets(fake) == {"bound", "macs", "guarded"}
    fake.call("DEL", "c1", LAYER_2).ok()
    assert fake.kernel.firewall.elements() == ()


def test_gc_takes_the_elements_of_what_it_removes() -> None:
    fake = FakeContext()
    for name in ("c1", "c2"):
        fake.add(name)
    fake.now += 1
    fake.call("GC", config=gc("c2")).ok()
    assert keys(fake, "published4") == [("10.1.0.3",)]


def test_elements_that_cannot_be_removed_keep_the_lease() -> None:
    """A DEL that is tried again finds what there is to remove."""
    fake = FakeContext()
    fake.add("c1")
    fake.kernel.fail = lambda op: REFUSED if isinstance(op, ops.RemoveElements) else None
    fake.call("DEL", "c1").error(errors.KERNEL_REFUSED)
    assert len(fake.attachments()) == 1
    fake.kernel.fail = lambda _: None
    fake.call("DEL", "c1").ok()
    assert (fake.attachments(), fake.kernel.firewall.elements()) == ([], ())


REFUSED = CniError(errors.KERNEL_REFUSED, "cannot do it")


def test_addresses_that_another_plugin_gave_to_somebody_else_stay_theirs() -> None:
    """The reference plugin's DEL frees a lease of ours, its ADD gives it to the next one."""
    fake = FakeContext()
    fake.add("c1", CONFIG | {"ipMasq": True})
    store = fake.leases()
    with store.transaction() as leases:
        [record] = leases.attachments()
        leases.drop(record.owner)
        leases.put(replace(record, owner=replace(record.owner, container_id="c2")))
        leases.put(replace(record, addresses=(), reuse=()))
    fake.call("DEL", "c1").ok()
    assert keys(fake, "published4") == keys(fake, "masquerade4") == [("10.1.0.2",)]
    assert sets(fake).isdisjoint({"bound", "macs", "pinned"})
    fake.call("DEL", "c2").ok()
    assert fake.kernel.firewall.elements() == ()


def test_what_is_nobody_elses_goes_though_the_address_went() -> None:
    """Its bridge port, and its ports of the node: the next holder of the address has others."""
    fake = FakeContext()
    fake.add("c1", PUBLISHING | {"ipMasq": True})
    with fake.leases().transaction() as leases:
        [record] = leases.attachments()
        leases.drop(record.owner)
        leases.put(Attachment(replace(record.owner, container_id="host-local's"), record.addresses))
        leases.put(replace(record, addresses=(), reuse=()))
    fake.call("DEL", "c1").ok()
    left = ("home", "containers", "published", "masquerade")
    assert sets(fake) == {f"{name}{version}" for name in left for version in (4, 6)}


def test_gc_says_removed_of_what_is() -> None:
    fake = FakeContext()
    fake.add("c1")
    fake.now += 1
    fake.kernel.fail = lambda op: REFUSED if isinstance(op, ops.RemoveElements) else None
    answer = fake.call("GC", config=gc())
    answer.error(errors.KERNEL_REFUSED)
    assert "removed" not in answer.stderr and len(fake.attachments()) == 1
    fake.kernel.fail = lambda _: None
    assert "removed pods/c1/eth0" in fake.call("GC", config=gc()).stderr


def test_a_bug_while_it_is_let_in_leaves_no_lease() -> None:
    fake = FakeContext()
    fake.container("c1")
    fake.kernel.fail = lambda op: ZeroDivisionError("oh") if isinstance(op, ops.AddElements) else None
    fake.call("ADD", "c1").error(errors.INTERNAL)
    assert fake.attachments() == []


def test_check_names_what_is_missing() -> None:
    fake = FakeContext()
    result = fake.add("c1")
    checked = CONFIG | {"prevResult": result}
    fake.call("CHECK", "c1", checked).ok()
    lost = [each for each in fake.kernel.firewall.elements() if each.set == "published6"]
    fake.kernel.firewall.remove(tuple(lost))
    assert "2001:db8:1::2 . cni0 is missing in inet published6" in fake.call("CHECK", "c1", checked).error(
        errors.CHECK_FAILED)
    fake.kernel.firewall.unload()
    assert "tables are not as they were loaded" in fake.call("CHECK", "c1", checked).error(errors.CHECK_FAILED)


def test_a_pod_without_the_key_is_told_that_it_is_closed() -> None:
    fake = FakeContext()
    fake.container("c1")
    args = "IgnoreUnknown=1;K8S_POD_NAME=web;K8S_POD_NAMESPACE=default"
    assert 'write "ingress": "open"' in fake.call("ADD", "c1", CNI_ARGS=args).stderr
    fake.container("c2")
    assert "ingress" not in fake.call("ADD", "c2", CONFIG | {"ingress": "published"}, CNI_ARGS=args).stderr


def test_tables_are_taken_away_where_nobody_counts_on_them() -> None:
    fake = FakeContext()
    fake.add("c1")
    with pytest.raises(CniError, match="1 attachment counts on the firewall's tables, such as pods/c1/eth0"):
        firewall_reload.unload(fake.context(), force=False)
    assert firewall_reload.unload(fake.context(), force=True) == 1
    assert fake.kernel.firewall.mark == ""
    fake.call("DEL", "c1").ok()
    assert firewall_reload.unload(fake.context(), force=False) == 0


def test_an_element_is_one_attachments() -> None:
    fake = FakeContext()
    for name in ("c1", "c2"):
        fake.add(name)
    before: tuple[Element, ...] = fake.kernel.firewall.elements()
    fake.call("DEL", "c1").ok()
    left = fake.kernel.firewall.elements()
    assert set(left) < set(before) and len(left) * 2 == len(before)
