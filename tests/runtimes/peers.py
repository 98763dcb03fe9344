"""What containers and their node look like after ADDs, in a form in which two plugins can be compared.

``ON_PURPOSE`` lists where ours differs from the reference plugin, and ``docs/differences.md`` gives the reasons.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.sandbox import Node

from . import networks

IFNAME = "eth0"
SYSCTLS = (
    "ipv4/conf/{}/arp_notify",
    "ipv6/conf/{}/accept_dad",
    "ipv6/conf/{}/accept_ra",
    "ipv6/conf/{}/autoconf",
    "ipv6/conf/{}/disable_ipv6",
    "ipv6/conf/{}/ndisc_notify",
)
ROUTE_KEYS = ("dst", "gateway", "scope", "metric", "metrics", "table", "prefsrc", "type")
PORT_KEYS = ("hairpin", "isolated", "learning", "flood", "guard", "proxy_arp")


@dataclass(frozen=True)
class Difference:
    """One thing that ours does otherwise: where in a view it shows, and under which heading the reason is told.

    ``path``: a regular expression for the whole path. ``anywhere``: whether it shows on every kernel.
    """

    reason: str
    path: str
    theirs: object
    ours: object
    anywhere: bool = True


END = r"(bridge|containers\.\w+)"
SYSCTL6 = r"\.sysctls\.ipv6/conf/\*"
RECORDS = "What DEL, CHECK and GC need lies beside the leases"
DAD = "No duplicate address detection"
NO_IPV6 = "No IPv6 where the network has none"
SEGMENT = "Nobody on the segment configures a container"
ANNOUNCE = "A recycled address reaches its new owner at once"

ON_PURPOSE = (
    Difference(DAD, END + r"\.addresses\.[^.]*:[^.]*\.nodad", False, True),
    Difference(DAD, "bridge" + SYSCTL6 + "/accept_dad", "1", "0"),
    Difference(NO_IPV6, END + r"\.link-local", True, False),
    Difference(NO_IPV6, END + SYSCTL6 + "/disable_ipv6", "0", "1"),
    Difference(NO_IPV6, r"containers\.\w+" + SYSCTL6 + "/accept_dad", "0", "1"),
    Difference(SEGMENT, r"containers\.\w+" + SYSCTL6 + "/accept_ra", "1", "0"),
    Difference(SEGMENT, END + SYSCTL6 + "/autoconf", "1", "0"),
    Difference(ANNOUNCE, r"containers\.\w+" + SYSCTL6 + "/ndisc_notify", "0", "1"),
    Difference(ANNOUNCE, r"containers\.\w+\.sysctls\.ipv4/conf/\*/arp_notify", "1", "0"),
    Difference("Multicast snooping is off", r"bridge\.mcast_snooping", 1, 0),
    Difference("Forwarding costs the node nothing", r"forwarding\.ipv6", "1", "0", anywhere=False),
    Difference("A port has no address of its own", r"ports\.\d+\.disable_ipv6", "0", "1"),
    Difference(RECORDS, r"store\.folders\.(attachments|cursors)", None, True),
)


def attach(node: Node, type: str, config: Mapping[str, Any], names: Sequence[str]) -> dict[str, object]:
    """ADD containers of these names to a network, and look at all there is then: path -> value."""
    results = {}
    for name in names:
        variables = {"container_id": f"peer-{name}", "ifname": IFNAME, "netns": node.container(name)}
        results[name] = node.plugin(type, "ADD", config, **variables).ok()
    view = {
        "results": {name: _result(result) for name, result in results.items()},
        "containers": {name: _interface(node, IFNAME, node.containers[name]) for name in names},
        "bridge": _interface(node, networks.BRIDGE, "") | _bridge(node),
        "ports": [_port(node, link) for link in _links(node, "master", networks.BRIDGE)],
        "forwarding": {family: _sysctl(node, f"{family}/conf/all/forwarding", "") for family in ("ipv4", "ipv6")},
        "store": _store(node.file(networks.STORE) / config["name"]),
    }
    return dict(_flat("", view))


def detach(node: Node, type: str, config: Mapping[str, Any], names: Sequence[str]) -> None:
    """DEL the containers; what is left is the network's."""
    for name in names:
        node.plugin(type, "DEL", config, container_id=f"peer-{name}", ifname=IFNAME, netns=node.containers[name]).ok()


