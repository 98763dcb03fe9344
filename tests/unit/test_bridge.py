"""The bridge plugin as a runtime calls it, on a node of fakes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.errors import CniError
from cni_v6.firewall.policy import GUARD_FULL, PUBLISHED, Policy
from cni_v6.kernel import awaits, ops
from cni_v6.kernel.facts import Link, RouteEntry
from cni_v6.kernel.fake.kernel import FakeKernel
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment, BridgePort, GatewayAddress, ProxyEntry
from cni_v6.plan.firewall import link_local
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner
from tests.unit.fake_context import BOOT, CONFIG, DATA_DIR, FOREIGN, LAYER_2, FakeContext, dhcp_server, gc, plugin

LEASE = {"address": "10.9.0.5/24", "gateway": "10.9.0.1"}
REFUSED = CniError(errors.KERNEL_REFUSED, "cannot do it", "Operation not permitted")


def port(container_id: str, ifname: str = "eth0") -> str:
    return names.host_interface(Owner("pods", container_id, ifname))


def refuse(fake: FakeContext, *kinds: type[Any]) -> None:
    """The kernel refuses operations of these kinds from now on."""
    fake.kernel.fail = lambda op: REFUSED if isinstance(op, kinds) else None


def reference(fake: FakeContext, container_id: str) -> None:
    """An attachment as the reference plugins leave it: a random host interface, leases without a record's details."""
    netns = fake.container(container_id)
    fake.kernel.apply([
        ops.CreateVeth("veth1a2b3c4d", "02:00:00:00:00:01", "cni0", netns, "eth0", "02:00:00:00:00:02", 1500),
        ops.AddAddress(netns, "eth0", "10.1.0.7/24"),
    ])
    with fake.leases().transaction() as leases:
        leases.put(Attachment(Owner("pods", container_id, "eth0"), ("10.1.0.7",)))


# ADD


def test_add() -> None:
    fake = FakeContext()
    result = fake.add("c1")
    assert [each["name"] for each in result["interfaces"]] == ["cni0", port("c1"), "eth0"]
    assert result["ips"] == [
        {"interface": 2, "address": "2001:db8:1::2/64", "gateway": "2001:db8:1::1"},
        {"interface": 2, "address": "10.1.0.2/24", "gateway": "10.1.0.1"},
    ]
    assert fake.attachments() == [
        Attachment(
            Owner("pods", "c1", "eth0"),
            ("2001:db8:1::2", "10.1.0.2"),
            host=port("c1"),
            netns=fake.kernel.netns_id("/run/netns/c1"),
            created=1000.0,
            boot=BOOT,
            home=fake.kernel.netns_id(HOST),
            policy=Policy(
                "cni0",
                port("c1"),
                result["interfaces"][2]["mac"],
                ("2001:db8:1::2", "10.1.0.2"),
                link_local(result["interfaces"][2]["mac"]),
                GUARD_FULL,
                PUBLISHED,
            ),
            anchors=(GatewayAddress("cni0", "2001:db8:1::1/64"), GatewayAddress("cni0", "10.1.0.1/24")),
            reuse=("never", "after"),
            port=BridgePort("cni0"),
        )
    ]
    inside = fake.kernel.spaces["/run/netns/c1"]
    assert inside.addresses["eth0"] == ["2001:db8:1::2/64", "10.1.0.2/24"]
    assert inside.links["eth0"].up
    assert fake.kernel.announced == []  # what neighbours may remember is right


def test_add_of_layer_2_only_is_recorded_too() -> None:
    """GC and ``cni-v6ctl list`` find it by its record."""
    fake = FakeContext()
    result = fake.add("c1", LAYER_2)
    assert "ips" not in result
    assert [(each.addresses, each.host) for each in fake.attachments()] == [((), port("c1"))]


def test_add_twice_is_refused_and_changes_nothing() -> None:
    fake = FakeContext()
    fake.add("c1")
    before = fake.state()
    assert "c1 is attached to pods already" in fake.call("ADD", "c1").error(errors.ALREADY_ATTACHED)
    assert fake.state() == before
    fake.kernel.remove([ops.DeleteLink(HOST, port("c1"))])  # the record is still there
    before = fake.state()
    assert "run DEL" in fake.call("ADD", "c1").error(errors.ALREADY_ATTACHED)
    assert fake.state() == before


