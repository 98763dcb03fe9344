"""What an engine says of its calls, its counters and the node: the log, the metrics, and who may read them."""

from __future__ import annotations

import json
import re
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.engine.container_drops import NAME
from cni_v6.engine.exposition import parse
from cni_v6.engine.log_file import RUN_FILE
from cni_v6.firewall import ruleset
from cni_v6.firewall.dropped import CLOSED, EGRESS, ROUTER, SOURCE
from tests.netns import networks, nft, spoofed_frames, traffic
from tests.netns.networks import DUAL, GATEWAY4, NODE_OUTSIDE, OUTSIDE, SUBNET4, SUBNET6
from tests.netns.test_guard import Segment
from tests.process.test_engine import activated
from tests.sandbox import Node

# Why a chain drops.
REASON = {chain: {"source": SOURCE, "router": ROUTER}.get(end, "") for chain, end in re.findall(
    r"^    chain (\w+) \{\n(?:        .*\n)*?        .*goto drop_(\w+)$", ruleset.text(), re.MULTILINE)}
NETWORK = networks.gateway(SUBNET6, SUBNET4, ipam={"reuse": "after"})


@pytest.fixture
def node(warm_node: Node) -> Node:
    return warm_node


def lines(node: Node) -> list[Any]:
    path = Path(node.environment["CNI_V6_RUN_DIR"], RUN_FILE)
    assert path.stat().st_mode & 0o777 == 0o600
    return [json.loads(line) for line in path.read_text().splitlines()]


def metrics(node: Node) -> dict[tuple[str, ...], float]:
    """Name and labels -> value, of ``cni-v6ctl metrics``."""
    text = nft.ctl(node, "metrics").stdout
    return {(sample.name + sample.suffix, *sample.labels): sample.value for sample in parse(text) if not sample.le}


def test_a_calls_line_is_found_by_its_errors_id(node: Node) -> None:
    [pod] = networks.pods(node, NETWORK, "a")
    again = pod.call("ADD", args="K8S_POD_NAMESPACE=web;K8S_POD_NAME=a-1;IgnoreUnknown=1")
    again.error(errors.ALREADY_ATTACHED)
    told = re.search(r" \(call ([0-9a-f]{8})\)$", again.stdout["msg"])
    assert told and f"(call {told[1]})" in again.stderr
    pod.delete()
    added, refused, deleted = lines(node)
    assert (added["command"], added["container"], added["addresses"]) == (
        "ADD", "a", [pod.address(6), pod.address(4)])
    assert added["ms"] == pytest.approx(sum(added["steps"].values()), abs=0.01)
    assert {"observe", "store", "apply"} <= added["steps"].keys()
    assert (refused["id"], refused["pod"], refused["error"]["code"]) == (told[1], "web/a-1", errors.ALREADY_ATTACHED)
    assert (deleted["command"], deleted["addresses"]) == ("DEL", added["addresses"])
    shown = nft.ctl(node, "log", "--call", told[1], "--steps").stdout
    assert "ADD" in shown and "pods a/eth0" in shown and f"error     {errors.ALREADY_ATTACHED}: " in shown
    assert nft.ctl(node, "log", "--call", "no such", check=False).returncode == 1


def test_the_log_of_a_configuration(quiet_node: Node, tmp_path: Path) -> None:
    """Without an engine, and where it cannot be written."""
    path = tmp_path / "calls.jsonl"
    [pod] = networks.pods(quiet_node, {**NETWORK, "log": str(path)}, "a")
    pod.delete()
    said = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["command"], line["addresses"]) for line in said] == [
        (command, [pod.address(6), pod.address(4)]) for command in ("ADD", "DEL")
    ]
    assert path.stat().st_mode & 0o777 == 0o600
    nowhere = pod.call("DEL", {**NETWORK, "log": str(tmp_path / "no" / "calls.jsonl")})
    assert nowhere.ok() is None and "warning: cannot write log" in nowhere.stderr
    with quiet_node.unchanged():
        wrong = pod.call("ADD", {**NETWORK, "log": "/etc/passwd"})
        assert "log" in wrong.error(errors.INVALID_CONFIG)


