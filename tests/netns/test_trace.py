"""``cni-v6ctl trace``: what it sees of a packet is what becomes of it. ``test_explain`` has more situations for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import pytest

from tests import outputs
from tests.netns import networks, nft, traffic, wire
from tests.netns.networks import DUAL, GATEWAY4, GATEWAY6, NODE_OUTSIDE, OUTSIDE, ROUTED, UPLINK, Pod
from tests.processes import interruptible
from tests.sandbox import ROOT, Node

pytestmark = pytest.mark.xdist_group("trace")
PORT, HOST_PORT = 80, 8080
EGRESS = [{"to": "192.0.2.0/24"}, {"to": "fd00:6::/64"}]
OTHER = ("fd00:7::/64", "10.67.0.0/24")
NARROW4, FAR4 = "198.51.100.1/24", "198.51.100.9"  # behind the host beyond the node: a link of 1280 bytes
STRANGER = "2001:db8:666::7"


@dataclass(frozen=True)
class Case:
    """``to`` and ``more``: of the command; A6: the neighbour's address. ``who``: the container that sends. ``spoil``
    and ``undo``: sh on the node. ``chain``: that has dropped it; ``reason``: of the kernel."""

    to: str
    why: str
    more: str = ""
    who: str = "pod"
    spoil: str = ""
    undo: str = ""
    arrived: bool = False
    chain: str = ""
    reason: str = ""


CASES = {
    "neighbour": Case("A6", "it is answered", arrived=True),
    "nobody listens": Case("[A6]:81", "is refused: nobody listens on that port", arrived=True),
    "published port": Case(f"[{NODE_OUTSIDE[6]}]:{HOST_PORT}", "it is answered", arrived=True),
    "hairpin": Case(f"{NODE_OUTSIDE[4]}:{HOST_PORT}", "it is answered", who="neighbour", arrived=True),
    "a datagram to the node": Case(f"{GATEWAY4}:9", "nobody listens on that port", "--udp", arrived=True),
    "a spoofed source": Case(OUTSIDE[6], "its source is no address of the container", f"--source {STRANGER}",
                             chain="guard_address6"),
    "a spoofed source, routed": Case(OUTSIDE[6], "its source is no address of the container",
                                     f"--source {STRANGER}", who="routed", chain="bound_source"),
    "closed to other networks": Case("[A6]:80", 'ingress "published" closes it, but for', who="routed",
                                     chain="published6"),
    "rp_filter": Case(
        OUTSIDE[4], "would not answer through the interface", spoil="sysctl -w net.ipv4.conf.cni0.rp_filter=1; "
        "ip route delete 10.66.0.0/24 dev cni0", undo="sysctl -w net.ipv4.conf.cni0.rp_filter=0; "
        f"ip route add 10.66.0.0/24 dev cni0 src {GATEWAY4}", reason="IP_RPFILTER",
    ),
    "no route": Case(
        "2001:db8:77::1", "network is unreachable, says fd00:6::1 - the node has no default route of IPv6",
        spoil=f"ip -6 route delete default dev {UPLINK}",
        undo=f"ip -6 route add default via {OUTSIDE[6]} dev {UPLINK}",
    ),
    "larger than the next link": Case(FAR4, "message too long, says", "--size 1400"),
    "a rule without conditions": Case(
        OUTSIDE[6], "chain f of table inet other, which is not of cni-v6, drops it: ip6 daddr 2001:db8::/32 drop",
        spoil="nft add table inet other; nft 'add chain inet other f { type filter hook forward priority 0; }'; "
        "nft add rule inet other f ip6 daddr 2001:db8::/32 drop", undo="nft delete table inet other", chain="f",
    ),
    "an answer that is dropped": Case(
        GATEWAY6, "its answer is dropped: chain o of table inet other", arrived=True,
        spoil="nft add table inet other; nft 'add chain inet other o { type filter hook output priority 0; }'; "
        "nft add rule inet other o icmpv6 type echo-reply drop", undo="nft delete table inet other", chain="o",
    ),
}


@pytest.fixture(scope="module")
def pods() -> Iterator[dict[str, Pod]]:
    """Four containers on a node with a host beyond it: two of a bridge, one with an egress list, one of a routed
    network. No engine."""
    with closing(Node()) as node:
        beyond = networks.outside(node)
        networks.narrow(node, beyond, [NARROW4])
        for prefix in OTHER:
            node.run("ip", "route", "add", prefix, "via", NODE_OUTSIDE[traffic.family_of(prefix)], netns=beyond)
        for family in (4, 6):
            node.run("ip", f"-{family}", "route", "add", "default", "via", OUTSIDE[family], "dev", UPLINK)
        ports = [{"hostPort": HOST_PORT, "containerPort": PORT, "protocol": "tcp"}]
        config = networks.gateway(*DUAL)
        made = {
            "pod": Pod(node, config, "pod"),
            "neighbour": Pod(node, {**config, "runtimeConfig": {"portMappings": ports}}, "neighbour"),
            "limited": Pod(node, {**config, "egress": EGRESS}, "limited"),
        }
        token = networks.main.set(ROUTED)
        made["routed"] = Pod(node, networks.gateway(*OTHER, name="others"), "routed")
        networks.main.reset(token)
        for pod in made.values():
            pod.add()
        assert made["pod"].ping(GATEWAY4) and made["pod"].ping(GATEWAY6)  # so it knows the MAC, whichever test is first
        with traffic.serving(made["neighbour"].netns, PORT):
            yield made


def traced(pod: Pod, *arguments: str) -> tuple[int, Any]:
    done = nft.ctl(pod.node, "trace", pod.name, *arguments, "--json", check=False)
    assert not done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_becomes_of_a_packet(pods: dict[str, Pod], name: str) -> None:
    case, pod, neighbour = CASES[name], pods[CASES[name].who], pods["neighbour"]
    to = case.to.replace("A6", neighbour.address(6))
    patience = ("--timeout", "1") if case.chain or case.reason else ()
    if case.spoil:
        pod.node.run("sh", "-ec", case.spoil)
    try:
        status, seen = traced(pod, "--to", to, *case.more.split(), *patience)
    finally:
        if case.undo:
            pod.node.run("sh", "-ec", case.undo)
    assert case.why in seen["why"], seen
    assert seen["arrived"] == case.arrived and status == int(not case.arrived)
    assert [step["by"] for step in seen["steps"] if step["verdict"] == "drop"] == [case.chain] * bool(case.chain)
    assert [drop["reason"] for drop in seen["kernelDrops"]][:1] == [case.reason] * bool(case.reason) or not case.reason
    assert "cni_v6_trace" not in nft.text(pod.node)


@pytest.mark.slow
def test_what_it_prints(pods: dict[str, Pod]) -> None:
    pod = pods["pod"]
    with pod.node.unchanged():
        done = nft.ctl(pod.node, "trace", pod.address(6), "--to", f"[{pods['neighbour'].address(6)}]:80", "--rules")
    assert done.stdout.endswith("so  it is answered\n") and "ip6 saddr @sources6" in done.stdout
    assert f"to    TCP to [{pods['neighbour'].address(6)}]:80" in done.stdout
    assert "is no container" in nft.ctl(pod.node, "trace", "nosuch", check=False).stderr


def _watching(pod: Pod, *arguments: str) -> subprocess.Popen[str]:
    argv = [*pod.node._enter(pod.node.path), str(ROOT / "bin/cni-v6ctl"), "trace", pod.name, "--json", *arguments]
    with interruptible():
        process = subprocess.Popen(argv, text=True, stdout=subprocess.PIPE, env={**os.environ, **pod.node.environment})
    wire.await_state(pod.node.path, lambda: "cni_v6_trace" in nft.text(pod.node), "tracing")
    return process


def _awaited(process: subprocess.Popen[str], key: str, value: str) -> Any:
    """The first line that says so: a container says other things too, such as neighbour discovery."""
    assert process.stdout
    for line in process.stdout:
        outputs.check([str(ROOT / "bin/cni-v6ctl"), "trace", "--json"], line)
        if (found := json.loads(line)).get(key) == value:
            return found
    raise AssertionError(f"it has ended without {key} {value}")


@pytest.mark.slow
def test_watching(pods: dict[str, Pod]) -> None:
    """The packets of a container, until Ctrl-C; or a number of drops."""
    pod, limited = pods["pod"], pods["limited"]
    with _watching(pod) as process:
        assert pod.ping(GATEWAY6)
        seen = _awaited(process, "packet", f"icmpv6 type 128 {pod.address(6)} > {GATEWAY6}")
        assert (seen["hook"], seen["in"], seen["verdict"]) == ("prerouting", pod.host, "accept")
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 0
    with _watching(limited, "--drops", "--count", "9") as process, ExitStack() as stack:
        for _ in range(9):
            stack.enter_context(traffic.calling(limited.netns, OUTSIDE[6], PORT))
        drop = _awaited(process, "by", "allowed6")
        assert drop["why"].startswith("its egress list does not allow it") and drop["verdict"] == "drop"
        process.communicate(timeout=60)
        assert process.returncode == 0


@pytest.mark.slow
def test_nothing_is_traced_any_more_once_it_is_killed(pods: dict[str, Pod]) -> None:
    pod = pods["pod"]
    with pod.node.unchanged(), _watching(pod) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        wire.await_state(pod.node.path, lambda: "cni_v6_trace" not in nft.text(pod.node), "the end of tracing")