def test_two_interfaces_of_one_container() -> None:
    fake = FakeContext()
    first, second = fake.add("c1"), fake.add("c1", CNI_IFNAME="net1")
    assert first["ips"][0]["address"] != second["ips"][0]["address"]
    fake.call("DEL", "c1", CNI_IFNAME="net1").ok()
    assert [each.owner.ifname for each in fake.attachments()] == ["eth0"]
    assert "eth0" in fake.kernel.spaces["/run/netns/c1"].links


def test_add_to_a_namespace_that_is_gone() -> None:
    fake = FakeContext()
    before = fake.state()
    assert "/run/netns/c1" in fake.call("ADD", "c1").error(errors.UNKNOWN_CONTAINER)
    assert fake.state() == before


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
def test_the_nodes_own_namespace_is_refused(command: str) -> None:
    fake = FakeContext()
    fake.kernel.spaces["/proc/1/ns/net"] = fake.kernel.spaces[HOST]
    previous = CONFIG | {"prevResult": {"cniVersion": "1.1.0"}}
    answer = fake.call(command, "c1", previous, CNI_NETNS="/proc/1/ns/net")
    assert "/proc/1/ns/net is the plugin's own network namespace" in answer.error(errors.INVALID_NETNS)
    assert fake.kernel.applied == []


@pytest.mark.parametrize("value", ["1", "true", "T"])
def test_the_nodes_own_namespace_where_the_runtime_insists(value: str) -> None:
    """CNI_NETNS_OVERRIDE, as skel has it: for runtimes that run the plugin inside the container's namespace."""
    fake = FakeContext()
    fake.kernel.spaces["/proc/1/ns/net"] = fake.kernel.spaces[HOST]
    fake.call("ADD", "c1", CNI_NETNS="/proc/1/ns/net", CNI_NETNS_OVERRIDE=value).ok()
    assert "eth0" in fake.kernel.spaces[HOST].links


# What fails is undone, wherever it fails


SCENARIOS: dict[str, dict[str, Any]] = {
    "dual stack": CONFIG,
    "layer 2": LAYER_2,
    "everything": CONFIG | {
        "vlan": 5, "hairpinMode": True, "portIsolation": True, "enabledad": True, "mtu": 1400,
    },
    "delegated": FOREIGN,
}


def steps_of(config: dict[str, Any], *, second: bool) -> list[Op]:
    """The operations of an ADD, of the network's first container or its second."""
    fake = prepared(config, second=second)
    fake.kernel.applied.clear()
    fake.add("c1", config)
    return fake.kernel.applied


def prepared(config: dict[str, Any], *, second: bool) -> FakeContext:
    fake = FakeContext(plugins={"dhcp": dhcp_server()})
    fake.container("c1")
    fake.kernel.spaces["/run/netns/c1"].sysctls["ipv6/conf/lo/disable_ipv6"] = "1"
    if second:
        addresses = plugin(ADD={"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.4/24", "gateway": "10.9.0.1"}]})
        fake.plugins["dhcp"] = addresses
        fake.add("c0", config)
        fake.plugins["dhcp"] = dhcp_server()
    return fake


CUTS = [
    pytest.param(name, second, number, id=f"{name}, {'second' if second else 'first'} container, step {number}")
    for name, second in itertools.product(SCENARIOS, (False, True))
    for number in range(len(steps_of(SCENARIOS[name], second=second)))
]