def test_what_is_counted_is_what_happened(node: Node) -> None:
    pods = networks.pods(node, NETWORK, "a", "b", "c")
    pods[0].call("ADD").error(errors.ALREADY_ATTACHED)
    pods[0].delete()
    found = metrics(node)
    pools = {key[2]: key for key in found if key[0] == "cni_v6_pool_leased"}
    assert len(pools) == 2 and all(found[key] == 2 for key in pools.values())
    label = next(label for label in pools if label.startswith(SUBNET4))
    waiting, left, size = (found[(f"cni_v6_pool_{name}", "pods", label)] for name in ("waiting", "left", "addresses"))
    assert (waiting, size - left) == (1, 2)
    calls = {key[1:]: value for key, value in found.items() if key[0] == "cni_v6_calls_total"}
    assert calls == {
        ("cni-v6", "ADD", "pods", "0"): 3, ("cni-v6", "ADD", "pods", str(errors.ALREADY_ATTACHED)): 1,
        ("cni-v6", "DEL", "pods", "0"): 1,
    }
    assert found["cni_v6_call_duration_seconds_count", "ADD"] == 4
    assert found["cni_v6_step_duration_seconds_count", "ADD", "apply"] >= 3
    assert found["cni_v6_attachments", "pods"] == 2
    assert found["cni_v6_firewall_elements", "inet", "home4"] == 2
    assert (found["cni_v6_scrape_incomplete",], found["cni_v6_engine_workers_busy",]) == (0, 0)
    view: Any = json.loads(nft.ctl(node, "top", "--once", "--json").stdout)
    assert [[call[key] for key in ("command", "count", "errors")] for call in view["calls"]] == [
        ["ADD", 4, 1], ["DEL", 1, 0],
    ]
    assert view["attachments"] == {"pods": 2}


def test_packets_that_are_dropped_are_counted_by_their_reason(quiet_node: Node) -> None:
    node = quiet_node  # an engine tells again what it has read just now
    [pod] = networks.pods(node, NETWORK, "a")
    assert pod.ping(GATEWAY4)
    before = dropped(node)
    node.run("ip", "address", "add", "10.66.0.77/32", "dev", "eth0", netns=pod.netns)
    with traffic.udp(pod.netns, 4, "10.66.0.77") as spoofer:
        spoofer.sendto(b"from another", (GATEWAY4, 9))
    assert pod.ping(GATEWAY4)  # behind it, in the same queue
    grown = {chain: packets - before.get(chain, 0) for chain, packets in dropped(node).items()}
    assert grown["guard_address4"] + grown["guard_arp"] == 1
    assert dropped_of(node) == {("pods", "a", SOURCE): 1}


@pytest.mark.usefixtures("main_plugin")
def test_packets_that_are_dropped_are_counted_by_container_and_reason(quiet_node: Node) -> None:
    """Behind a bridge, where the packets that the node forwards name the bridge, and of routed containers."""
    node, outside = quiet_node, networks.outside(quiet_node)
    allowed = [{"to": f"{OUTSIDE[family]}/{32 if family == 4 else 128}"} for family in (4, 6)]
    first, second = networks.pods(node, networks.gateway(*DUAL, egress=allowed, ingress="published"), "a", "b")
    for family, target in ((4, NODE_OUTSIDE[4]), (6, NODE_OUTSIDE[6])):
        with traffic.udp(first.netns, family) as sender:
            for _ in range(2):
                sender.sendto(b"not in the list", (target, 9))
        assert first.ping(OUTSIDE[family])  # behind it, in the same queue
        with traffic.udp(outside, family) as stranger:
            stranger.sendto(b"closed", (second.address(family), 9))
        assert first.ping(OUTSIDE[family])
    node.run("ip", "address", "add", "10.66.0.77/32", "dev", "eth0", netns=second.netns)
    with traffic.udp(second.netns, 4, "10.66.0.77") as spoofer:
        spoofer.sendto(b"from another", (OUTSIDE[4], 9))
    assert second.ping(OUTSIDE[4])
    found = dropped_of(node)
    spoofed = sum(packets for chain, packets in dropped(node).items() if REASON.get(chain) == SOURCE)
    assert spoofed >= 1  # the kernel may announce the address, too
    assert found == {("pods", "a", EGRESS): 4, ("pods", "b", CLOSED): 2, ("pods", "b", SOURCE): spoofed}
    nft.ctl(node, "teardown", "--force")
    assert dropped_of(node) == {}


