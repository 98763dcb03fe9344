"""A set that runs dry takes back what is over, and nothing that lives: real containers, kept alive in every way."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.kernel.netns.enter import lasting_identity, nsfs_device
from tests.netns import networks, nft, wire
from tests.netns.networks import Pod
from tests.netns_holders import ELSEWHERE, MOUNTED_ELSEWHERE, NETNS_HOLDERS, WAIT, running
from tests.sandbox import ROOT, Call, Node, Reply, need, reply

ONE = "10.66.0.0/30"  # a gateway and one address
GATEWAY, ADDRESS = "10.66.0.1", "10.66.0.2"
CONFIG = networks.gateway(ONE)
ALONE: dict[str, Any] = {**networks.network(ONE), "type": "macvlan", "master": "eth0"}
EXHAUSTED = errors.ADDRESSES_EXHAUSTED
FREED = f"freed {ADDRESS} of pods/a/eth0: its network namespace has ended"


@pytest.fixture
def pod(node: Node) -> Pod:
    """The container that has the only address."""
    [made] = networks.pods(node, CONFIG, "a")
    return made


def move_away(node: Node, pod: Pod) -> str:
    """Take the container's interface off the node, into another namespace: that one's path."""
    netns = node.container("vm")
    node.run("ip", "link", "set", pod.host, "netns", Path(netns).name)
    return netns


def await_end(node: Node, netns: str = "", but: str = "") -> None:
    """Wait for the end of the container's namespace: its interface goes with it.

    :param netns: where its interface is; the node where it is not given.
    :param but: an interface that stays.
    """
    wire.await_state(netns or node.path, lambda: networks.veths(node, netns) <= {but}, "the end of its namespace")


def no_address(node: Node, name: str = "b") -> None:
    """An ADD finds the set dry, and frees nothing."""
    other = Pod(node, CONFIG, name)
    answer = other.call("ADD")
    answer.error(EXHAUSTED)
    assert "freed" not in answer.stderr
    assert networks.leases(node) == {ADDRESS}
    node.remove_container(name)


def takes_it(node: Node, name: str = "b") -> Pod:
    """An ADD is given the address of the one that is over, and says so; and the address works."""
    other = Pod(node, CONFIG, name)
    answer = other.call("ADD")
    other.result = answer.ok()
    assert FREED in answer.stderr and other.address(4) == ADDRESS
    assert other.check().ok() is None and other.ping(GATEWAY)
    return other


def test_what_lives_keeps_its_address(node: Node, pod: Pod) -> None:
    no_address(node)
    assert pod.check().ok() is None and pod.ping(GATEWAY)


def test_what_ended_without_a_del_gives_it_back(node: Node, pod: Pod) -> None:
    assert pod.host in str(nft.held(node))
    node.remove_container("a")
    await_end(node)
    other = takes_it(node)
    elements = str(nft.held(node))
    assert pod.host not in elements and other.host in elements
    assert not (node.file(networks.STORE) / "pods" / "attachments" / "a:eth0").exists()


@pytest.mark.parametrize("holder", NETNS_HOLDERS)
def test_what_keeps_the_namespace_keeps_the_address(node: Node, pod: Pod, holder: str) -> None:
    """Its interface on the node is taken away, so that nothing but its namespace says that it lives."""
    vm = move_away(node, pod)
    with NETNS_HOLDERS[holder](pod.netns):
        node.remove_container("a")
        no_address(node)
        no_address(node)
    await_end(node, vm)
    takes_it(node)


def test_a_namespace_under_another_name(node: Node, pod: Pod) -> None:
    vm = move_away(node, pod)
    other = f"{pod.netns}-renamed"
    node.run("touch", other)
    node.run("mount", "--bind", pod.netns, other)
    node.remove_container("a")
    no_address(node)
    node.run("umount", other)
    node.run("rm", other)
    await_end(node, vm)
    takes_it(node)


def test_an_interface_that_was_renamed(node: Node, pod: Pod) -> None:
    node.run("ip", "link", "set", pod.host, "down")
    node.run("ip", "link", "set", pod.host, "name", "mine")
    no_address(node)
    node.remove_container("a")
    await_end(node)
    takes_it(node)


def test_an_interface_that_the_container_deleted(node: Node, pod: Pod) -> None:
    """The container lives, and has the right to what it was given."""
    node.run("ip", "link", "delete", "eth0", netns=pod.netns)
    no_address(node)


@contextmanager
def blocked(node: Node) -> Iterator[None]:
    """Where no namespace can be told from another by its number, and no process be seen."""
    record = node.file(networks.STORE) / "pods" / "attachments" / "a:eth0"
    written = json.loads(record.read_text())
    record.write_text(json.dumps({**written, "netns": [nsfs_device(), written["netns"][1]]}))
    yield
    record.write_text(json.dumps(written))


def in_a_pid_namespace(node: Node, call: Call) -> Reply:
    """Deliver a call to a plugin that sees no processes but its own, as one in a container of its own."""
    enter = ["nsenter", f"--net={node.path}", f"--mount={node.mount_namespace}", "--"]
    done = subprocess.run(
        [*enter, "unshare", "--pid", "--fork", "--mount-proc", str(ROOT / "bin" / call.type)],
        input=call.stdin, env={**node.environment, **call.env}, capture_output=True,
    )
    return reply(done.stdout, done.stderr, done.returncode)


def test_an_engine_that_sees_no_processes() -> None:
    """By number it knows the namespace all the same; without, it keeps what it cannot see."""
    node = Node(in_a_pid_namespace)
    try:
        [pod] = networks.pods(node, CONFIG, "a")
        vm = move_away(node, pod)
        with NETNS_HOLDERS["process"](pod.netns):
            node.remove_container("a")
            no_address(node)
        await_end(node, vm)
        with blocked(node):
            no_address(node)
        need(lasting_identity(node.path)[0] != nsfs_device(), "needs Linux 6.18, which counts namespaces")
        takes_it(node)
    finally:
        node.close()


def test_another_node_on_this_kernel(node: Node, pod: Pod) -> None:
    """A folder that two nodes share, each in a container: what one does not see may be the other's."""
    record = node.file(networks.STORE) / "pods" / "attachments" / "a:eth0"
    written = json.loads(record.read_text())
    record.write_text(json.dumps({**written, "home": [written["home"][0] + 1, written["home"][1]]}))
    node.remove_container("a")
    await_end(node)
    no_address(node)