@pytest.mark.parametrize(("name", "second", "number"), CUTS)
def test_an_add_that_fails_leaves_nothing(name: str, second: bool, number: int) -> None:
    config = SCENARIOS[name]
    fake = prepared(config, second=second)
    before = fake.state()
    inside = before[0]["/run/netns/c1"]
    counter = itertools.count()
    fake.kernel.fail = lambda op: REFUSED if next(counter) == number else None
    assert "cannot do it" in fake.call("ADD", "c1", config).error(errors.KERNEL_REFUSED)
    fake.kernel.fail = lambda _: None
    kernel, leases, firewall = fake.state()
    assert leases == {place: [] for place in leases} | before[1]
    assert firewall == before[2]
    assert kernel["/run/netns/c1"] == inside
    if second:  # the bridge, its addresses and forwarding were there before
        assert kernel == before[0]
    else:
        assert port("c1") not in kernel[HOST].links
    begun = second or number > 0  # the firewall's tables come first
    assert fake.delegated[-2:] == [("dhcp", "ADD"), ("dhcp", "DEL")] * (name == "delegated" and begun)
    fake.add("c1", config)


def test_an_add_whose_undoing_fails_tells_both() -> None:
    fake = FakeContext()
    fake.container("c1")
    refuse(fake, awaits.AwaitPort, ops.DeleteLink)
    told = fake.call("ADD", "c1").error(errors.KERNEL_REFUSED)
    assert "cannot do it: Operation not permitted; undoing it failed too: cannot do it" in told


def test_an_add_that_does_not_fit_the_node_frees_its_addresses() -> None:
    """What only the plan can know, after the addresses: the bridge has another network's."""
    fake = FakeContext()
    fake.container("c1")
    fake.kernel.add_link(HOST, Link("cni0", "02:00:00:00:00:01", 1500, kind="bridge"))
    fake.kernel.spaces[HOST].addresses["cni0"] = ["192.0.2.1/24"]
    assert "cni0 has address 192.0.2.1/24" in fake.call("ADD", "c1").error(errors.NODE_CONFLICT)
    assert fake.attachments() == []
    assert {type(each) for each in fake.kernel.applied} == {
        ops.LoadRuleset, ops.AddElements, ops.RemoveElements
    }
    assert fake.kernel.firewall.elements() == ()


def test_a_bug_frees_the_addresses_too() -> None:
    fake = FakeContext()
    fake.container("c1")
    fake.kernel.fail = lambda op: ZeroDivisionError("oh") if isinstance(op, ops.SetAlias) else None
    answer = fake.call("ADD", "c1")
    assert "ZeroDivisionError: oh" in answer.error(errors.INTERNAL)
    assert "Traceback" in answer.stderr
    assert fake.attachments() == []
    assert port("c1") not in fake.kernel.spaces[HOST].links


# DEL


def test_del() -> None:
    fake = FakeContext()
    fake.add("c1")
    fake.kernel.applied.clear()
    for _ in range(2):
        assert fake.call("DEL", "c1").ok() is None
    first, *others = fake.kernel.applied
    assert first == ops.DeleteLink(HOST, port("c1"))
    assert [type(each) for each in others] == [ops.RemoveElements]
    assert fake.kernel.firewall.elements() == ()
    assert fake.attachments() == []


def test_del_of_what_never_was() -> None:
    fake = FakeContext()
    before = fake.state()
    assert fake.call("DEL", "c1").ok() is None
    assert fake.call("DEL", "c1", CNI_NETNS="").ok() is None
    assert fake.state()[0] == before[0]


@pytest.mark.parametrize(
    "config",
    [
        CONFIG | {"bridge": "br9", "vlan": 7},
        LAYER_2,
        CONFIG | {"isGatway": 1, "mtu": "large", "ipam": {"type": "cni-v6-ipam", "ranges": "none"}},
        CONFIG | {"prevResult": {"cniVersion": "9", "ips": 3}},
    ],
)
def test_del_needs_neither_namespace_nor_the_same_configuration(config: dict[str, Any]) -> None:
    fake = FakeContext()
    fake.add("c1")
    fake.call("DEL", "c1", config, CNI_NETNS="").ok()
    assert fake.attachments() == []
    assert port("c1") not in fake.kernel.spaces[HOST].links


def test_del_after_the_container_ended() -> None:
    fake = FakeContext()
    fake.add("c1")
    fake.kernel.remove_netns("/run/netns/c1")
    fake.call("DEL", "c1").ok()
    assert fake.attachments() == []


