"""Who is measured: ours, the reference plugins, netavark; and the calls each gets for the same task."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.bench.node import Call, Node

NETWORK = "bench"
SUBNETS = ("10.88.0.0/16", "fd00:88::/64")
VERSION = "1.0.0"  # the newest that Debian's reference plugins know
DATA = "/var/lib/cni/networks"
# What a runtime hands on of its own environment; the reference plugin finds iptables by it.
RUNTIME = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
NEWEST = Path(__file__).resolve().parents[2] / ".tools" / "reference"
NETAVARK = Path("/usr/lib/podman/netavark")
CONFIG = "/run/containers/networks"  # netavark's folder for a name server's configuration, which is not asked for
ABOUT_SECONDS = 10
UPLINK = "up0"  # of a node that has one


def ipam(kind: str, *subnets: str) -> dict[str, Any]:
    """An ``ipam`` section with a set for each subnet, and default routes."""
    routes = [{"dst": "::/0" if ":" in subnet else "0.0.0.0/0"} for subnet in subnets]
    return {"type": kind, "dataDir": DATA, "ranges": [[{"subnet": each}] for each in subnets], "routes": routes}


@dataclass(frozen=True, slots=True)
class Plugins:
    """A main plugin and its IPAM plugin, in one folder. ``place``: what its configuration says of the node's side."""

    name: str
    folder: Path
    bridge: str
    ipam: str
    keys: Mapping[str, Any] = field(default_factory=dict)  # further ones of a configuration
    env: Mapping[str, str] = field(default_factory=dict)
    place: Mapping[str, Any] = field(default_factory=lambda: {"bridge": "bench0", "isGateway": True})

    def config(self, **keys: Any) -> dict[str, Any]:
        """A dual-stack network with the node as gateway. Both plugins read it the same way."""
        return {
            "cniVersion": VERSION, "name": NETWORK, "type": self.bridge, **self.place,
            "ipam": ipam(self.ipam, *SUBNETS), **self.keys, **keys,
        }

    def call(
        self, command: str, config: Mapping[str, Any], *, container: str, netns: str, ifname: str = "eth0"
    ) -> Call:
        """A call of the plugin that the configuration names."""
        env = {
            "CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_NETNS": netns, "CNI_IFNAME": ifname,
            "CNI_PATH": str(self.folder), **RUNTIME, **self.env,
        }
        return Call((str(self.folder / config["type"]),), env, json.dumps(config), f"{container} {ifname}")

    def add(self, node: Node, number: int, **keys: Any) -> Call:
        """Attach a container to the network."""
        return self.call("ADD", self.config(**keys), container=f"c{number}", netns=node.pod(number))

    def delete(self, node: Node, number: int, **keys: Any) -> Call:
        return self.call("DEL", self.config(**keys), container=f"c{number}", netns=node.pod(number))

    def about(self) -> str:
        """What the plugin says of itself where no runtime calls it (skel's about text)."""
        path = self.folder / self.bridge
        done = subprocess.run([path], env={}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                              timeout=ABOUT_SECONDS)
        return done.stderr.partition("\n")[0].strip() or path.name


def ours(folder: Path) -> Plugins:
    """Open and unguarded, as the reference is; the scenarios of the firewall turn it on."""
    return Plugins("cni-v6", folder, "cni-v6", "cni-v6-ipam", {"ingress": "open", "guard": False})


def by_python(plugins: Plugins, library: Path) -> Plugins:
    """The same through the Python executables, where the courier stands in front of them."""
    behind = library / "bin"
    return replace(plugins, folder=behind) if (behind / plugins.bridge).exists() else plugins


def without_engine(plugins: Plugins) -> Plugins:
    """The same, each call in its own process."""
    return replace(plugins, env={"CNI_V6_ENGINE": "off"})


def reference(folder: Path) -> Plugins:
    return Plugins("bridge + host-local", folder, "bridge", "host-local")


def routed(plugins: Plugins, kind: str) -> Plugins:
    """The same with the main plugin that routes each container by itself: ``cni-v6-routed``, or the reference's."""
    return replace(plugins, name=f"{plugins.name}, routed", bridge=kind, place={})


def macvlan(plugins: Plugins, kind: str) -> Plugins:
    """The same on the link of an interface of the node, which has no firewall for it."""
    return replace(plugins, name=f"{plugins.name}, macvlan", bridge=kind, place={"master": UPLINK}, keys={})


def newest() -> Plugins | None:
    """The newest release of the reference plugins, as ``tools/reference`` has built it; None if it has not."""
    if not (NEWEST / ".version").exists():
        return None
    return replace(reference(NEWEST), name=f"reference {(NEWEST / '.version').read_text(encoding='ascii').strip()}")


def portmap(plugins: Plugins, node: Node, command: str, mappings: Sequence[Mapping[str, Any]]) -> Call:
    """The reference's ``portmap``, chained behind its bridge: what a runtime calls next for the same container."""
    addresses = [{"interface": 0, "address": "10.88.0.2/16"}, {"interface": 0, "address": "fd00:88::2/64"}]
    config = {
        "cniVersion": VERSION, "name": NETWORK, "type": "portmap", "runtimeConfig": {"portMappings": mappings},
        "prevResult": {
            "cniVersion": VERSION, "interfaces": [{"name": "eth0", "sandbox": node.pod(0)}], "ips": addresses,
        },
    }
    return plugins.call(command, config, container="c0", netns=node.pod(0))


@dataclass(frozen=True, slots=True)
class Netavark:
    """Podman's network stack: setup and teardown. It has no IPAM: podman gives it the addresses.

    ``internal``: a network that it has no firewall for, as a bridge without ``ipMasq`` has none.
    """

    path: Path = NETAVARK
    name: str = "netavark"
    internal: bool = True

    def add(self, node: Node, number: int) -> Call:
        return self._call("setup", node, number)

    def delete(self, node: Node, number: int) -> Call:
        return self._call("teardown", node, number)

    def about(self) -> str:
        done = subprocess.run([self.path, "--version"], capture_output=True, text=True, check=False,
                              timeout=ABOUT_SECONDS)
        return done.stdout.strip()

    def _call(self, command: str, node: Node, number: int) -> Call:
        subnets = [{"subnet": text, "gateway": str(ipaddress.ip_network(text)[1])} for text in SUBNETS]
        addresses = [f"10.88.{number // 250}.{number % 250 + 2}", f"fd00:88::{number + 2:x}"]
        network = {
            "name": NETWORK, "id": "b" * 64, "driver": "bridge", "network_interface": "bench0", "subnets": subnets,
            "ipv6_enabled": True, "internal": self.internal, "dns_enabled": False,
        }
        options = {
            "container_id": f"c{number}", "container_name": f"c{number}",
            "networks": {NETWORK: {"interface_name": "eth0", "static_ips": addresses}},
            "network_info": {NETWORK: network},
        }
        argv = (str(self.path), "--config", CONFIG, command, node.pod(number))
        return Call(argv, {**RUNTIME, "NETAVARK_FW": "iptables"}, json.dumps(options), f"c{number}")
