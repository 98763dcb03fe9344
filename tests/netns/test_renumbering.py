"""Ranges that follow the prefix of the node's uplink, and what is done when that changes."""

from __future__ import annotations

import json
import socket
import subprocess
from typing import Any

import pytest

from tests.netns import networks, nft, traffic
from tests.netns.networks import UPLINK, Pod
from tests.sandbox import Node

pytestmark = pytest.mark.slow

FIRST, SECOND = "2001:db8:a::/64", "2001:db8:b::/64"
OWN = {FIRST: "2001:db8:a::1", SECOND: "2001:db8:b::1"}
ROUTER = {FIRST: "2001:db8:a::ffff", SECOND: "2001:db8:b::ffff"}
PART = {FIRST: "2001:db8:a:0:ab00::", SECOND: "2001:db8:b:0:ab00::"}


def network(**keys: Any) -> dict[str, Any]:
    ranges = [[{"from": UPLINK, "subnetId": "ab00", "length": 80}], [{"subnet": networks.SUBNET4}]]
    settings = {"ingress": "open", "ndpProxy": "auto", "ipam": {"ranges": ranges}, **keys}
    return networks.gateway(networks.SUBNET6, **settings)


@pytest.fixture
def router(node: Node) -> str:
    """The router on the uplink, which has the first prefix there."""
    netns = networks.uplink(node)
    give(node, netns, FIRST)
    return netns


def give(node: Node, router: str, prefix: str) -> None:
    """The prefix comes to the uplink: what router advertisements do."""
    node.run("ip", "address", "add", f"{ROUTER[prefix]}/64", "dev", "eth0", "nodad", netns=router)
    node.run("ip", "address", "add", f"{OWN[prefix]}/64", "dev", UPLINK, "nodad")
    node.run("ip", "-6", "route", "replace", "default", "via", ROUTER[prefix], "dev", UPLINK)


def deprecate(node: Node, prefix: str) -> None:
    node.run("ip", "address", "change", f"{OWN[prefix]}/64", "dev", UPLINK, "preferred_lft", "0", "nodad")


def take(node: Node, prefix: str) -> None:
    node.run("ip", "address", "del", f"{OWN[prefix]}/64", "dev", UPLINK)


def test_a_container_has_an_address_of_the_uplinks_prefix(node: Node, router: str) -> None:
    [pod] = networks.pods(node, network(), "a")
    assert pod.address(6) == "2001:db8:a:0:ab00::1"
    assert pod.result["ips"][0] == {
        "address": "2001:db8:a:0:ab00::1/80", "gateway": "fe80::1", "interface": 2,
    }
    assert networks.ping(node, pod.address(6), router) and pod.ping(ROUTER[FIRST])
    assert pod.check().ok() is None
    assert node.plugin("cni-v6", "STATUS", network()).ok() is None


def test_the_next_container_has_one_of_the_prefix_that_the_uplink_has_by_then(node: Node, router: str) -> None:
    config = network()
    [old] = networks.pods(node, config, "a")
    give(node, router, SECOND)
    deprecate(node, FIRST)
    [new] = networks.pods(node, config, "b")
    assert new.address(6).startswith(PART[SECOND])
    assert old.ping(new.address(6)) and new.ping(old.address(6))
    assert networks.ping(node, old.address(6), router) and networks.ping(node, new.address(6), router)
    routes = {route["dst"] for route in node.ip_json("-6", "route", "show", "dev", "cni0", "proto", "static")}
    assert {PART[FIRST] + "/80", PART[SECOND] + "/80"} <= routes
    old.delete()
    take(node, FIRST)
    routes = {route["dst"] for route in node.ip_json("-6", "route", "show", "dev", "cni0", "proto", "static")}
    assert routes == {PART[SECOND] + "/80", new.address(6)}
    assert pod_is_reached(node, new, router)


def pod_is_reached(node: Node, pod: Pod, router: str) -> bool:
    return networks.ping(node, pod.address(6), router) and pod.ping(ROUTER[SECOND])