def test_the_interface_goes_before_its_addresses_are_free() -> None:
    fake = FakeContext()
    fake.add("c1")
    held: list[int] = []

    def look(op: Op) -> None:
        if isinstance(op, ops.DeleteLink):
            held.append(len(fake.attachments()))

    fake.kernel.fail = look
    fake.call("DEL", "c1").ok()
    assert held == [1]
    assert fake.attachments() == []


def test_addresses_stay_taken_while_their_interface_is_there() -> None:
    """Else the next container would get an address that still answers."""
    fake = FakeContext()
    fake.add("c1")
    refuse(fake, ops.DeleteLink)
    assert "cannot do it" in fake.call("DEL", "c1").error(errors.KERNEL_REFUSED)
    assert len(fake.attachments()) == 1
    fake.kernel.fail = lambda _: None
    fake.call("DEL", "c1").ok()
    assert fake.attachments() == []


def test_del_of_an_attachment_that_moved_over() -> None:
    """The reference plugin made it; now the network is ours."""
    fake = FakeContext()
    fake.add("c0")
    reference(fake, "c1")
    fake.call("DEL", "c1").ok()
    assert "veth1a2b3c4d" not in fake.kernel.spaces[HOST].links
    assert [each.owner.container_id for each in fake.attachments()] == ["c0"]


def test_del_of_an_attachment_that_moved_over_without_its_namespace() -> None:
    fake = FakeContext()
    fake.add("c0")
    reference(fake, "c1")
    fake.call("DEL", "c1", CNI_NETNS="").ok()
    assert "veth1a2b3c4d" in fake.kernel.spaces[HOST].links  # it goes with the namespace, if it has not gone by now
    fake = FakeContext()
    fake.add("c0")
    reference(fake, "c1")
    fake.kernel.remove_netns("/run/netns/c1")
    fake.call("DEL", "c1").ok()
    assert [each.owner.container_id for each in fake.attachments()] == ["c0"]


@pytest.mark.parametrize("spoil", ["address", "kind", "record", "interface"])
def test_del_leaves_an_interface_alone_that_is_not_the_networks(spoil: str) -> None:
    """Another plugin's interface of the same name: nothing says that it was made for this network."""
    fake = FakeContext()
    fake.add("c0")
    reference(fake, "c1")
    inside = fake.kernel.spaces["/run/netns/c1"]
    if spoil == "address":
        inside.addresses["eth0"] = ["192.0.2.7/24"]
    elif spoil == "kind":
        inside.links["eth0"] = replace(inside.links["eth0"], kind="macvlan")
    elif spoil == "interface":
        del inside.links["eth0"]
    else:
        with fake.leases().transaction() as leases:
            leases.drop(Owner("pods", "c1", "eth0"))
    fake.call("DEL", "c1").ok()
    assert "veth1a2b3c4d" in fake.kernel.spaces[HOST].links
    assert [each.owner.container_id for each in fake.attachments()] == ["c0"]


class Unreachable(FakeKernel):
    """A namespace that cannot be entered any more fails with ``error``."""

    error: CniError | None = None

    def observe(self, questions: Iterable[Question]) -> Snapshot:
        asked = tuple(questions)
        if self.error and any(getattr(question, "netns", HOST) != HOST for question in asked):
            raise self.error
        return super().observe(asked)


def test_del_where_the_file_of_the_namespace_is_left_over() -> None:
    """``umount`` without ``rm``: the path is a plain file, which the kernel refuses to enter."""
    kernel = Unreachable()
    fake = FakeContext(kernel)
    fake.add("c0")
    reference(fake, "c1")
    kernel.error = CniError(errors.INVALID_NETNS, "CNI_NETNS /run/netns/c1 is not a network namespace", "EINVAL")
    fake.call("DEL", "c1").ok()
    assert [each.owner.container_id for each in fake.attachments()] == ["c0"]


