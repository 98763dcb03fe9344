"""The store is removed under running containers: nobody gets their addresses, and their DELs leave nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.netns import networks, nft, traffic
from tests.netns.networks import DUAL, GATEWAY4, GATEWAY6, NODE_OUTSIDE, STORE, Pod
from tests.sandbox import Node

OPEN = {"ingress": "open", "guard": False}  # nothing of it is in the firewall
PORTS = {"capabilities": {"portMappings": True},
         "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}}


@pytest.mark.parametrize("keys", [{}, OPEN], ids=["guarded", "open"])
@pytest.mark.usefixtures("main_plugin")
def test_no_address_is_given_again(node: Node, keys: dict[str, Any]) -> None:
    config = networks.gateway(*DUAL, **keys)
    running = networks.pods(node, config, "a", "b")
    held = networks.leases(node)
    node.run("rm", "-rf", f"{STORE}/pods")
    late = Pod(node, config, "late")
    reply = late.call("ADD")
    late.result = reply.ok()
    assert "warning: the store had no record of 2 containers" in reply.stderr
    assert {late.address(4), late.address(6)}.isdisjoint(held)
    assert networks.leases(node) == held | {late.address(4), late.address(6)}
    assert len({pod.mac for pod in (*running, late)}) == 3
    for pod in (*running, late):
        assert pod.ping(GATEWAY4) and pod.ping(GATEWAY6)
        pod.check().ok()
    again = Pod(node, config, "again").call("ADD")
    assert again.ok() and "the store" not in again.stderr, "it is said once"
    for pod in running:
        pod.delete()
    assert networks.leases(node).isdisjoint(held)


@pytest.mark.usefixtures("main_plugin")
def test_the_firewall_is_as_it_was(node: Node) -> None:
    """After a reload from the records too: the guard, the published port, who is closed to whom."""
    outside = networks.outside(node)
    config = networks.gateway(*DUAL, ipMasq=True, egress=[{"to": "192.0.2.0/24"}, {"to": "2001:db8::/32"}])
    [web] = networks.pods(node, {**config, **PORTS}, "web")
    node.run("rm", "-rf", f"{STORE}/pods")
    late = Pod(node, config, "late")
    late.add()
    before = nft.held(node)
    nft.ctl(node, "reload")
    assert nft.held(node) == before
    with traffic.serving(web.netns, 80):
        for family in (4, 6):
            assert traffic.answering(outside, NODE_OUTSIDE[family], [8080]) == {8080}
    web.delete()
    late.delete()
    assert nft.held(node) == {}


def test_status_says_so_and_rebuilds(node: Node) -> None:
    config = networks.gateway(*DUAL)
    pods = networks.pods(node, config, "a", "b")
    held = networks.leases(node)
    node.run("rm", "-rf", f"{STORE}/pods")
    for named in ([], ["pods"]):
        check = nft.ctl(node, "check", *named, check=False)
        assert check.returncode == 1 and check.stdout.splitlines()[-1] == "2 differences on 1 network"
        assert "pods/a/eth0: the store has no record of it (STATUS or" in check.stdout
    error = node.plugin("cni-v6", "STATUS", config).error(51)
    assert "the store had no record of 2 containers" in error
    assert networks.leases(node) == held
    assert nft.ctl(node, "check").stdout == "nothing differs on 1 network\n"
    node.plugin("cni-v6", "STATUS", config).ok()
    for pod in pods:
        pod.delete()


@pytest.mark.usefixtures("main_plugin")
def test_a_del_before_the_next_add(node: Node) -> None:
    networks.set_up(node, networks.gateway(*DUAL))
    empty = nft.held(node)
    [web] = networks.pods(node, networks.gateway(*DUAL, **PORTS), "web")
    node.run("rm", "-rf", f"{STORE}/pods")
    web.delete()
    assert nft.held(node) == empty and networks.veths(node) == set()


@pytest.mark.usefixtures("main_plugin")
def test_a_del_of_one_whose_record_alone_is_lost(node: Node) -> None:
    """The store knows that it was compared with the node, and the others' records are there."""
    config = networks.gateway(*DUAL, **PORTS)
    networks.set_up(node, config)
    stays, goes = networks.pods(node, networks.gateway(*DUAL), "stays", "goes")
    before = nft.held(node), networks.leases(node)
    goes.delete()
    goes.add(config)
    node.file(f"{STORE}/pods/attachments/goes:eth0").unlink()
    goes.delete()
    assert not [element for held in nft.held(node).values() for element in held if "goes" in element]
    assert networks.leases(node) == {stays.address(4), stays.address(6)} and networks.veths(node) == {stays.host}
    goes.add()
    assert (nft.held(node).keys(), len(networks.leases(node))) == (before[0].keys(), len(before[1]))