def compare(theirs: Mapping[str, object], ours: Mapping[str, object]) -> tuple[list[str], set[Difference]]:
    """The differences that no one meant, a line each; and those of ``ON_PURPOSE`` that were found."""
    unexpected, met = [], set()
    for path in sorted(theirs.keys() | ours.keys()):
        left, right = theirs.get(path), ours.get(path)
        known = [entry for entry in ON_PURPOSE if re.fullmatch(entry.path, path) and _is(entry, left, right)]
        met.update(known)
        if left != right and not known:
            unexpected.append(f"{path}: theirs {left!r}, ours {right!r}")
    return unexpected, met


def _is(entry: Difference, left: object, right: object) -> bool:
    return left != right and (left, right) == (entry.theirs, entry.ours)


def _result(result: dict[str, Any]) -> dict[str, Any]:
    """A result without the node's own choices (MACs and the namespace) and the plugin's (the host veth's name)."""
    interfaces = result.get("interfaces", [])
    shown = [(re.sub("^veth.*", "veth", entry["name"]), "sandbox" in entry) for entry in interfaces]
    return {**result, "interfaces": shown}


def _interface(node: Node, ifname: str, netns: str) -> dict[str, Any]:
    link = _links(node, "dev", ifname, netns=netns)[0]
    found = node.ip_json("address", "show", "dev", ifname, netns=netns)[0]["addr_info"]
    return {
        "up": "UP" in link["flags"],
        "promiscuous": link["promiscuity"],
        "mtu": link["mtu"],
        "link-local": any(_kernel_made(entry) for entry in found),
        "addresses": {_text(entry): {"nodad": "nodad" in entry} for entry in found if not _kernel_made(entry)},
        "routes": {line: True for line in _routes(node, ifname, netns)},
        "sysctls": {key.format("*"): _sysctl(node, key.format(ifname), netns) for key in SYSCTLS},
    }


def _kernel_made(address: Mapping[str, Any]) -> bool:
    return bool(address["scope"] == "link" and address["family"] == "inet6")


def _text(address: Mapping[str, Any]) -> str:
    return f"{address['local']}/{address['prefixlen']}"


def _routes(node: Node, ifname: str, netns: str) -> Iterator[str]:
    """Every route of every table but those that the kernel makes for addresses of its own, multicast and itself."""
    for family in ("-4", "-6"):
        for route in node.ip_json(family, "route", "show", "table", "all", "dev", ifname, netns=netns):
            if route.get("table") != "local" and not route["dst"].startswith(("fe80:", "ff00:", "multicast")):
                yield json.dumps({key: route[key] for key in ROUTE_KEYS if key in route})


def _bridge(node: Node) -> dict[str, Any]:
    settings = _links(node, "dev", networks.BRIDGE)[0]["linkinfo"]["info_data"]
    return {key: settings[key] for key in ("mcast_snooping", "vlan_filtering", "stp_state", "ageing_time")}


def _port(node: Node, link: Mapping[str, Any]) -> dict[str, Any]:
    settings = link["linkinfo"]["info_slave_data"]
    ipv6 = _sysctl(node, f"ipv6/conf/{link['ifname']}/disable_ipv6", "")
    return {"mtu": link["mtu"], "disable_ipv6": ipv6, **{key: settings[key] for key in PORT_KEYS}}


def _links(node: Node, *what: str, netns: str = "") -> Any:
    return node.ip_json("-details", "link", "show", *what, netns=netns)


def _sysctl(node: Node, key: str, netns: str) -> str:
    return node.run("cat", f"/proc/sys/net/{key}", netns=netns).stdout.strip()


def _store(folder: Path) -> dict[str, object]:
    """The store's files, which the reference plugin may have to go on with, and its folders."""
    entries = sorted(folder.iterdir()) if folder.exists() else []
    return {
        "files": {entry.name: entry.read_text() for entry in entries if entry.is_file() and entry.name != "lock"},
        "folders": {entry.name: True for entry in entries if entry.is_dir()},
    }


def _flat(path: str, value: object) -> Iterator[tuple[str, object]]:
    """Leaves of nested dictionaries and lists, with their paths; an empty one in a result is a leaf too."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        items = []
    for key, item in items:
        yield from _flat(f"{path}.{key}".lstrip("."), item)
    if not items and not (path.startswith("store.") and value == {}):
        yield path, value