def test_del_tells_why_a_namespace_cannot_be_entered() -> None:
    kernel = Unreachable()
    fake = FakeContext(kernel)
    fake.add("c0")
    reference(fake, "c1")
    kernel.error = CniError(errors.IO_FAILURE, "cannot enter network namespace /run/netns/c1", "Too many open files")
    assert "cannot enter" in fake.call("DEL", "c1").error(errors.IO_FAILURE)
    assert len(fake.attachments()) == 2


# CHECK


def test_check() -> None:
    fake = FakeContext()
    result = fake.add("c1")
    assert fake.call("CHECK", "c1", CONFIG | {"prevResult": result}).ok() is None


def test_check_names_what_differs() -> None:
    fake = FakeContext()
    result = fake.add("c1")
    fake.kernel.apply([ops.SetLink("/run/netns/c1", "eth0", up=False)])
    fake.kernel.spaces[HOST].sysctls["ipv4/ip_forward"] = "0"
    told = fake.call("CHECK", "c1", CONFIG | {"prevResult": result}).error(errors.CHECK_FAILED)
    assert "pods/c1/eth0 differs" in told
    assert "interface eth0: up is False, not True; node: net/ipv4/ip_forward is 0, not 1" in told


def test_check_looks_at_the_leases() -> None:
    fake = FakeContext()
    result = fake.add("c1")
    with fake.leases().transaction() as leases:
        leases.drop(Owner("pods", "c1", "eth0"))
    told = fake.call("CHECK", "c1", CONFIG | {"prevResult": result}).error(errors.CHECK_FAILED)
    assert "2001:db8:1::2 is not leased to c1/eth0" in told


def test_check_of_layer_2() -> None:
    fake = FakeContext()
    result = fake.add("c1", LAYER_2)
    fake.call("CHECK", "c1", LAYER_2 | {"prevResult": result}).ok()


# GC


def two(config: dict[str, Any] = CONFIG) -> FakeContext:
    """Containers c1 and c2, both older than the GC to come."""
    fake = FakeContext(plugins={"dhcp": dhcp_server()})
    fake.add("c1", config)
    fake.add("c2", config)
    fake.now += 1
    return fake


def hosts(fake: FakeContext) -> set[str]:
    return {name for name in fake.kernel.spaces[HOST].links if name.startswith("veth")}


def holders(fake: FakeContext) -> list[str]:
    return [each.owner.container_id for each in fake.attachments()]


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_gc(key: str) -> None:
    fake = two()
    answer = fake.call("GC", config=gc("c2", key=key))
    assert answer.ok() is None
    assert "removed pods/c1/eth0 2001:db8:1::2 10.1.0.2" in answer.stderr
    assert (holders(fake), hosts(fake)) == (["c2"], {port("c2")})


def test_gc_of_everything() -> None:
    fake = two(LAYER_2)
    fake.call("GC", config=gc(config=LAYER_2)).ok()
    assert (holders(fake), hosts(fake)) == ([], set())


def test_gc_without_a_list_frees_nothing() -> None:
    fake = two()
    before = fake.state()
    answer = fake.call("GC")
    answer.ok()
    assert "names no cni.dev/valid-attachments" in answer.stderr
    assert fake.state() == before


def test_gc_keeps_what_is_younger_than_the_call() -> None:
    """The runtime wrote its list before the container was there."""
    fake = two()
    fake.add("c3")
    fake.call("GC", config=gc("c2")).ok()
    assert (holders(fake), hosts(fake)) == (["c2", "c3"], {port("c2"), port("c3")})


def test_gc_removes_interfaces_without_a_record_by_their_alias() -> None:
    """The store was lost, or the record's file was."""
    fake = two()
    with fake.leases().transaction() as leases:
        leases.drop(Owner("pods", "c1", "eth0"))
    fake.call("GC", config=gc("c2")).ok()
    assert hosts(fake) == {port("c2")}


@pytest.mark.parametrize("alias", ["", "uplink", "cni-v6 other/c1/eth0", "cni-v6 pods/c2/eth0"])
def test_gc_leaves_other_interfaces_alone(alias: str) -> None:
    fake = two()
    fake.kernel.add_link(HOST, Link("veth9", "02:00:00:00:00:01", 1500, kind="veth", master="cni0", alias=alias))
    fake.call("GC", config=gc("c1", "c2")).ok()
    assert "veth9" in hosts(fake)