@pytest.mark.slow
def test_whoever_speaks_for_others_is_counted(quiet_node: Node) -> None:
    """The guard's counters, which all containers share, are made of those of its containers."""
    segment = Segment(quiet_node, networks.gateway(*DUAL))
    before, owned = dropped(quiet_node), dropped_of(quiet_node)
    segment.heard(spoof.frame for spoof in spoofed_frames.spoofs(
        *(segment.hosts[name] for name in ("attacker", "victim", "gateway"))))
    grown = {chain: packets - before.get(chain, 0) for chain, packets in dropped(quiet_node).items()}
    by_reason: Counter[str] = Counter()
    for chain, packets in grown.items():
        if chain.startswith("guard_"):
            by_reason[REASON[chain]] += int(packets)
    mine = {key[2]: packets - owned.get(key, 0) for key, packets in dropped_of(quiet_node).items()
            if key[:2] == ("pods", "attacker")}
    assert mine == by_reason and min(mine.values()) > 5


def dropped_of(node: Node) -> dict[tuple[str, ...], float]:
    """By network, container and reason."""
    return {key[1:]: value for key, value in metrics(node).items() if key[0] == NAME}


def dropped(node: Node) -> dict[str, float]:
    """By chain."""
    return {key[1]: value for key, value in metrics(node).items() if key[0] == "cni_v6_dropped_packets_total"}


@pytest.mark.slow
def test_without_an_engine_there_is_what_the_node_has(quiet_node: Node, tmp_path: Path) -> None:
    networks.pods(quiet_node, NETWORK, "a")
    folder = tmp_path / "net.d"
    folder.mkdir()
    (folder / "10-pods.conflist").write_text(json.dumps({**NETWORK, "plugins": [NETWORK]}))
    target = tmp_path / "cni-v6.prom"
    target.write_text("old")
    done = nft.ctl(quiet_node, "metrics", "--textfile", str(target), "--conf-dir", str(folder))
    assert "no engine runs" in done.stderr and done.stdout == ""
    found = {(sample.name, *sample.labels[:1]): sample.value for sample in parse(target.read_text())}
    assert found["cni_v6_attachments", "pods"] == found["cni_v6_pool_leased", "pods"] == 1
    assert not [key for key in found if key[0] == "cni_v6_calls_total"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cni-v6.prom", "net.d"]
    assert target.stat().st_mode & 0o777 == 0o644
    assert nft.ctl(quiet_node, "metrics", "--textfile", str(tmp_path / "x.txt"), check=False).returncode == 1


def http(node: Node, request: bytes) -> bytes:
    """What the metrics' port says to some bytes."""
    with traffic.opened(node.path, 6, socket.SOCK_STREAM) as connection:
        connection.connect(("::1", 9164))
        connection.sendall(request)
        with connection.makefile("rb") as answer:
            return answer.read()


@pytest.mark.slow
def test_a_port_for_prometheus(node: Node) -> None:
    with activated(node, options=["--metrics", "[::1]:9164"]):
        networks.pods(node, NETWORK, "a")
        head, _, body = http(node, b"GET /metrics HTTP/1.1\r\nHost: [::1]:9164\r\n\r\n").partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4")
        assert b'cni_v6_calls_total{plugin="cni-v6",command="ADD",network="pods",code="0"} 1\n' in body
        on_socket = nft.ctl(node, "metrics").stdout
        assert [sample.name for sample in parse(body.decode())] == [sample.name for sample in parse(on_socket)]
        assert http(node, b"GET /other HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.0 404 ")
        assert http(node, b"\0\n\n").startswith(b"HTTP/1.0 405 ")
        assert http(node, b"x" * 9000) == b""
        assert http(node, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.0 200 OK")
    assert not list(Path(node.environment["CNI_V6_RUN_DIR"]).glob("metrics*"))
