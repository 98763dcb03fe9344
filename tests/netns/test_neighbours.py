"""A recycled address reaches its new owner at once, whatever the segment remembers of the one before."""

from __future__ import annotations

import pytest

from tests.netns import lab, wire
from tests.netns.lab import DUAL, SUBNET4, SUBNET6, Pod
from tests.sandbox import Node


def remembered(node: Node, address: str, netns: str) -> str:
    """The MAC that a neighbour cache has for an address; "" for none."""
    entries = node.ip_json("neighbour", "show", address, netns=netns)
    return entries[0].get("lladdr", "") if entries else ""


@pytest.mark.parametrize("family", [4, 6])
def test_a_recycled_address_reaches_its_new_owner_at_once(node: Node, family: int) -> None:
    config = lab.gateway(*DUAL)
    asks = {**config, "args": {"cni": {"ips": ["10.66.0.77", "fd00:6::77"]}}}
    [witness] = lab.pods(node, config, "witness")
    old = Pod(node, asks, "old")
    old.add()
    address = old.address(family)
    places = {"the node": "", "a container": witness.netns}
    for netns in places.values():
        assert lab.ping(node, address, netns)
        assert remembered(node, address, netns) == old.mac
        # Confirmed this very moment, so that nobody would ask again for half a minute.
        interface = "eth0" if netns else "cni0"
        node.run("ip", "neighbour", "change", address, "lladdr", old.mac, "dev", interface, "nud", "reachable",
                 netns=netns)
    old.delete()
    new = Pod(node, asks, "new")
    new.add()
    assert new.address(family) == address and new.mac != old.mac
    for place, netns in places.items():
        path = netns or node.path
        wire.await_state(path, lambda: remembered(node, address, netns) == new.mac, f"the new MAC in {place}")
        assert lab.ping(node, address, netns)


@pytest.mark.parametrize("subnet", [SUBNET4, SUBNET6])
def test_every_container_announces_itself(node: Node, subnet: str) -> None:
    """Even one that nobody asked for yet: the announcement is on the wire when ADD returns."""
    config = lab.gateway(subnet)
    [witness] = lab.pods(node, config, "witness")
    with wire.packets(witness.netns, "eth0") as tap:
        [pod] = lab.pods(node, config, "a")
        address = pod.address(6 if ":" in subnet else 4)
        wire.await_frames(tap, lambda frame: wire.announces(frame, address, pod.mac))