def test_gc_without_a_list_leaves_interfaces_without_a_record_alone() -> None:
    fake = two()
    with fake.leases().transaction() as leases:
        leases.drop(Owner("pods", "c1", "eth0"))
    fake.call("GC").ok()
    assert len(hosts(fake)) == 2


def test_gc_keeps_the_addresses_of_an_interface_that_stays() -> None:
    fake = two()
    refuse(fake, ops.DeleteLink)
    assert "cannot do it" in fake.call("GC", config=gc("c2")).error(errors.KERNEL_REFUSED)
    assert holders(fake) == ["c1", "c2"]


def test_gc_keeps_a_record_that_was_made_again_meanwhile() -> None:
    """Between its two looks at the store the container was removed and added again, by the same id."""
    fake = two()
    owner = Owner("pods", "c1", "eth0")
    again = Attachment(owner, ("10.1.0.77",), host=port("c1"), created=2000.0, boot=BOOT)

    def meanwhile(op: Op) -> None:
        with fake.leases().transaction() as leases:
            leases.drop(owner)
            leases.put(again)

    fake.kernel.fail = meanwhile
    fake.call("GC", config=gc("c2")).ok()
    assert fake.attachments()[0] == again


def test_gc_of_a_lease_of_the_reference_plugin() -> None:
    """It names neither time nor host interface."""
    fake = two()
    with fake.leases().transaction() as leases:
        leases.put(Attachment(Owner("pods", "gone", "eth0"), ("10.1.0.70",)))
        leases.put(Attachment(Owner("pods", "kept", "eth0"), ("10.1.0.71",)))
    fake.call("GC", config=gc("c1", "c2", "kept")).ok()
    assert holders(fake) == ["c1", "c2", "kept"]


# STATUS


@pytest.mark.parametrize("config", [CONFIG, LAYER_2])
def test_status(config: dict[str, Any]) -> None:
    assert FakeContext().call("STATUS", config=config).ok() is None
    assert two(config).call("STATUS", config=config).ok() is None


def test_status_of_an_exhausted_set() -> None:
    small = CONFIG | {"ipam": {"type": "cni-v6-ipam", "ranges": [[{"subnet": "10.1.0.0/30"}]]}}
    fake = FakeContext()
    fake.add("c1", small)
    told = fake.call("STATUS", config=small).error(errors.NOT_AVAILABLE)
    assert "ipam.ranges[0] of pods is exhausted: no free address" in told and "1 in all, 1 taken" in told


def test_status_of_a_node_that_cut_its_containers_off() -> None:
    fake = two()
    fake.kernel.apply([ops.SetLink(HOST, "cni0", up=False)])
    assert "cni0 is down" in fake.call("STATUS").error(errors.LIMITED)


# Another plugin's addresses


def test_addresses_of_another_plugin() -> None:
    fake = FakeContext(plugins={"dhcp": dhcp_server()})
    result = fake.add("c1", FOREIGN)
    assert result["ips"] == [{"interface": 2, "address": "10.9.0.5/24", "gateway": "10.9.0.1"}]
    assert result["routes"] == [{"dst": "0.0.0.0/0"}]
    assert fake.kernel.spaces["/run/netns/c1"].addresses["eth0"] == ["10.9.0.5/24"]
    assert [(each.addresses, each.host) for each in fake.attachments()] == [((), port("c1"))]
    fake.call("CHECK", "c1", FOREIGN | {"prevResult": result}).ok()
    fake.call("DEL", "c1", FOREIGN).ok()
    assert fake.delegated == [("dhcp", "ADD"), ("dhcp", "CHECK"), ("dhcp", "DEL")]
    assert fake.attachments() == []


