"""Bandwidth: both directions of a container are shaped on the node, and nothing of it is left behind."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from cni_v6 import errors
from tests.netns import networks, nft, traffic
from tests.netns.networks import DUAL, Pod
from tests.sandbox import Node

pytestmark = pytest.mark.slow

RATE, BURST = 80_000, 200_000  # bits a second, bits
ASKED = {"ingressRate": RATE, "ingressBurst": BURST, "egressRate": RATE // 2, "egressBurst": BURST // 2}
FLOOD, SIZE = 400, 1200  # datagrams, and bytes of one: ten times what the queues and bursts take


def shaped(asked: dict[str, int] | None = None, **keys: Any) -> dict[str, Any]:
    runtime = {"bandwidth": ASKED if asked is None else asked}
    return networks.gateway(*DUAL, capabilities={"bandwidth": True}, runtimeConfig=runtime, **keys)


def queues(node: Node) -> dict[str, dict[str, Any]]:
    """The token buckets of the node's interfaces."""
    found = json.loads(node.run("tc", "-s", "-j", "qdisc", "show").stdout)
    return {queue["dev"]: queue for queue in found if queue["kind"] == "tbf"}


def ifbs(node: Node) -> set[str]:
    return {link["ifname"] for link in node.ip_json("link", "show", "type", "ifb")}


def flood(sender: str, receiver: str, address: str, family: int) -> float:
    """Send far more than may pass; seconds that it took, which only a slow machine makes long."""
    started = time.monotonic()
    with traffic.udp(receiver, family, port=4000), traffic.udp(sender, family) as client:
        for _ in range(FLOOD):
            client.sendto(bytes(SIZE), (address, 4000))
    return time.monotonic() - started


@pytest.mark.usefixtures("main_plugin")
@pytest.mark.core
def test_both_directions_are_shaped(node: Node) -> None:
    """By the counters of the queues: what they let pass is no more than burst and rate allow for the time."""
    [pod] = networks.pods(node, shaped(), "a")
    [ifb] = ifbs(node)
    assert pod.check().ok() is None
    assert {name: (queue["options"]["rate"], queue["options"]["burst"]) for name, queue in queues(node).items()} == {
        pod.host: (RATE // 8, BURST // 8), ifb: (RATE // 16, BURST // 16)
    }
    began = time.monotonic()
    for family in (4, 6):
        gateway = networks.GATEWAY4 if family == 4 else networks.GATEWAY6
        flood(node.path, pod.netns, pod.address(family), family)
        flood(pod.netns, node.path, gateway, family)
    after = queues(node)
    took = time.monotonic() - began
    for name, rate, burst in ((pod.host, RATE, BURST), (ifb, RATE // 2, BURST // 2)):
        passed, lost = after[name]["bytes"], after[name]["drops"]
        assert passed <= (burst + rate * took) / 8 + 2 * SIZE, f"{name} {took}"
        assert lost > 0, name
    pod.delete()
    assert not ifbs(node) and not queues(node)


@pytest.mark.usefixtures("main_plugin")
@pytest.mark.parametrize("how", ["DEL", "the namespace first", "a damaged record", "no record", "GC"])
def test_nothing_is_left(node: Node, how: str) -> None:
    networks.set_up(node, networks.gateway(*DUAL))
    elements = "|nftables" if how == "no record" else ""  # nobody knows then whose they are
    with node.unchanged(ignore=rf"\.seen|\.memo{elements}"):
        [pod] = networks.pods(node, shaped(), "a")
        record = node.file(networks.STORE) / "pods/attachments/a:eth0"
        assert len(ifbs(node)) == 1
        if how == "the namespace first":
            node.remove_container("a")
        if how == "a damaged record":
            record.write_bytes(record.read_bytes()[:20])
        if how == "no record":
            record.unlink()
        if how == "GC":
            config = {**networks.gateway(*DUAL), "cni.dev/valid-attachments": []}
            node.plugin(networks.main.get(), "GC", config).ok()
        else:
            pod.call("DEL", networks.gateway(*DUAL)).ok()
        assert not ifbs(node)
        if "a" in node.containers:
            node.remove_container("a")


def test_what_is_lost_is_seen_and_mended(node: Node) -> None:
    [pod] = networks.pods(node, shaped(), "a")
    [ifb] = ifbs(node)
    for damage, words in (
        (f"tc qdisc delete dev {pod.host} root", "receives as fast as it can"),
        (f"tc qdisc delete dev {pod.host} ingress", f"what {pod.host} receives does not pass {ifb}"),
        (f"tc qdisc delete dev {ifb} root", f"{ifb} has no queue"),
        (f"ip link set {ifb} down", f"{ifb} is down"),
        (f"ip link delete {ifb}", f"{ifb} is missing"),
    ):
        node.run("sh", "-c", damage)
        assert words in pod.check().error(errors.CHECK_FAILED)
        nft.ctl(node, "check", "--repair")
        assert pod.check().ok() is None, damage
    node.container("b")
    for asked, code, words in (
        ({"ingressRate": 10**6}, errors.INVALID_CONFIG, "runtimeConfig.bandwidth.ingressBurst is missing"),
        ({"egressRate": 10**6, "egressBurst": 8000}, errors.NODE_CONFLICT, "lets no packet pass"),
    ):
        with node.unchanged():
            assert words in Pod(node, shaped(asked), "b").call("ADD").error(code)
