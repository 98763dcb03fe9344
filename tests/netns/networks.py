"""Networks and containers for the end-to-end tests: configurations, attachments, a host beyond the node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from tests.netns import wire
from tests.sandbox import Node, Reply

SUBNET6, GATEWAY6 = "fd00:6::/64", "fd00:6::1"
SUBNET4, GATEWAY4 = "10.66.0.0/24", "10.66.0.1"
DUAL = (SUBNET6, SUBNET4)
STORE = "/var/lib/cni/networks"

UPLINK = "uplink0"
OUTSIDE = {4: "192.0.2.2", 6: "2001:db8:ffff::2"}
NODE_OUTSIDE = {4: "192.0.2.1", 6: "2001:db8:ffff::1"}
LENGTH = {4: 24, 6: 64}
PATIENCE = 10
BRIDGE, ROUTED, MACVLAN = "cni-v6", "cni-v6-routed", "cni-v6-macvlan"
OF_A_BRIDGE = ("bridge", "isGateway", "isDefaultGateway")
main = ContextVar("main", default=BRIDGE)  # the type of ``network``
# Our tables, which stay after the last container as the bridge does, in a snapshot of the node; not what is in them.
TABLES = r"nftables table (inet|bridge) cni_v6(?!.*elements)"


def network(*subnets: str, ipam: Mapping[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    """A configuration of the main plugin (``main_plugin``) with one set a subnet, layer 2 only without any.

    :param ipam: further keys of ``ipam``.
    """
    config: dict[str, Any] = {"cniVersion": "1.1.0", "name": "pods", "type": main.get(), "bridge": "cni0", **keys}
    if main.get() != BRIDGE:
        config = {key: value for key, value in config.items() if key not in OF_A_BRIDGE}
    if main.get() == MACVLAN:
        config = {"master": UPLINK, **config}
    if subnets:
        config["ipam"] = {"type": "cni-v6-ipam", "ranges": [[{"subnet": subnet}] for subnet in subnets], **(ipam or {})}
    return config


def gateway(*subnets: str, **keys: Any) -> dict[str, Any]:
    """The usual network: the node is the containers' default gateway."""
    return network(*subnets, **{"isDefaultGateway": True, **keys})


