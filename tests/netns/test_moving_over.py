"""A network moves from the reference plugins to these by its ``type``, with its containers running, and back."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.netns import lab, wire
from tests.netns.lab import DUAL, GATEWAY4, GATEWAY6, Pod
from tests.sandbox import REFERENCE_PLUGINS, Node, need

OURS: dict[str, Any] = {
    **lab.gateway(*DUAL, cniVersion="1.0.0", ipam={"type": "host-local", "routes": [{"dst": "2001:db8::/32"}]}),
}
THEIRS = {**OURS, "type": "bridge"}


class Reference(Pod):
    """A container that the reference plugins attach."""

    def call(self, command: str, config: Any = None, **variables: Any) -> Any:
        given = {"container_id": self.name, "ifname": self.ifname, "netns": self.netns, **variables}
        return self.node.plugin("bridge", command, config or THEIRS, **given)


@pytest.fixture(autouse=True)
def reference() -> None:
    need(os.access(f"{REFERENCE_PLUGINS}/bridge", os.X_OK), "needs containernetworking-plugins")


def moved(node: Node, *names: str) -> list[Pod]:
    """Containers that the reference plugins attached, now under our configuration, results and all."""
    made = []
    for name in names:
        old = Reference(node, THEIRS, name)
        old.add()
        pod = Pod(node, OURS, name)
        pod.result = old.result
        made.append(pod)
    # The reference's gateway address goes through duplicate address detection, which takes a second.
    wire.await_state(node.path, lambda: is_settled(node), "the end of duplicate address detection")
    return made


def is_settled(node: Node) -> bool:
    return not any(entry.get("tentative") for entry in lab.addresses(node, "cni0").values())


def test_new_containers_avoid_the_old_leases_and_reach_the_old_containers(node: Node) -> None:
    old = moved(node, "a", "b")
    (node.file(lab.STORE) / "pods" / "last_reserved_ip.0").unlink()
    (node.file(lab.STORE) / "pods" / "last_reserved_ip.1").unlink()
    [new] = lab.pods(node, OURS, "c")
    for family, gateway in ((4, GATEWAY4), (6, GATEWAY6)):
        assert new.address(family) not in {pod.address(family) for pod in old}
        assert new.ping(old[0].address(family)) and old[1].ping(new.address(family))
        assert new.ping(gateway) and old[0].ping(gateway)


def test_check_of_an_old_result(node: Node) -> None:
    [pod] = moved(node, "a")
    assert pod.check().ok() is None
    node.run("ip", "address", "del", pod.address(4) + "/24", "dev", "eth0", netns=pod.netns)
    assert pod.address(4) in pod.check().error(104)


@pytest.mark.parametrize("gone", [False, True], ids=["running", "namespace gone"])
def test_del_of_an_old_container_takes_its_interface_and_its_leases(node: Node, gone: bool) -> None:
    keeps, leaves = moved(node, "keeps", "leaves")
    if gone:
        node.remove_container("leaves")
    leaves.delete()
    leaves.delete()
    if not gone:
        assert lab.veths(node, leaves.netns) == set()
    assert lab.veths(node) == {keeps.host}
    assert lab.leases(node) == {keeps.address(4), keeps.address(6)}
    assert keeps.ping(GATEWAY6)


def test_del_leaves_an_interface_alone_that_is_not_the_old_containers(node: Node) -> None:
    [pod] = moved(node, "a")
    node.run("ip", "link", "delete", "eth0", netns=pod.netns)
    node.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other0", netns=pod.netns)
    pod.delete()
    assert lab.veths(node, pod.netns) == {"eth0", "other0"} and lab.leases(node) == set()


def test_gc_frees_what_the_reference_has_leaked(node: Node) -> None:
    keeps, leaked = moved(node, "keeps", "leaked")
    node.remove_container("leaked")
    valid = [{"containerID": "keeps", "ifname": "eth0"}]
    node.plugin("cni-v6", "GC", {**OURS, "cniVersion": "1.1.0", "cni.dev/valid-attachments": valid}).ok()
    assert lab.leases(node) == {keeps.address(4), keeps.address(6)} and leaked.result


def test_and_back(node: Node) -> None:
    """The reference frees what we leased, and hands out no address that a container of ours still has."""
    leaves, stays = lab.pods(node, OURS, "leaves", "stays")
    theirs = Reference(node, THEIRS, "leaves")
    theirs.delete({**THEIRS, "prevResult": leaves.result})
    assert lab.veths(node, leaves.netns) == set() and lab.veths(node) == {stays.host}
    assert lab.leases(node) == {stays.address(4), stays.address(6)}
    for name in ("x", "y", "z"):
        Reference(node, THEIRS, name).add()
    assert len(lab.leases(node)) == 8
    assert stays.ping(GATEWAY6) and stays.check().ok() is None


def test_and_forth_again_with_the_same_container(node: Node) -> None:
    """Its record of ours has outlived the reference's DEL; nothing else has, so it is in nobody's way."""
    [pod] = lab.pods(node, OURS, "a")
    Reference(node, THEIRS, "a").delete()
    pod.add()
    assert pod.check().ok() is None and pod.ping(GATEWAY4)
    pod.delete()
    assert lab.leases(node) == set() == lab.veths(node)