def test_routes_of_another_plugin_that_lead_nowhere() -> None:
    """Its address is of IPv4."""
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fd42::1"}]
    answer = {"cniVersion": "1.1.0", "ips": [LEASE], "routes": routes}
    fake = FakeContext(plugins={"dhcp": plugin(ADD=answer)})
    assert fake.add("c1", FOREIGN)["routes"] == routes[:1]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (CniError(11, "dhcp ADD: no lease yet", "try again"), 11),
        ({}, errors.IO_FAILURE),
        ({"cniVersion": "1.1.0", "ips": []}, errors.IO_FAILURE),
        ({"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.5"}]}, errors.DECODING_FAILURE),
        ({"cniVersion": "7.0.0"}, errors.DECODING_FAILURE),
    ],
)
def test_another_plugin_fails_half_way(answer: Mapping[str, Any] | CniError, code: int) -> None:
    """Its DEL is called: SPEC.md, section 4."""
    fake = FakeContext(plugins={"dhcp": plugin(ADD=answer)})
    fake.container("c1")
    before = fake.state()
    fake.call("ADD", "c1", FOREIGN).error(code)
    assert fake.delegated == [("dhcp", "ADD"), ("dhcp", "DEL")]
    assert fake.state()[0] == before[0]
    assert fake.attachments() == []


def test_why_an_add_failed_is_told_though_its_undoing_fails_too() -> None:
    fake = FakeContext()  # the plugin is not there at all
    fake.container("c1")
    answer = fake.call("ADD", "c1", FOREIGN)
    assert "plugin dhcp is not in CNI_PATH" in answer.error(errors.DELEGATE_FAILED)
    assert "warning: undoing the failed ADD: ipam.type: plugin dhcp is not in CNI_PATH" in answer.stderr
    assert fake.attachments() == []


def test_del_of_another_plugins_addresses_runs_every_step() -> None:
    fake = FakeContext(plugins={"dhcp": dhcp_server()})
    fake.add("c1", FOREIGN)
    fake.plugins["dhcp"] = plugin(DEL=CniError(5, "dhcp DEL: daemon is down"))
    assert "daemon is down" in fake.call("DEL", "c1", FOREIGN).error(5)
    assert (hosts(fake), holders(fake)) == (set(), [])
    fake = FakeContext(plugins={"dhcp": dhcp_server()})
    fake.add("c1", FOREIGN)
    refuse(fake, ops.DeleteLink)
    fake.plugins["dhcp"] = plugin(DEL=CniError(5, "dhcp DEL: daemon is down"))
    assert "2 steps failed" in fake.call("DEL", "c1", FOREIGN).error(errors.KERNEL_REFUSED)


def test_del_is_another_plugins_after_the_configuration_was_edited() -> None:
    """From our own addresses to another plugin's: both are freed."""
    fake = FakeContext(plugins={"dhcp": dhcp_server()})
    fake.add("c1")
    fake.call("DEL", "c1", FOREIGN).ok()
    assert (holders(fake), fake.delegated) == ([], [("dhcp", "DEL")])


def test_another_plugins_own_folder_is_not_ours() -> None:
    config = CONFIG | {"ipam": {"type": "dhcp", "dataDir": "/var/lib/dhcp"}}
    fake = FakeContext(plugins={"dhcp": dhcp_server()})
    fake.add("c1", config)
    fake.now += 1
    fake.call("GC", config=gc(config=config)).ok()
    assert (holders(fake), hosts(fake)) == ([], set())
    assert set(fake.stores) == {("pods", DATA_DIR)}


@pytest.mark.parametrize(
    "answer", [{}, CniError(4, "unknown CNI_COMMAND: GC"), CniError(1, "incompatible"), CniError(3, "no container id")]
)
def test_gc_of_another_plugin(answer: Mapping[str, Any] | CniError) -> None:
    fake = two(FOREIGN)
    fake.plugins["dhcp"] = plugin(GC=answer)
    fake.call("GC", config=gc("c2", config=FOREIGN)).ok()
    assert fake.delegated[-1] == ("dhcp", "GC")
    assert holders(fake) == ["c2"]


def test_gc_of_another_plugin_that_fails() -> None:
    fake = two(FOREIGN)
    fake.plugins["dhcp"] = plugin(GC=CniError(50, "dhcp GC: daemon is down"))
    assert "daemon is down" in fake.call("GC", config=gc("c2", config=FOREIGN)).error(50)
    assert holders(fake) == ["c2"]