class Pod:
    """One attachment of a container to a network, and how a runtime calls for it.

    :param quick: a macvlan's addresses are taken without duplicate address detection, which takes a second.
    """

    def __init__(
        self, node: Node, config: Mapping[str, Any], name: str, ifname: str = "eth0", *, quick: bool = True
    ) -> None:
        self.node = node
        self.config = config
        self.name = name
        self.ifname = ifname
        self.netns = node.containers.get(name) or node.container(name)
        self.result: Any = None
        if config["type"] == MACVLAN and quick:
            set_sysctl(node, "ipv6/conf/default/dad_transmits", "0", self.netns)

    def call(self, command: str, config: Mapping[str, Any] | None = None, **variables: Any) -> Reply:
        """One call as it comes; ``variables`` as of ``make_call``."""
        given = {"container_id": self.name, "ifname": self.ifname, "netns": self.netns, **variables}
        return self.node.plugin(self.config["type"], command, config or self.config, **given)

    def add(self, config: Mapping[str, Any] | None = None, **variables: Any) -> Any:
        """ADD that must succeed; returns and keeps its result."""
        self.result = self.call("ADD", config, **variables).ok()
        return self.result

    def check(self, config: Mapping[str, Any] | None = None) -> Reply:
        """CHECK with the result of ``add``."""
        return self.call("CHECK", {**(config or self.config), "prevResult": self.result})

    def delete(self, config: Mapping[str, Any] | None = None, **variables: Any) -> None:
        """DEL that must succeed, and say nothing."""
        assert self.call("DEL", config, **variables).ok() is None

    def address(self, family: int) -> str:
        """The pod's address of a family by its result (1.0.0 or later), without prefix length."""
        found = (ip["address"].partition("/")[0] for ip in self.result["ips"])
        return str(next(ip for ip in found if (":" in ip) == (family == 6)))

    @property
    def host(self) -> str:
        """The host interface by the result: the one before the container's."""
        interfaces = self.result["interfaces"]
        inside = next(number for number, each in enumerate(interfaces) if "sandbox" in each)
        return str(interfaces[inside - 1]["name"])

    @property
    def home(self) -> str:
        """The node's interface through which the container is reached."""
        return self.host if self.config["type"] == ROUTED else str(self.config["bridge"])

    @property
    def mac(self) -> str:
        return str(next(each["mac"] for each in self.result["interfaces"] if "sandbox" in each))

    def gateway(self, family: int) -> str:
        """The gateway of a family as a program in the container names it; "" where an IPv6 address is IPv4's."""
        found = next(ip.get("gateway", "") for ip in self.result["ips"] if (":" in ip["address"]) == (family == 6))
        return f"{found}%{self.ifname}" if found.startswith("fe80:") else str(found)

    def link(self) -> Any:
        """The container's interface as ``ip -d address`` shows it."""
        return self.node.ip_json("-d", "address", "show", "dev", self.ifname, netns=self.netns)[0]

    def routes(self, *more: str) -> list[Any]:
        """The container's routes of both families through its interface, but for those that follow from addresses."""
        found = [
            route
            for family in ("-4", "-6")
            for route in self.node.ip_json(family, "route", "show", *more, "dev", self.ifname, netns=self.netns)
        ]
        return [route for route in found if route.get("protocol") != "kernel"]

    def ping(self, address: str, patience: int = PATIENCE) -> bool:
        """Whether one echo request has its reply, see ``ping``."""
        return ping(self.node, address, self.netns, patience)


def ping(node: Node, address: str, netns: str = "", patience: int = PATIENCE) -> bool:
    """Whether one echo request from the node or a namespace has its reply.

    :param patience: seconds after which it has none; a short one is for those that expect none.
    """
    done = node.run("ping", "-c1", f"-W{patience}", "-n", address, netns=netns, check=False)
    return done.returncode == 0


def pods(node: Node, config: Mapping[str, Any], *names: str) -> list[Pod]:
    """Containers attached to a network."""
    made = [Pod(node, config, name) for name in names]
    for pod in made:
        pod.add()
    return made


def set_up(node: Node, config: Mapping[str, Any]) -> None:
    """A first container, come and gone: what belongs to the network (bridge, gateway, forwarding) is there now."""
    pod = Pod(node, config, "first")
    pod.add()
    pod.delete()
    node.remove_container("first")


def families(subnets: Sequence[str]) -> list[int]:
    return [6 if ":" in subnet else 4 for subnet in subnets]


def addresses(node: Node, ifname: str, netns: str = "") -> dict[str, Any]:
    """``ip/prefixlen`` -> the entry of ``ip address``, of one interface."""
    [link] = node.ip_json("address", "show", "dev", ifname, netns=netns)
    return {f"{entry['local']}/{entry['prefixlen']}": entry for entry in link["addr_info"]}


def link_local(node: Node, ifname: str, netns: str = "") -> str:
    """The address that the kernel itself gives an interface, with its length, once it is in use: it comes some time
    after the carrier, later than a quick caller's next call."""

    def in_use() -> list[str]:
        return [text for text, entry in addresses(node, ifname, netns).items()
                if text.startswith("fe80:") and not entry.get("tentative")]

    return wire.await_state(netns or node.path, in_use, f"a link-local address of {ifname}")[0]


def link(node: Node, ifname: str, netns: str = "") -> Any:
    """One interface as ``ip -d link`` shows it."""
    return node.ip_json("-d", "link", "show", "dev", ifname, netns=netns)[0]


def sysctl(node: Node, key: str, netns: str = "") -> str:
    """``net/<key>``; with slashes, as interface names may hold dots."""
    return node.run("cat", f"/proc/sys/net/{key}", netns=netns).stdout.strip()


