"""A recycled address reaches its new owner at once, whatever the segment remembers of the one before; and who has
nothing to say that others need to hear says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.netns import frames, networks, wire
from tests.netns.networks import DUAL, SUBNET4, SUBNET6, Pod
from tests.sandbox import Node

NETWORK = networks.gateway(*DUAL)
SMALL = networks.gateway("fd00:6::/120")  # given again
LAYER_2 = networks.network(*DUAL)
REPORTS = bytes.fromhex("333300000016")  # of multicast listeners: RFC 3810, section 5.2.14, as RFC 2464, section 7
MACS = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
END = b"that was all"


def asking(config: Mapping[str, Any], *addresses: str, mac: str = "") -> dict[str, Any]:
    return {**config, "args": {"cni": {"ips": list(addresses)}}, **({"mac": mac} if mac else {})}


def remembered(node: Node, address: str, netns: str) -> str:
    """The MAC that a neighbour cache has for an address; "" for none."""
    entries = node.ip_json("neighbour", "show", address, netns=netns)
    return entries[0].get("lladdr", "") if entries else ""


@pytest.mark.parametrize(
    ("family", "asked"),
    [
        pytest.param(4, [asking(NETWORK, "10.66.0.77", "fd00:6::77")] * 2, id="ipv4"),
        pytest.param(6, [asking(NETWORK, "10.66.0.77", "fd00:6::77")] * 2, id="ipv6-beside-the-same-ipv4"),
        pytest.param(4, [asking(NETWORK, "10.66.0.77", mac=each) for each in MACS], id="ipv4-with-a-mac-of-its-own"),
        pytest.param(6, [asking(NETWORK, "fd00:6::77")] * 2, id="ipv6-beside-another-ipv4"),
        pytest.param(6, [asking(SMALL, "fd00:6::77")] * 2, id="ipv6-alone"),
    ],
)
def test_a_recycled_address_reaches_its_new_owner_at_once(node: Node, family: int, asked: list[dict[str, Any]]) -> None:
    [witness] = networks.pods(node, {**asked[0], "args": {}, "mac": ""}, "witness")
    old = Pod(node, asked[0], "old")
    old.add()
    address = old.address(family)
    places = {"the node": "", "a container": witness.netns}
    for netns in places.values():
        assert networks.ping(node, address, netns)
        assert remembered(node, address, netns) == old.mac
        # Confirmed this very moment, so that nobody would ask again for half a minute.
        interface = "eth0" if netns else "cni0"
        node.run("ip", "neighbour", "change", address, "lladdr", old.mac, "dev", interface, "nud", "reachable",
                 netns=netns)
    old.delete()
    networks.pods(node, {**asked[0], "args": {}, "mac": ""}, "between")  # takes the IPv4 address that comes next
    new = Pod(node, asked[1], "new")
    new.add()
    assert new.address(family) == address
    for place, netns in places.items():
        path = netns or node.path
        wire.await_state(path, lambda: remembered(node, address, netns) == new.mac, f"the new MAC in {place}")
        assert networks.ping(node, address, netns)


@pytest.mark.parametrize(
    "config", [networks.network(SUBNET4), networks.network(SUBNET6), SMALL],
    ids=["layer-2-ipv4", "layer-2-ipv6", "given-again"],
)
def test_what_others_may_remember_is_announced(node: Node, config: Mapping[str, Any]) -> None:
    """Even what nobody asked for yet: the announcement is on the wire when ADD returns."""
    [witness] = networks.pods(node, config, "witness")
    with wire.packets(witness.netns, "eth0") as tap:
        [pod] = networks.pods(node, config, "a")
        address = pod.result["ips"][0]["address"].partition("/")[0]
        wire.await_frames(tap, lambda frame: wire.announces(frame, address, pod.mac))


def test_a_newcomer_says_nothing_to_its_neighbours(node: Node) -> None:
    """A bridge carries what is for a group into every container there is. Routers hear who listens to what."""
    [witness] = networks.pods(node, NETWORK, "witness")
    with wire.packets(witness.netns, "eth0") as tap, wire.packets(node.path, "cni0") as router, wire.in_order():
        [pod] = networks.pods(node, NETWORK, "a")
        mac = frames.hardware(pod.mac)
        wire.await_frames(router, lambda frame: frame[:6] == REPORTS and frame[6:12] == mac)
        with wire.packets(pod.netns, "eth0", 0) as sender:
            message = frames.udp(pod.address(6), witness.address(6), (9, 9), END)
            packet = frames.ip(pod.address(6), witness.address(6), frames.UDP, message)
            sender.send(frames.ethernet(pod.mac, witness.mac, frames.IPV6, packet))
        assert [frame for frame in wire.frames_before(tap, END) if frame[6:12] == mac] == []


def test_without_a_guard_a_container_may_be_a_router(node: Node) -> None:
    """So it hears what is for routers."""
    config = {**NETWORK, "guard": False}
    [witness] = networks.pods(node, config, "witness")
    with wire.packets(witness.netns, "eth0") as tap:
        [pod] = networks.pods(node, config, "a")
        wire.await_frames(tap, lambda frame: frame[:6] == REPORTS and frame[6:12] == frames.hardware(pod.mac))