def test_status_of_another_plugin() -> None:
    fake = FakeContext()
    assert "dhcp is not in CNI_PATH" in fake.call("STATUS", config=FOREIGN).error(errors.NOT_AVAILABLE)
    fake.plugins["dhcp"] = plugin(STATUS=CniError(51, "dhcp STATUS: daemon is down"))
    assert "daemon is down" in fake.call("STATUS", config=FOREIGN).error(errors.LIMITED)
    fake.plugins["dhcp"] = plugin(STATUS=CniError(4, "unknown CNI_COMMAND: STATUS"))
    answer = fake.call("STATUS", config=FOREIGN)
    answer.ok()
    assert "dhcp knows no STATUS" in answer.stderr


# Addresses that the node answers for

PROXIED = CONFIG | {"ndpProxy": "auto", "mtu": "auto", "ingress": "open", "guard": False}


def with_uplink(**plugins: Any) -> FakeContext:
    """A node whose router is in the network's own prefix, and its first container come and gone."""
    fake = FakeContext(plugins=plugins)
    fake.kernel.add_link(HOST, Link("ens1", "02:00:00:00:00:01", 1200, up=True))
    fake.kernel.spaces[HOST].addresses["ens1"] = ["2001:db8:1:ff::ff/56"]
    fake.kernel.spaces[HOST].routes["ens1"] = [RouteEntry("::/0", "fe80::1")]
    return fake


def entries(fake: FakeContext) -> tuple[list[str], list[str]]:
    """Addresses with an entry on the uplink; with a route through the bridge."""
    node = fake.kernel.spaces[HOST]
    return node.proxies.get("ens1", []), [route.dst for route in node.routes.get("cni0", [])]


@pytest.mark.parametrize("end", ["DEL", "GC"])
def test_the_node_answers_for_a_container_while_it_is_there(end: str) -> None:
    fake = with_uplink()
    fake.container("c1")
    answer = fake.call("ADD", "c1", PROXIED)
    answer.ok()
    assert "an uplink has 1200, below the 1280" in answer.stderr
    [record] = fake.attachments()
    assert record.proxied == (ProxyEntry("ens1", "cni0", "2001:db8:1::2"),)
    assert entries(fake) == (["2001:db8:1::2"], ["2001:db8:1::2/128"])
    previous = PROXIED | {"prevResult": answer.stdout}
    fake.call("CHECK", "c1", previous).ok()
    fake.kernel.remove([ops.RemoveProxy("ens1", "2001:db8:1::2")])
    told = fake.call("CHECK", "c1", previous).error(errors.CHECK_FAILED)
    assert "the node does not answer for 2001:db8:1::2 on ens1" in told
    fake.now += 1
    if end == "DEL":
        fake.call("DEL", "c1").ok()  # which knows nothing of ndpProxy
    else:
        fake.call("GC", config=gc()).ok()
    assert entries(fake) == ([], []) and fake.attachments() == []


def test_the_node_answers_for_addresses_of_another_ipam() -> None:
    lease = {"address": "2001:db8:1::5/64", "gateway": "2001:db8:1::1"}
    fake = with_uplink(dhcp=plugin(ADD={"cniVersion": "1.1.0", "ips": [lease]}))
    foreign = PROXIED | {"ipam": {"type": "dhcp"}}
    fake.add("c1", foreign)
    assert entries(fake) == (["2001:db8:1::5"], ["2001:db8:1::5/128"])
    fake.call("DEL", "c1", foreign).ok()
    assert entries(fake) == ([], [])


def test_an_add_that_fails_leaves_nobody_to_answer_for() -> None:
    fake = with_uplink()
    fake.add("c1", PROXIED)
    fake.container("c2")
    before = fake.state()
    refuse(fake, ops.AddProxy)
    assert "cannot do it" in fake.call("ADD", "c2", PROXIED).error(errors.KERNEL_REFUSED)
    assert fake.state() == before
