"""A network of a bridge becomes a routed one, container by container, while both forms work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from cni_v6.conversion.convert import convert
from cni_v6.conversion.report import Wanted
from tests.netns import networks
from tests.netns.networks import DUAL, GATEWAY6, Pod
from tests.sandbox import Node

NAMES = ("a", "b", "c")


def routed(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration that ``cni-v6ctl convert --to routed`` makes."""
    plugin = {key: value for key, value in config.items() if key not in ("name", "cniVersion")}
    document = {"cniVersion": "1.1.0", "name": config["name"], "plugins": [plugin]}
    found = convert(document, Wanted(to="routed")).document
    [made] = found["plugins"]
    return {"cniVersion": found["cniVersion"], "name": found["name"], **made}


def reached(pods: Sequence[Pod]) -> None:
    """Each of them reaches each other, over both families."""
    for pod in pods:
        for other in pods:
            for family in (4, 6):
                if other is not pod:
                    assert pod.ping(other.address(family)), f"{pod.config['type']} -> {other.config['type']}, {family}"


def neighbours(node: Node) -> set[str]:
    """The addresses that the node answers for on the bridge."""
    return {entry["dst"] for entry in node.ip_json("-6", "neigh", "show", "proxy", "dev", "cni0")}


def move(pods: list[Pod], at: int, config: dict[str, Any]) -> None:
    """Recreate a container: a runtime without a cache calls DEL with the configuration that there is now."""
    pods[at].delete(config)
    pods[at].node.remove_container(pods[at].name)
    pods[at] = Pod(pods[at].node, config, pods[at].name)
    pods[at].add()


@pytest.mark.parametrize("node", ["engine"], indirect=True)
@pytest.mark.parametrize("keys", [
    {}, pytest.param({"ingress": "open", "ipam": {"gateway": "link-local"}}, marks=pytest.mark.slow)], ids=str)
def test_one_by_one(node: Node, keys: dict[str, Any]) -> None:
    ipam = {}
    if "ipam" in keys:
        ipam = {"ipam": {"ranges": [[{"subnet": DUAL[0], **keys["ipam"]}], [{"subnet": DUAL[1]}]]}}
    old = networks.gateway(*DUAL, **{**keys, **ipam})
    pods = networks.pods(node, old, *NAMES)
    used = {pod.address(family) for pod in pods for family in (4, 6)}
    assert len(used) == 6
    for at in range(len(NAMES)):
        move(pods, at, routed(old))
        fresh = {pods[at].address(family) for family in (4, 6)}
        assert not fresh & used
        used |= fresh
        reached(pods)
        for pod in pods:
            pod.check().ok()
        gateway = [address for address in networks.addresses(node, "cni0") if not address.startswith("fe80:")]
        assert bool(gateway) == (at < 2), "it stays as long as a container is there"
    moved = {pod.address(6) for pod in pods[:2]}  # the third one found nobody on the bridge
    assert neighbours(node) == moved
    pods[0].delete()
    assert neighbours(node) == {pods[1].address(6)}
    node.run("ip", "link", "delete", "cni0")
    pods[1].check().ok()
    for pod in pods[1:]:
        pod.delete()
    assert networks.leases(node) == set() and networks.veths(node) == set()
    shown = node.ip_json("-6", "route", "show", "table", "all") + node.ip_json("route", "show", "table", "all")
    ours = {route["dst"] for route in shown if route["dst"].startswith((GATEWAY6[:-1], "10.66."))}
    assert ours <= {GATEWAY6, "10.66.0.1", *DUAL}, "what a routed network leaves: the gateways, the rest of the subnet"


@pytest.mark.slow
@pytest.mark.parametrize("node", ["engine"], indirect=True)
def test_there_and_back(node: Node) -> None:
    """The bridge's containers that come meanwhile are reached too."""
    old = networks.gateway(*DUAL)
    pods = networks.pods(node, old, *NAMES)
    move(pods, 0, routed(old))
    move(pods, 1, routed(old))
    move(pods, 0, old)
    reached(pods)
    for pod in pods:
        pod.check().ok()
        pod.delete()
    assert networks.leases(node) == set() and networks.veths(node) == set()
