"""The networks the runtimes get, and where the plugins are: the one place that says which plugin is under test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.sandbox import PLUGIN_PATH, need

from .node import PATH, Node

PLUGIN, IPAM = "cni-v6", "cni-v6-ipam"
NEWEST = "1.1.0"

STORE = "/var/lib/cni/networks"
BRIDGE = "cni6"
SUBNET6, GATEWAY6 = "fd00:6::/64", "fd00:6::1"
SUBNET4, GATEWAY4 = "10.66.0.0/24", "10.66.0.1"


def ipam(*subnets: str, **keys: Any) -> dict[str, Any]:
    """An ``ipam`` section with one set a subnet and a default route for each family."""
    routes = [{"dst": "::/0" if ":" in subnet else "0.0.0.0/0"} for subnet in subnets]
    return {"type": IPAM, "ranges": [[{"subnet": subnet}] for subnet in subnets], "routes": routes, **keys}


def bridge(**keys: Any) -> dict[str, Any]:
    """The plugin's entry of a dual-stack conflist."""
    return {"type": PLUGIN, "bridge": BRIDGE, "isGateway": True, "ipam": ipam(SUBNET6, SUBNET4), **keys}


def conflist(name: str, version: str, *plugins: Mapping[str, Any]) -> str:
    """The text of a conflist; of the dual-stack bridge alone unless told otherwise."""
    return json.dumps({"cniVersion": version, "name": name, "plugins": plugins or (bridge(),)}, indent=2)


def install(node: Node, *folders: str, path: Sequence[str] = PLUGIN_PATH) -> None:
    """Put every plugin into the node's /opt/cni/bin, as links: ours, and the reference's of other names beside them.

    :param folders: whose plugins go before both.
    """
    folder = node.path("/opt/cni/bin")
    for source in map(Path, (*folders, *path)):
        for plugin in source.iterdir():
            if not (folder / plugin.name).is_symlink():
                (folder / plugin.name).symlink_to(plugin)


def leases(store: Path, network: str) -> set[str]:
    """The addresses given out for a network, from the names of the store's files."""
    return {entry.name for entry in (store / network).iterdir() if ":" in entry.name or entry.name.count(".") == 3}


def need_commands(*commands: str) -> None:
    """Skip, or in CI fail, where a runtime's commands, the image's contents or the reference plugins are missing."""
    for command in (*commands, "busybox", "nsenter", "unshare", "ip"):
        need(shutil.which(command, path=PATH), f"needs the command {command}")
    for folder in PLUGIN_PATH:
        need(Path(folder).is_dir(), f"needs the plugins in {folder}")
