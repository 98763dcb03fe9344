"""An engine hears of what others do between calls: it loads its firewall's rules again and plugs containers in again.

Nothing here calls a plugin once the harm is done.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cni_v6 import errors
from cni_v6.engine.log_file import RUN_FILE
from cni_v6.firewall import ruleset
from tests.netns import networks, nft, traffic, wire
from tests.netns.networks import DUAL, Pod
from tests.netns.test_firewall_life import without_nft
from tests.sandbox import ROOT, Node

CLOSED = networks.gateway(*DUAL)
OPEN = networks.gateway(*DUAL, ingress="open", guard=False)


@pytest.fixture
def node(warm_node: Node) -> Node:
    return warm_node


def log(node: Node) -> str:
    """What the engine has said, which ends for it."""
    nft.ctl(node, "engine", "--stop")
    lines = Path(node.environment["CNI_V6_RUN_DIR"], RUN_FILE).read_text().splitlines()
    return "\n".join(json.loads(line).get("event", "") for line in lines)


class Before:
    """The rules and elements as they are."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._seen = nft.rules(node), nft.held(node)

    def are_back(self) -> bool:
        rules, held = nft.rules(self._node), nft.held(self._node)
        return (sorted(rules), held) == (sorted(self._seen[0]), self._seen[1])


@contextmanager
def restored(node: Node) -> Iterator[None]:
    """Whatever is done to the rules meanwhile, they come back by themselves."""
    before = Before(node)
    yield
    wire.await_state(node.path, before.are_back, "the rules as they were")


def stays_closed(beyond: str, pod: Pod, port: int = 4000) -> None:
    with traffic.listening(pod.netns, 6, port), traffic.unanswered(beyond, (pod.address(6), port)):
        assert networks.ping(pod.node, pod.address(6), beyond)