@pytest.mark.parametrize(("key", "value", "code", "says"), [
    ("from", "none0", 105, "the node has no interface none0"),
    ("from", "lo", 11, "lo has no global IPv6 prefix now"),
    ("length", 63, 7, f"is less than the prefix has: {UPLINK} has {FIRST} now"),
    ("length", 72, 7, f'subnetId: "ab00" does not fit into 8 bits: {UPLINK} has {FIRST} now'),
])
def test_what_is_wrong_is_told(node: Node, router: str, key: str, value: object, code: int, says: str) -> None:
    one = {"from": UPLINK, "subnetId": "ab00", "length": 80, key: value}
    pod = Pod(node, networks.gateway(networks.SUBNET6, ipam={"ranges": [[one]]}), "a")
    with node.unchanged():
        message = pod.call("ADD").error(code)
    assert says in message and "ipam.ranges[0][0]" in message


def test_the_nodes_own_address_is_nobody_elses(node: Node, router: str) -> None:
    node.run("ip", "address", "add", "2001:db8:a:0:ab00::1/64", "dev", UPLINK, "nodad")
    [pod] = networks.pods(node, network(), "a")
    assert pod.address(6) == "2001:db8:a:0:ab00::2"
    with_it = network(args={"cni": {"ips": ["2001:db8:a:0:ab00::1"]}})
    assert "is excluded" in Pod(node, with_it, "b").call("ADD").error(7)


# cni-v6ctl renumber


@pytest.fixture
def conflist(node: Node) -> str:
    path = "/var/lib/cni/pods.conflist"
    plain = {key: value for key, value in network().items() if key not in ("name", "cniVersion")}
    document = {"cniVersion": "1.1.0", "name": "pods", "plugins": [plain]}
    node.file(path).write_text(json.dumps(document))
    return path


def renumber(node: Node, *argv: str) -> list[str]:
    return nft.ctl(node, "renumber", *argv).stdout.splitlines()


def inside(pod: Pod) -> dict[str, bool]:
    """The container's global IPv6 addresses, and whether each is deprecated."""
    held = networks.addresses(pod.node, "eth0", pod.netns)
    return {key.partition("/")[0]: bool(entry.get("deprecated")) for key, entry in held.items()
            if entry["family"] == "inet6" and entry["scope"] == "global"}


def source(pod: Pod, target: str) -> str:
    """The address that the container calls from."""
    [route] = pod.node.ip_json("-6", "route", "get", target, netns=pod.netns)
    return str(route["prefsrc"])


@pytest.mark.slow
@pytest.mark.parametrize("keys", [
    {}, {"ingress": "published", "guard": True}, {"ipMasq": True},
], ids=["open", "firewall", "masquerade"])
@pytest.mark.usefixtures("main_plugin")
def test_a_running_container_follows(node: Node, router: str, conflist: str, keys: dict[str, Any]) -> None:
    document = json.loads(node.file(conflist).read_text())
    document["plugins"][0].update({"ingress": "open", **keys})
    node.file(conflist).write_text(json.dumps(document))
    config = network(**keys)
    a, b = networks.pods(node, config, "a", "b")
    before, wanted = a.address(6), PART[SECOND] + "1"
    with node.unchanged():
        assert renumber(node, conflist) == ["pods/a/eth0: unchanged", "pods/b/eth0: unchanged"]
    routes = a.routes()
    with traffic.listening(a.netns, 6, 8080) as listener, traffic.opened(b.netns, 6, socket.SOCK_STREAM) as caller:
        caller.connect((before, 8080))
        server, _ = listener.accept()
        with server:
            give(node, router, SECOND)
            deprecate(node, FIRST)
            with node.unchanged():
                dry = renumber(node, "--dry-run", conflist)
            assert dry == [f"pods/{pod.name}/eth0: {pod.address(6)} -> {PART[SECOND]}{number}"
                           for number, pod in enumerate((a, b), 1)]
            assert renumber(node, conflist) == dry
            assert inside(a) == {before: True, wanted: False}
            caller.sendall(b"still here")
            assert server.recv(100) == b"still here"
            assert a.routes() == routes
            assert source(a, ROUTER[SECOND]) == wanted
            assert a.ping(ROUTER[SECOND]) and b.ping(wanted) and a.ping(PART[SECOND] + "2")
            if config["ingress"] == "open":
                assert networks.ping(node, wanted, router) and networks.ping(node, before, router)
            assert networks.leases(node) == {pod.address(4) for pod in (a, b)} | {
                f"{PART[prefix]}{number}" for prefix in (FIRST, SECOND) for number in (1, 2)}
            with node.unchanged():
                assert renumber(node, conflist)[0] == f"pods/a/eth0: {wanted} beside {before}"
    take(node, FIRST)
    a.check().ok()
    assert renumber(node, conflist)[0] == f"pods/a/eth0: dropped {before}"
    a.check().ok()
    assert inside(a) == {wanted: False}
    assert renumber(node, conflist) == ["pods/a/eth0: unchanged", "pods/b/eth0: unchanged"]
    assert networks.leases(node) == {a.address(4), b.address(4), wanted, PART[SECOND] + "2"}
    ways = {route["dst"] for route in node.ip_json("-6", "route", "show", "dev", a.home, "proto", "static")}
    if a.home == a.host:
        assert wanted in ways and before not in ways
    else:
        assert PART[SECOND] + "/80" in ways and PART[FIRST] + "/80" not in ways
    assert a.ping(ROUTER[SECOND]) and b.ping(wanted)
    if keys:
        assert not [one for held in nft.held(node).values() for one in held if before in one]
    [c] = networks.pods(node, config, "c")
    assert c.address(6).startswith(PART[SECOND]) and c.ping(wanted)


