"""The reference plugins as peers: what they do with a configuration, ours do too; and theirs work with our IPAM."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.sandbox import ROOT, Node

from . import networks, peers
from .networks import BRIDGE, SUBNET4, SUBNET6

pytestmark = pytest.mark.runtimes

NETWORK = "peer"
VERSION = "1.0.0"  # the newest that Debian's reference plugins know
CONTAINERS = ("a", "b")


def config(type: str, ipam: Mapping[str, Any], **keys: Any) -> dict[str, Any]:
    return {"cniVersion": VERSION, "name": NETWORK, "type": type, "ipam": ipam, **keys}


def sets(*subnets: str, **keys: Any) -> dict[str, Any]:
    return {"ranges": [[{"subnet": subnet}] for subnet in subnets], **keys}


DEFAULTS = [{"dst": "::/0"}, {"dst": "0.0.0.0/0"}]
# Between them these show every difference
TYPICAL: dict[str, dict[str, Any]] = {
    "dual-stack": {"isGateway": True, "ipam": sets(SUBNET6, SUBNET4, routes=DEFAULTS)},
    "ipv6-only": {"isGateway": True, "ipam": sets(SUBNET6, routes=DEFAULTS[:1])},
    "ipv4-only": {"isGateway": True, "ipam": sets(SUBNET4, routes=DEFAULTS[1:])},
    "no-gateway": {"isGateway": False, "ipam": sets(SUBNET6, SUBNET4, routes=DEFAULTS)},
}
CONFIGS: dict[str, dict[str, Any]] = {
    "ipv4-first": {"isDefaultGateway": True, "ipam": sets(SUBNET4, SUBNET6)},
    "default-gateway": {"isDefaultGateway": True, "ipam": sets(SUBNET6, SUBNET4)},
    "routes": {
        "isGateway": True,
        "ipam": sets(
            SUBNET6,
            SUBNET4,
            routes=[
                {"dst": "fd00:7::/48"},
                {"dst": "fd00:8::/48", "gw": "fd00:6::fe"},
                {"dst": "10.7.0.0/16"},
                {"dst": "10.8.0.0/16", "gw": "10.66.0.254"},
            ],
        ),
    },
    "part-of-a-subnet": {
        "isGateway": True,
        "ipam": {
            "ranges": [
                [{"subnet": SUBNET6, "rangeStart": "fd00:6::100", "rangeEnd": "fd00:6::1ff", "gateway": "fd00:6::fe"}],
                [{"subnet": SUBNET4, "rangeStart": "10.66.0.100", "rangeEnd": "10.66.0.110", "gateway": "10.66.0.254"}],
            ]
        },
    },
    "spilling-over": {
        "isGateway": True,
        "ipam": {
            "ranges": [
                [
                    {"subnet": SUBNET4, "rangeStart": "10.66.0.10", "rangeEnd": "10.66.0.10"},
                    {"subnet": SUBNET4, "rangeStart": "10.66.0.20", "rangeEnd": "10.66.0.29"},
                ]
            ]
        },
    },
    "one-subnet": {"isGateway": True, "ipam": {"subnet": SUBNET4, "gateway": "10.66.0.200"}},
    "layer-2": {"ipam": {}},
    "mtu": {"isGateway": True, "mtu": 1400, "ipam": sets(SUBNET6, SUBNET4)},
    "hairpin": {"isGateway": True, "hairpinMode": True, "ipam": sets(SUBNET6)},
    "promiscuous": {"isGateway": True, "promiscMode": True, "ipam": sets(SUBNET6)},
    **{f"dual-stack in {version}": {"cniVersion": version, "isGateway": True, "ipam": sets(SUBNET6, SUBNET4)}
       for version in ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0")},
    "dns": {
        "isGateway": True,
        "dns": {"nameservers": ["fd00:6::53"], "domain": "x.test", "search": ["x.test"], "options": ["ndots:2"]},
        "ipam": sets(SUBNET6),
    },
}


@pytest.fixture
def make_node() -> Iterator[Callable[[], Node]]:
    """Throwaway nodes, as many as a test asks for."""
    made: list[Node] = []

    def make() -> Node:
        made.append(Node())
        return made[-1]

    try:
        yield make
    finally:
        for node in made:
            node.close()


def both(make_node: Callable[[], Node], keys: Mapping[str, Any]) -> tuple[dict[str, object], dict[str, object]]:
    """The view of the same network after the reference plugins, and after ours."""
    seen = []
    for type, ipam in (("bridge", "host-local"), (networks.PLUGIN, networks.IPAM)):
        section = {"type": ipam, **keys["ipam"]} if keys["ipam"] else {}
        conf = config(type, section, bridge=BRIDGE) | {**keys, "ipam": section}
        node = make_node()
        seen.append(peers.attach(node, type, conf, CONTAINERS))
        peers.detach(node, type, conf, CONTAINERS)
    return seen[0], seen[1]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_configuration_does_the_same(make_node: Callable[[], Node], name: str) -> None:
    unexpected, _ = peers.compare(*both(make_node, CONFIGS[name]))
    assert unexpected == []


def test_every_difference_is_meant_and_documented(make_node: Callable[[], Node]) -> None:
    found: set[peers.Difference] = set()
    for keys in TYPICAL.values():
        unexpected, met = peers.compare(*both(make_node, keys))
        assert unexpected == []
        found |= met
    assert {entry for entry in peers.ON_PURPOSE if entry.anywhere} <= found
    text = (ROOT / "docs/differences.md").read_text()
    assert [entry.reason for entry in peers.ON_PURPOSE if f"## {entry.reason}\n" not in text] == []


def addresses(node: Node, netns: str) -> list[str]:
    links = node.ip_json("address", "show", "dev", peers.IFNAME, "scope", "global", netns=netns)
    return [f"{entry['local']}/{entry['prefixlen']}" for entry in links[0]["addr_info"] if entry]


def attached(node: Node, conf: Mapping[str, Any], name: str) -> list[str]:
    """ADD a container with a reference plugin; its addresses, which must be those of the result."""
    netns = node.containers[name]
    variables = {"container_id": f"peer-{name}", "ifname": peers.IFNAME, "netns": netns}
    result = node.plugin(conf["type"], "ADD", conf, **variables).ok()
    found = addresses(node, netns)
    assert sorted(found) == sorted(entry["address"] for entry in result["ips"])
    return [address.partition("/")[0] for address in found]


def ping(node: Node, name: str, address: str) -> None:
    node.run("ping", "-c", "1", "-W", "5", address, netns=node.containers[name])


def check_two_containers(node: Node, conf: Mapping[str, Any]) -> None:
    """Two containers reach each other over both families, and everything goes with them."""
    for name in ("first", *CONTAINERS):
        netns = node.container(name)
        # The reference main plugins wait for duplicate address detection, for seconds at every ADD
        node.run("sysctl", "-w", "net.ipv6.conf.default.accept_dad=0", netns=netns)
    attached(node, conf, "first")  # what a plugin sets up once for the node, such as forwarding, stays
    peers.detach(node, conf["type"], conf, ["first"])
    with node.unchanged(ignore="store [^ ]*/cursors/"):
        one, two = (attached(node, conf, name) for name in CONTAINERS)
        assert len(one) == len(two) == 2
        for address in two:
            ping(node, CONTAINERS[0], address)
        for address in one:
            ping(node, CONTAINERS[1], address)
        peers.detach(node, conf["type"], conf, CONTAINERS)
        peers.detach(node, conf["type"], conf, CONTAINERS)


def test_macvlan_with_our_ipam(node: Node) -> None:
    node.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    for end in ("up0", "up1"):
        node.run("ip", "link", "set", end, "up")
    check_two_containers(node, config("macvlan", networks.ipam(SUBNET6, SUBNET4), master="up0", mode="bridge"))


def test_ptp_with_our_ipam(node: Node) -> None:
    check_two_containers(node, config("ptp", networks.ipam(SUBNET6, SUBNET4)))
