"""A node with one /64, which its router takes for on-link: containers with addresses of it; and the uplink's MTU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cni_v6 import errors
from tests.netns import networks, wire
from tests.netns.networks import UPLINK, Pod
from tests.netns.stepped_kernel import CUT, FAIL, SteppedPlugin
from tests.sandbox import Node

pytestmark = pytest.mark.slow

ROUTER = "2001:db8::ffff"
NODE = "2001:db8::1"
PART = "2001:db8:0:0:1::/112"  # of the /64; the containers'
OPEN = {"ingress": "open", "guard": False}
SMALL = 1400


@pytest.fixture
def router(node: Node) -> str:
    """Where the node's provider has its router; it knows nothing but the /64."""
    netns = networks.uplink(node)
    node.run("ip", "address", "add", f"{NODE}/64", "dev", UPLINK, "nodad")
    node.run("ip", "-6", "route", "add", "default", "via", ROUTER, "dev", UPLINK)
    node.run("ip", "address", "add", f"{ROUTER}/64", "dev", "eth0", "nodad", netns=netns)
    return netns


def network(**keys: Any) -> dict[str, Any]:
    return networks.gateway(PART, **{**OPEN, "ndpProxy": "auto", **keys})


def proxies(node: Node) -> set[tuple[str, str]]:
    """(interface, address) of each entry."""
    return {(entry["dev"], entry["dst"]) for entry in node.ip_json("-6", "neighbour", "show", "proxy")}


def host_routes(node: Node) -> set[tuple[str, str]]:
    """(interface, address) of each route to one host, but for the kernel's own."""
    routes = node.ip_json("-6", "route", "show", "proto", "static")
    return {(route["dev"], route["dst"]) for route in routes if "/" not in route["dst"]}


def forget(node: Node, netns: str) -> None:
    """The router asks anew."""
    node.run("ip", "-6", "neighbour", "flush", "dev", "eth0", netns=netns)


@pytest.mark.parametrize("where", ["auto", UPLINK])
@pytest.mark.usefixtures("main_plugin")
@pytest.mark.core
def test_the_router_reaches_a_container_of_its_prefix(node: Node, router: str, where: str) -> None:
    config = network(ndpProxy=where)
    networks.set_up(node, config)
    with node.unchanged(r"\.seen"):
        a, b = networks.pods(node, config, "a", "b")
        both = {a.address(6), b.address(6)}
        assert proxies(node) == {(UPLINK, address) for address in both}
        assert host_routes(node) == {(pod.home, pod.address(6)) for pod in (a, b)}
        for pod in (a, b):
            assert networks.ping(node, pod.address(6), router)
            assert pod.ping(ROUTER)
            pod.check().ok()
        a.delete()
        assert proxies(node) == {(UPLINK, b.address(6))} and host_routes(node) == {(b.home, b.address(6))}
        forget(node, router)
        assert not networks.ping(node, a.address(6), router, patience=1)
        assert networks.ping(node, b.address(6), router)
        b.delete()
        for name in "ab":
            node.remove_container(name)


@pytest.mark.usefixtures("main_plugin")
def test_a_router_that_checks_on_an_address_has_its_answer(node: Node, router: str) -> None:
    """By a solicitation to the address itself: forwarded, the container would drop it, one hop away."""
    [pod] = networks.pods(node, network(), "a")
    address = pod.address(6)
    assert networks.ping(node, address, router)
    mac = networks.link(node, UPLINK)["address"]
    probe = ("neighbour", "replace", address, "lladdr", mac, "dev", "eth0", "nud", "probe")
    node.run("ip", *probe, netns=router)
    wire.await_state(router, lambda: state(node, router, address) in ("REACHABLE", "FAILED"), "an answer, or none")
    assert state(node, router, address) == "REACHABLE"


def state(node: Node, netns: str, address: str) -> str:
    [entry] = node.ip_json("neighbour", "show", address, netns=netns)
    return str(entry["state"][0])


@pytest.fixture
def stepped(node: Node) -> Iterator[SteppedPlugin]:
    made = SteppedPlugin(node)
    yield made
    made.close()


def test_where_the_kernel_forces_nothing(node: Node, router: str, stepped: SteppedPlugin) -> None:
    pod = Pod(node, network(), "a")
    answer = stepped.call(pod, "ADD", hide="force_forwarding")
    assert answer.code == 0, answer
    pod.result = answer.stdout
    assert networks.sysctl(node, "ipv6/conf/all/forwarding") == "1"
    assert networks.ping(node, pod.address(6), router)
    pod.delete()
    assert proxies(node) == host_routes(node) == set()


@pytest.mark.usefixtures("main_plugin")
def test_a_node_that_lives_on_advertisements_keeps_its_route(node: Node) -> None:
    """The uplink's own forwarding is what costs other nodes their routes."""
    netns = networks.uplink(node)

    def known() -> list[Any]:
        return [route["gateway"] for route in node.ip_json("-6", "route", "show", "default")]

    with wire.advertising(netns, "eth0", "2001:db8::"):
        wire.await_state(node.path, known, "a default route")
        wire.await_state(
            node.path, lambda: [each for each in networks.addresses(node, UPLINK) if "2001:" in each], "SLAAC"
        )
    before = known()
    node.run("ip", "address", "add", f"{ROUTER}/64", "dev", "eth0", "nodad", netns=netns)
    [pod] = networks.pods(node, network(), "a")
    assert known() == before
    assert networks.ping(node, pod.address(6), netns)