def set_sysctl(node: Node, key: str, value: str, netns: str = "") -> None:
    node.run("sh", "-c", 'echo "$2" > "/proc/sys/net/$1"', "sh", key, value, netns=netns)


def leases(node: Node, name: str = "pods", data_dir: str = STORE) -> set[str]:
    """The addresses leased in a network: the names of the store's lease files."""
    folder = node.file(data_dir) / name
    return {entry.name for entry in folder.iterdir() if _is_lease(entry)} if folder.exists() else set()


def _is_lease(path: Path) -> bool:
    return ":" in path.name or path.name.count(".") == 3


def veths(node: Node, netns: str = "") -> set[str]:
    """The veth interfaces of the node or of a namespace, but for the wire to the outside."""
    return {entry["ifname"] for entry in node.ip_json("link", "show", "type", "veth", netns=netns)} - {UPLINK}


def outside(node: Node) -> str:
    """A host beyond the node, on the other end of its uplink, that knows the way to the containers. Returns its
    namespace."""
    netns = uplink(node)
    for family in (4, 6):
        for ifname, place, address in ((UPLINK, "", NODE_OUTSIDE[family]), ("eth0", netns, OUTSIDE[family])):
            nodad = ("nodad",) if family == 6 else ()
            node.run("ip", "address", "add", f"{address}/{LENGTH[family]}", "dev", ifname, *nodad, netns=place)
        subnet = SUBNET6 if family == 6 else SUBNET4
        node.run("ip", "route", "add", subnet, "via", NODE_OUTSIDE[family], netns=netns)
    return netns


def narrow(node: Node, netns: str, addresses: Sequence[str]) -> None:
    """A link of 1280 bytes, IPv6's least, behind the host beyond the node, which forwards to it.

    :param addresses: ``ip/prefixlen`` of the host on that link.
    """
    node.run("ip", "link", "add", "narrow", "mtu", "1280", "type", "veth", "peer", "name", "far", netns=netns)
    for name in ("narrow", "far"):
        set_sysctl(node, f"ipv6/conf/{name}/accept_dad", "0", netns)
        node.run("ip", "link", "set", name, "up", netns=netns)
    for name in ("narrow", "far"):
        link_local(node, name, netns)  # with the carrier: until then what is sent there is lost
    for address in addresses:
        node.run("ip", "address", "add", address, "dev", "narrow", netns=netns)
    for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        set_sysctl(node, key, "1", netns)


def uplink(node: Node) -> str:
    """A wire from the node to a namespace ``outside``, both ends up, no duplicate address detection on either."""
    netns = node.container("outside")
    ends = ("link", "add", UPLINK, "type", "veth", "peer", "name", "eth0", "netns", Path(netns).name)
    node.run("ip", *ends)
    for ifname, place in ((UPLINK, ""), ("eth0", netns)):
        set_sysctl(node, f"ipv6/conf/{ifname}/accept_dad", "0", netns=place)
        node.run("ip", "link", "set", ifname, "up", netns=place)
    for ifname, place in ((UPLINK, ""), ("eth0", netns)):
        # The kernel's own address comes with the carrier, later than the command's end.
        wire.await_state(place or node.path, lambda: addresses(node, ifname, place), "a link-local address")
    return netns


def link_to_others(node: Node) -> None:
    """Give a node of a cluster its link to the other ones: ``eth0``, with an address of each family and no other."""
    node.run("ip", "link", "add", "eth0", "mtu", "1400", "type", "veth", "peer", "name", "peer0")
    for name in ("eth0", "peer0"):
        node.run("ip", "link", "set", name, "up", "addrgenmode", "none")
    node.run("ip", "address", "add", "172.30.0.1/24", "dev", "eth0")
    node.run("ip", "address", "add", "fd00:11::1/64", "dev", "eth0", "nodad")
