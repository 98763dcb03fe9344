"""The pods' network on a cluster: ours, or the reference plugins with static routes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence

from tests.image import Image
from tests.kube_api import until
from tests.runtimes.kube_cluster import NODES, Cluster
from tests.runtimes.kube_deploy import start_agents, start_engines
from tests.runtimes.node import ENVIRONMENT

TARGET = "/etc/cni/net.d/10-pods.conflist"

Blocks = Mapping[str, Sequence[str]]  # of each node


def ours(made: Cluster, built: Image) -> None:
    """With the DaemonSets of deploy/kubernetes."""
    start_engines(made, built)
    start_agents(made)


def reference(made: Cluster) -> None:
    """``bridge``, ``host-local`` and ``portmap`` with the blocks of each node, as a script would set them up."""
    blocks = _blocks(made)
    for name, member in made.members.items():
        plugins = [
            {"type": "bridge", "bridge": "cni0", "isDefaultGateway": True, "hairpinMode": True, "ipam": {
                "type": "host-local", "ranges": [[{"subnet": block}] for block in blocks[name]]}},
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        ]
        text = json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": plugins})
        for other in made.members.values():
            if other is not member:
                for block in blocks[other.name]:
                    member.node.run("ip", "route", "add", block, "via", _gateway(other.addresses, block))
        member.node.path(TARGET).write_text(text)


def route_from_control_plane(made: Cluster) -> None:
    """The API server is on the host beside the nodes, and passes requests on to pods."""
    for name, blocks in _blocks(made).items():
        for block in blocks:
            argv = ("ip", "route", "add", block, "via", _gateway(made.members[name].addresses, block))
            subprocess.run(argv, env=ENVIRONMENT, check=True)


def _gateway(addresses: Sequence[str], block: str) -> str:
    [gateway] = [address for address in addresses if (":" in address) == (":" in block)]
    return gateway


def _blocks(made: Cluster) -> Blocks:
    found = until(made.api, NODES, lambda nodes: all(
        node["spec"].get("podCIDRs") for node in nodes.values()), "nodes have their blocks")
    return {name: node["spec"]["podCIDRs"] for name, node in found.items()}