def test_another_prefix_is_left_to_routing(node: Node, router: str) -> None:
    pod = Pod(node, networks.gateway(*networks.DUAL, **OPEN, ndpProxy="auto"), "a")
    said = pod.call("ADD")
    said.ok()
    assert "no address lies in an on-link prefix of uplink0" in said.stderr
    assert proxies(node) == host_routes(node) == set()


def test_an_interface_that_is_not_there(node: Node) -> None:
    with node.unchanged():
        pod = Pod(node, network(ndpProxy="ens9"), "a")
        assert "ndpProxy: the node has no interface ens9" in pod.call("ADD").error(errors.NODE_CONFLICT)
        node.remove_container("a")


def test_gc_takes_away_what_a_crash_left(node: Node, router: str) -> None:
    config = network()
    networks.set_up(node, config)
    with node.unchanged(r"\.seen"):
        networks.pods(node, config, "a")
        node.remove_container("a")
        assert len(proxies(node)) == len(host_routes(node)) == 1
        node.plugin("cni-v6", "GC", {**config, "cni.dev/valid-attachments": []}).ok()


@pytest.mark.usefixtures("main_plugin")
def test_del_needs_no_configuration_of_it(node: Node, router: str) -> None:
    config = network()
    networks.set_up(node, config)
    with node.unchanged(r"\.seen"):
        [pod] = networks.pods(node, config, "a")
        pod.delete({**config, "ndpProxy": "ens9"})
        node.remove_container("a")


@pytest.mark.usefixtures("main_plugin")
def test_an_uplink_that_is_gone_is_fine(node: Node, router: str) -> None:
    [pod] = networks.pods(node, network(), "a")
    node.run("ip", "link", "delete", UPLINK)
    pod.delete()
    assert host_routes(node) == set()


@pytest.mark.usefixtures("main_plugin")
def test_check_names_what_is_missing(node: Node, router: str) -> None:
    [pod] = networks.pods(node, network(), "a")
    address = pod.address(6)
    node.run("ip", "-6", "neighbour", "delete", "proxy", address, "dev", UPLINK)
    node.run("ip", "-6", "route", "delete", address, "dev", pod.home)
    networks.set_sysctl(node, f"ipv6/conf/{UPLINK}/forwarding", "0")
    said = pod.check().error(errors.CHECK_FAILED)
    assert f"does not answer for {address} on {UPLINK}" in said
    assert f"route {address}/128 through {pod.home} is missing" in said
    assert f"answers for nobody on {UPLINK}" in said


@pytest.mark.slow
@pytest.mark.parametrize("what", [CUT, FAIL])
def test_cut_off_anywhere_nothing_is_left(node: Node, router: str, stepped: SteppedPlugin, what: str) -> None:
    pod = Pod(node, network(), "a")
    for _ in range(2):  # the first has what belongs to the network to do
        steps = stepped.call(pod, "ADD").steps
        assert stepped.call(pod, "DEL").code == 0
    with node.unchanged(r"\.seen"):
        for position in range(steps + 1):
            assert stepped.call(pod, "ADD", what, position).code != 0
            if what == CUT:
                assert stepped.call(pod, "DEL").code == 0
            assert proxies(node) == host_routes(node) == set(), f"cut off before operation {position}"


# MTU


def test_the_smallest_mtu_of_the_uplinks(node: Node) -> None:
    networks.outside(node)
    node.run("ip", "link", "add", "second0", "type", "bridge")
    for command in (
        ("address", "add", "198.51.100.1/24", "dev", "second0"), ("link", "set", "second0", "mtu", str(SMALL), "up"),
        ("-6", "route", "add", "default", "via", networks.OUTSIDE[6]),
        ("route", "add", "default", "via", "198.51.100.9"),
    ):
        node.run("ip", *command)
    [pod] = networks.pods(node, networks.gateway(*networks.DUAL, **OPEN, mtu="auto"), "a")
    assert [each["mtu"] for each in pod.result["interfaces"]] == [SMALL] * 3
    found = [pod.link(), networks.link(node, pod.host), networks.link(node, "cni0")]
    assert [each["mtu"] for each in found] == [SMALL] * 3
    pod.check().ok()
    size = str(SMALL - 48)  # less the headers of IPv6 and ICMPv6
    assert node.run("ping", "-c1", "-Mdo", "-s", size, "-n", networks.OUTSIDE[6], netns=pod.netns).returncode == 0


def test_an_ipv4_uplink_too_small_for_ipv6_leaves_it_its_least(node: Node) -> None:
    networks.outside(node)
    node.run("ip", "link", "set", UPLINK, "mtu", "1200")
    node.run("ip", "route", "add", "default", "via", networks.OUTSIDE[4])
    pod = Pod(node, networks.gateway(*networks.DUAL, **OPEN, mtu="auto"), "a")
    said = pod.call("ADD")
    pod.result = said.ok()
    assert "mtu: auto: an uplink has 1200, below the 1280 that IPv6 needs; containers get 1280" in said.stderr
    assert pod.link()["mtu"] == 1280 and pod.address(6)