def test_nothing_is_left_of_a_container_that_was_renumbered(node: Node, router: str, conflist: str) -> None:
    networks.set_up(node, network())
    give(node, router, SECOND)
    deprecate(node, FIRST)
    networks.set_up(node, network())
    with node.unchanged(r"\.seen|\.memo|last_reserved|cursors|released"):
        node.run("ip", "address", "change", f"{OWN[FIRST]}/64", "dev", UPLINK, "nodad", "preferred_lft", "forever")
        node.run("ip", "address", "change", f"{OWN[SECOND]}/64", "dev", UPLINK, "nodad", "preferred_lft", "0")
        [pod] = networks.pods(node, network(), "a")
        assert pod.address(6).startswith(PART[FIRST])
        deprecate(node, FIRST)
        node.run("ip", "address", "change", f"{OWN[SECOND]}/64", "dev", UPLINK, "nodad", "preferred_lft", "forever")
        assert " -> " in renumber(node, conflist)[0]
        pod.delete()
        node.remove_container("a")


def test_the_first_prefix_comes_back(node: Node, router: str, conflist: str) -> None:
    [pod] = networks.pods(node, network(), "a")
    before, after = pod.address(6), PART[SECOND] + "1"
    give(node, router, SECOND)
    deprecate(node, FIRST)
    renumber(node, conflist)
    assert inside(pod) == {before: True, after: False}
    node.run("ip", "address", "change", f"{OWN[FIRST]}/64", "dev", UPLINK, "nodad", "preferred_lft", "forever")
    deprecate(node, SECOND)
    assert renumber(node, conflist) == [f"pods/a/eth0: {before} beside {after}"]
    assert inside(pod) == {before: False, after: True}
    take(node, SECOND)
    assert renumber(node, conflist) == [f"pods/a/eth0: dropped {after}"]
    assert inside(pod) == {before: False}
    node.run("ip", "-6", "route", "replace", "default", "via", ROUTER[FIRST], "dev", UPLINK)
    assert pod.ping(ROUTER[FIRST]) and networks.ping(node, before, router)


def test_a_container_whose_namespace_is_held_by_a_process_alone(node: Node, router: str, conflist: str) -> None:
    """As Docker's and most pods': no name leads to it."""
    [pod] = networks.pods(node, network(), "a")
    argv = ["nsenter", f"--net={pod.netns}", "sh", "-c", "echo ready; cat"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as held:
        assert held.stdout and held.stdout.readline() == b"ready\n"
        # As ``ip netns delete`` and runtimes do: the engine may still have the file open.
        node.run("umount", "--lazy", pod.netns)
        give(node, router, SECOND)
        deprecate(node, FIRST)
        assert renumber(node, conflist) == [f"pods/a/eth0: {pod.address(6)} -> {PART[SECOND]}1"]
        held.communicate()


def test_no_prefix_now(node: Node, router: str, conflist: str) -> None:
    [pod] = networks.pods(node, network(), "a")
    take(node, FIRST)
    done = nft.ctl(node, "renumber", conflist, check=False)
    assert done.returncode == 1 and "error 11" in done.stderr and "no global IPv6 prefix now" in done.stderr
    assert inside(pod) == {pod.address(6): False}
