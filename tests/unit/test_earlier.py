"""An ADD for a container id that was had before, and a DEL whose CNI_NETNS is the node's own; on fakes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.attachments import earlier
from cni_v6.errors import CniError
from cni_v6.kernel import awaits, ops
from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST
from cni_v6.leases.attachment import Attachment
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner
from tests.unit.fake_context import CONFIG, FOREIGN, LAYER_2, FakeContext, dhcp_server

PORT = names.host_interface(Owner("pods", "c1", "eth0"))


def again(config: dict[str, Any], type: str = "cni-v6") -> FakeContext:
    """A container was attached, its namespace has ended, and there is another one for the same id."""
    fake = FakeContext(plugins={"dhcp": dhcp_server()})
    fake.container("c0")
    fake.call("ADD", "c0", config, type=type).ok()
    fake.container("c1")
    fake.call("ADD", "c1", config, type=type).ok()
    fake.kernel.remove_netns("/run/netns/c1")
    fake.container("c1")
    return fake


@pytest.mark.parametrize(
    ("config", "type"),
    [(CONFIG, "cni-v6"), (LAYER_2, "cni-v6"), (FOREIGN, "cni-v6"), ({**CONFIG, "type": "macvlan"}, "cni-v6-ipam")],
    ids=["bridge", "layer 2", "delegated", "ipam alone"],
)
def test_what_an_earlier_container_of_that_name_has_left_is_freed(config: dict[str, Any], type: str) -> None:
    fake = again(config, type)
    before = len(fake.attachments())
    answer = fake.call("ADD", "c1", config, type=type)
    answer.ok()
    assert "of an earlier pods/c1/eth0: its network namespace has ended" in answer.stderr
    assert len(fake.attachments()) == before
    if config is FOREIGN:
        assert [command for _, command in fake.delegated][-2:] == ["DEL", "ADD"], "its lease too"


@pytest.mark.parametrize("config", [CONFIG, LAYER_2, FOREIGN], ids=["bridge", "layer 2", "delegated"])
@pytest.mark.parametrize("why", ["alive", "not known"])
def test_one_that_may_live_is_attached_already(config: dict[str, Any], why: str) -> None:
    fake = again(config)
    if why == "not known":
        fake.kernel.blind = True
    else:
        fake.kernel.remove_netns("/run/netns/c1")
        fake.container("elsewhere")
        with fake.leases().transaction() as leases:
            record = leases.get(Owner("pods", "c1", "eth0"))
            assert record
            leases.update(replace(record, netns=fake.kernel.netns_id("/run/netns/elsewhere")))
        fake.container("c1")
    before = fake.attachments()
    fake.call("ADD", "c1", config).error(errors.ALREADY_ATTACHED)
    assert fake.attachments() == before


def leave_port(fake: FakeContext) -> None:
    fake.kernel.add_link(HOST, Link(PORT, "02:00:00:00:00:05", 1500, up=True, kind="veth", alias="x"))


def test_an_interface_that_goes_with_its_namespace_is_waited_for() -> None:
    fake = again(CONFIG)
    leave_port(fake)

    def end(op: ops.Op) -> None:
        if isinstance(op, awaits.AwaitEnd):
            fake.kernel.delete(HOST, PORT)

    fake.kernel.fail = end
    fake.call("ADD", "c1").ok()
    assert awaits.AwaitEnd(PORT) in fake.kernel.applied


def test_a_namespace_that_may_be_about_to_end_is_given_a_second() -> None:
    """A socket that closes keeps it for a moment: until then nothing proves that its container is over."""
    fake = FakeContext()
    fake.add("c1")
    before = fake.kernel.spaces.pop("/run/netns/c1")
    fake.kernel.spaces["/run/netns/elsewhere"] = before
    fake.container("c1")

    def end(op: ops.Op) -> None:
        if isinstance(op, awaits.AwaitEnd):
            fake.kernel.delete(HOST, PORT)
            del fake.kernel.spaces["/run/netns/elsewhere"]

    fake.kernel.fail = end
    fake.call("ADD", "c1").ok()
    assert awaits.AwaitEnd(PORT, earlier.DOUBT_SECONDS) in fake.kernel.applied


def test_an_interface_that_stays_is_somebodys() -> None:
    fake = again(CONFIG)
    leave_port(fake)
    assert PORT in fake.call("ADD", "c1").error(errors.ALREADY_ATTACHED)
    assert PORT in fake.kernel.spaces[HOST].links


def test_an_interface_of_a_container_that_lives_is_not_waited_for() -> None:
    fake = FakeContext()
    fake.add("c1")
    fake.call("ADD", "c1").error(errors.ALREADY_ATTACHED)
    assert awaits.AwaitEnd(PORT) not in fake.kernel.applied


# DEL with the node's own namespace


NODES = "/proc/4711/ns/net"  # the pid is another process's by now


def ended(config: dict[str, Any]) -> FakeContext:
    """A container has ended, and the pid that its namespace is named by is a process of the node."""
    fake = FakeContext(plugins={"dhcp": dhcp_server()})
    fake.container("c1")
    fake.call("ADD", "c1", config).ok()
    fake.kernel.spaces[NODES] = fake.kernel.spaces[HOST]
    fake.kernel.add_link(HOST, Link("eth0", "02:00:00:00:00:06", 1500, up=True, kind="veth"))
    return fake


@pytest.mark.parametrize("config", [CONFIG, LAYER_2, FOREIGN], ids=["bridge", "layer 2", "delegated"])
def test_del_does_what_it_can_and_leaves_the_node_alone(config: dict[str, Any]) -> None:
    fake = ended(config)
    answer = fake.call("DEL", "c1", config, CNI_NETNS=NODES)
    answer.ok()
    assert "is the plugin's own network namespace: it was left alone" in answer.stderr
    assert fake.attachments() == [] and PORT not in fake.kernel.spaces[HOST].links
    assert "eth0" in fake.kernel.spaces[HOST].links
    if config is FOREIGN:
        assert fake.delegated[-1] == ("dhcp", "DEL")
    fake.call("DEL", "c1", config, CNI_NETNS=NODES).error(errors.INVALID_NETNS)


def test_del_of_what_the_reference_plugin_attached_touches_nothing_there() -> None:
    """Its interface is known by name and addresses alone, and the node's may have both."""
    fake = ended(CONFIG)
    with fake.leases().transaction() as leases:
        leases.put(Attachment(Owner("pods", "c2", "eth0"), ("10.1.0.9",)))
    fake.kernel.spaces[HOST].addresses["eth0"] = ["10.1.0.9/24"]
    fake.call("DEL", "c2", CNI_NETNS=NODES).ok()
    assert "eth0" in fake.kernel.spaces[HOST].links
    assert [each.owner.container_id for each in fake.attachments()] == ["c1"]


def test_del_that_fails_there_says_both() -> None:
    fake = ended(CONFIG)
    fake.kernel.fail = lambda op: CniError(100, "no luck") if isinstance(op, ops.DeleteLink) else None
    message = fake.call("DEL", "c1", CNI_NETNS=NODES).error(100)
    assert "no luck" in message and "own network namespace" in message


def test_a_damaged_record_that_holds_nothing_is_in_no_adds_way() -> None:
    """As a loss of power leaves the record of a layer 2 network's container."""
    fake = FakeContext()
    fake.add("c1", LAYER_2)
    fake.kernel.remove_netns("/run/netns/c1")
    with fake.leases().transaction() as leases:
        leases.update(Attachment(Owner("pods", "c1", "eth0"), (), damaged=True))
    fake.add("c1", LAYER_2)
    [record] = fake.attachments()
    assert record.host == PORT and not record.damaged