DAMAGES = [
    ("flush ruleset", "table inet cni_v6 is gone, table bridge cni_v6 is gone"),
    ("delete table inet cni_v6", "table inet cni_v6 is gone"),
    ("insert rule inet cni_v6 forward_ingress accept", "chain forward_ingress has"),
    ("flush chain inet cni_v6 published6", "chain published6 has 0 rules"),
    ("add table inet cni_v6 { flags dormant; }", "it is dormant"),
    ("replace rule inet cni_v6 published6 handle {handle} accept", "a rule of chain published6 is another one"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_rules_that_others_change_come_back_by_themselves(node: Node, damage: str, words: str) -> None:
    beyond = networks.outside(node)
    [pod] = networks.pods(node, CLOSED, "a")
    stays_closed(beyond, pod)
    listed = node.run("nft", "-a", "list", "chain", "inet", "cni_v6", "published6").stdout
    handles = re.findall(r"# handle (\d+)", listed)
    with restored(node):
        nft.load(node, damage.replace("{handle}", handles[1]))
    stays_closed(beyond, pod, 4001)
    node.plugin("cni-v6", "STATUS", CLOSED).ok()
    said = rf"nft \(process \d+\) changed the firewall's tables: .*{words}.*loaded again, with 1 attachment"
    assert re.search(said, log(node))


def test_what_others_do_in_tables_of_their_own_is_theirs(node: Node) -> None:
    networks.pods(node, CLOSED, "a")
    before = nft.generation(node)
    theirs = "add table inet theirs; add chain inet theirs forward { type filter hook forward priority 0; }"
    for _ in range(20):
        nft.load(node, f"{theirs}; delete table inet theirs")
    assert "changed" not in log(node)
    assert nft.generation(node) == before + 20


def test_a_fight_ends_with_our_rules(node: Node) -> None:
    """Each time they are back, they are flushed again."""
    [pod] = networks.pods(node, CLOSED, "a")
    for _ in range(3):
        with restored(node):
            nft.load(node, "flush ruleset")
    assert pod.check().ok() is None
    assert log(node).count("loaded again") == 3


def test_without_nft_status_tells_and_a_later_call_loads_them(node: Node) -> None:
    [pod] = networks.pods(node, CLOSED, "a")
    before = Before(node)
    nft_itself = node.run("sh", "-c", "cp /usr/sbin/nft /var/lib/cni/nft; echo /var/lib/cni/nft").stdout.strip()
    with without_nft(node):
        node.run(nft_itself, "insert", "rule", "inet", "cni_v6", "forward_ingress", "accept")
        for _ in range(2):
            words = node.plugin("cni-v6", "STATUS", CLOSED).error(errors.LIMITED)
            assert "gone or changed, and cannot be loaded" in words and "install nftables" in words
    reply = node.plugin("cni-v6", "STATUS", CLOSED)  # of a slow node the engine may have done it by now
    assert "loaded again" in (reply.error(errors.LIMITED) if reply.code else log(node))
    assert before.are_back()
    node.plugin("cni-v6", "STATUS", CLOSED).ok()
    assert pod.check().ok() is None


def test_nobody_needs_the_rules(node: Node) -> None:
    """Of a network without a firewall, of one without containers, after a teardown by our own command."""
    [pod] = networks.pods(node, OPEN, "a")
    pod.delete()
    networks.set_up(node, CLOSED)
    nft.load(node, "flush ruleset")
    [pod] = networks.pods(node, CLOSED, "b")
    nft.ctl(node, "teardown", "--force")
    assert "changed" not in log(node)
    assert ruleset.mark() not in nft.text(node)


def test_rules_that_are_there_before_the_engine(node: Node) -> None:
    """One that ended, and the rules changed meanwhile: the next one looks when it starts."""
    [pod] = networks.pods(node, CLOSED, "a")
    before = Before(node)
    nft.ctl(node, "engine", "--stop")
    nft.load(node, "insert rule inet cni_v6 forward_ingress accept")
    node.plugin("cni-v6", "VERSION", CLOSED).ok()
    assert node.plugin("cni-v6", "GC", {**CLOSED, "cni.dev/valid-attachments": [
        {"containerID": "a", "ifname": "eth0"}]}).ok() is None
    wire.await_state(node.path, before.are_back, "the rules as they were")
    with restored(node):
        nft.load(node, "flush ruleset")
    assert pod.check().ok() is None


def test_a_bridge_that_is_deleted_comes_back_by_itself(node: Node) -> None:
    beyond = networks.outside(node)
    pods = networks.pods(node, CLOSED, "a", "b", "c")
    before = node.snapshot()
    for _ in range(2):
        node.run("ip", "link", "delete", "cni0")
        wire.await_state(node.path, lambda: before.difference(node.snapshot()) == [], "the node as it was")
        for pod in pods:
            assert pod.ping(pods[0].address(6)) and pod.ping("10.66.0.1")
            stays_closed(beyond, pod)
    node.plugin("cni-v6", "STATUS", CLOSED).ok()
    for pod in pods:
        pod.delete()
    node.run("ip", "link", "delete", "cni0")
    assert log(node).count("bridge cni0 was gone: plugged 3 containers of network pods in again") == 2
    assert not node.run("ip", "link", "show", "cni0", check=False).stdout, "nobody is left of it"


def test_a_bridge_of_an_administrator_is_his_to_make_again(node: Node) -> None:
    """As ifdown and ifup do, with settings of his own."""
    config = networks.gateway("fd00:7::/64", "10.67.0.0/24", name="other", bridge="br0")
    node.run("ip", "link", "add", "br0", "type", "bridge")
    [ours] = networks.pods(node, CLOSED, "a")
    [theirs] = networks.pods(node, config, "b")
    node.run("ip", "link", "delete", "br0")
    node.run("ip", "link", "delete", "cni0")
    wire.await_state(node.path, lambda: networks.link(node, ours.host).get("master") == "cni0", "our bridge")
    assert not node.run("ip", "link", "show", "br0", check=False).stdout, "the engine heard of it first"
    node.run("ip", "link", "add", "br0", "type", "bridge", "ageing_time", "5000")
    [next_one] = networks.pods(node, config, "c")
    assert next_one.ping(theirs.address(6))
    assert networks.link(node, "br0")["linkinfo"]["info_data"]["ageing_time"] == 5000


def plugged_in(node: Node, pod: Pod) -> bool:
    return bool(networks.link(node, pod.host).get("master") == "cni0")


def test_a_port_that_is_taken_out_of_its_bridge_comes_back_by_itself(node: Node) -> None:
    beyond = networks.outside(node)
    config = networks.gateway(*DUAL, hairpinMode=True)
    pods = networks.pods(node, config, "a", "b")
    before = node.snapshot()
    for pod in pods:
        node.run("ip", "link", "set", pod.host, "nomaster")
        wire.await_state(node.path, lambda: before.difference(node.snapshot()) == [], "the node as it was")
        assert pod.ping(pods[0].address(6)) and pod.ping("10.66.0.1")
        stays_closed(beyond, pod)
    node.plugin("cni-v6", "STATUS", config).ok()
    for pod in pods:
        pod.delete()
    said = log(node)
    for pod in pods:
        assert f"port {pod.host} of pods/{pod.name}/eth0 was taken out of bridge cni0: plugged in again" in said


def test_who_means_it_has_his_way(node: Node) -> None:
    """Another bridge, or a port that is taken out a second time."""
    pods = networks.pods(node, CLOSED, "a", "b", "c")
    node.run("ip", "link", "add", "br9", "type", "bridge")
    node.run("ip", "link", "set", pods[0].host, "master", "br9")
    node.run("ip", "link", "set", pods[1].host, "nomaster")
    wire.await_state(node.path, lambda: plugged_in(node, pods[1]), "the port in its bridge")
    node.run("ip", "link", "set", pods[1].host, "nomaster")
    node.run("ip", "link", "set", pods[2].host, "nomaster")
    wire.await_state(node.path, lambda: plugged_in(node, pods[2]), "the port in its bridge")
    assert networks.link(node, pods[0].host)["master"] == "br9" and not plugged_in(node, pods[1])
    assert "cut off: b/eth0" in node.plugin("cni-v6", "STATUS", CLOSED).error(errors.LIMITED)
    again = "was taken out of bridge cni0 again within 10 seconds: left alone; cni-v6ctl check pods --repair"
    assert f"port {pods[1].host} of pods/{pods[1].name}/eth0 {again} plugs it in" in log(node)
    node.run("ip", "link", "delete", "br9")


LATE = f"""
import sys
sys.path[:0] = {[str(ROOT), *sys.path]!r}
import queue, socket, subprocess, threading
from cni_v6.kernel import link_deletion

class Late:
    def __init__(self, *words):
        self._events = subscribe(*words)

    def recv(self, size):
        data = self._events.recv(size)
        assert go_on.wait(60)
        return data

subscribe, link_deletion.subscribe = link_deletion.subscribe, Late
go_on, left = threading.Event(), queue.Queue()
link_deletion.Reaper(on_port=left.put).remove([socket.if_nametoindex("ours")])
go_on.set()
subprocess.run(["ip", "link", "set", "other", "nomaster"], check=True)
print(left.get(timeout=60))
"""


def test_what_a_call_deletes_has_not_left_its_bridge(quiet_node: Node) -> None:
    """Not even where the kernel's acknowledgement is read before its news, as on a busy machine."""
    quiet_node.run("ip", "link", "add", "cni0", "type", "bridge")
    for name in ("ours", "other"):
        quiet_node.run("ip", "link", "add", name, "master", "cni0", "type", "veth", "peer", "name", f"{name}-peer")
    assert quiet_node.run(sys.executable, "-ISE", "-c", LATE).stdout == "other\n"