# The IPAM plugin alone


def alone(node: Node, name: str) -> Reply:
    netns = node.containers.get(name) or node.container(name)
    return node.plugin("cni-v6-ipam", "ADD", ALONE, container_id=name, ifname="eth0", netns=netns)


def test_addresses_alone(node: Node) -> None:
    """There is no interface on the node to look for: the namespace decides."""
    alone(node, "a").ok()
    inside = Path(node.containers["a"]).name
    node.run("ip", "link", "add", "here", "type", "veth", "peer", "name", "there", "netns", inside)
    alone(node, "b").error(EXHAUSTED)
    with running(MOUNTED_ELSEWHERE + WAIT, node.containers["a"], *ELSEWHERE):
        node.remove_container("a")
        alone(node, "b").error(EXHAUSTED)
    await_end(node)
    answer = alone(node, "b")
    answer.ok()
    assert FREED in answer.stderr and networks.leases(node) == {ADDRESS}


# cni-v6ctl gc


def test_ctl_gc(node: Node, pod: Pod) -> None:
    [other] = networks.pods(node, networks.gateway("fd00:7::/64", name="other", bridge="cni1"), "c")
    assert nft.ctl(node, "gc").stdout == "0 attachments freed\n"
    node.remove_container("a")
    await_end(node, but=other.host)
    with node.unchanged():
        said = nft.ctl(node, "gc", "--dry-run").stdout
    line = f"would free pods  a  eth0  {ADDRESS}  (its network namespace has ended)\n"
    assert said == f"{line}1 attachment would be freed\n"
    assert nft.ctl(node, "gc", "other").stdout == "0 attachments freed\n"
    assert nft.ctl(node, "gc", "pods").stdout.endswith("\n1 attachment freed\n")
    assert networks.leases(node) == set() and pod.host not in str(nft.held(node))
    assert other.check().ok() is None


def test_ctl_gc_with_a_list(node: Node, pod: Pod) -> None:
    [other] = networks.pods(node, networks.gateway("fd00:7::/64", name="other", bridge="cni1"), "c")
    valid = node.file("/var/lib/cni/valid.json")
    valid.write_text(json.dumps([{"containerID": "c", "ifname": "eth0"}]))
    with node.unchanged():
        assert nft.ctl(node, "gc", "--valid", "/var/lib/cni/valid.json").stdout == "0 attachments freed\n"
    said = nft.ctl(node, "gc", "--valid", "/var/lib/cni/valid.json", "--older-than", "0s").stdout
    assert said.startswith(f"freed pods  a  eth0  {ADDRESS}  (it is not in the list")
    assert networks.leases(node) == set()
    assert networks.veths(node, pod.netns) == set() and networks.veths(node) == {other.host}
    assert other.check().ok() is None
