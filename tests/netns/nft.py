"""What the node's firewall holds, as ``nft`` tells it, and the operator's command that looks after it."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
from collections.abc import Mapping
from typing import Any

from tests.netns import wire
from tests.sandbox import ROOT, Node
from tests.snapshot import without_packets

NFT_MSG_GETGEN = 10 << 8 | 16  # linux/netfilter/nfnetlink.h and nf_tables.h
NLM_F_REQUEST = 1
MOVING = ("handle", "packets", "bytes")  # what differs between two tables that say the same


def ctl(node: Node, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """``cni-v6ctl`` on a node."""
    return node.run(str(ROOT / "bin/cni-v6ctl"), *argv, check=check, env=node.environment)


def text(node: Node, netns: str = "") -> str:
    """The whole ruleset without counters and what packets added, as ``nft`` prints it."""
    return without_packets(node.run("nft", "--stateless", "list", "ruleset", netns=netns).stdout)


def table(node: Node, family: str, netns: str = "") -> str:
    """Our table of a family, like ``text``."""
    return without_packets(node.run("nft", "--stateless", "list", "table", family, "cni_v6", netns=netns).stdout)


def load(node: Node, script: str, netns: str = "") -> None:
    node.run("nft", "-f", "-", stdin=script, netns=netns)


def rules(node: Node) -> list[str]:
    """Everything but the sets: tables, chains and rules, in their order."""
    return [line for line, each in _listed(node) if "set" not in each and "map" not in each]


def elements(node: Node, family: str, name: str) -> list[str]:
    """What a set or map of ours holds, sorted."""
    return _elements(node).get(f"{family} {name}", [])


def held(node: Node) -> dict[str, list[str]]:
    """The sets and maps of ours that hold something, ``family name`` -> elements, sorted; without those that packets
    fill."""
    return {name: content for name, content in _elements(node).items() if content}


def _elements(node: Node) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for _, each in _listed(node):
        for content in (each.get("set"), each.get("map")):
            if content and content["table"] == "cni_v6" and "timeout" not in content.get("flags", ()):
                found[f"{content['family']} {content['name']}"] = sorted(map(json.dumps, content.get("elem", [])))
    return found


def _listed(node: Node) -> list[tuple[str, Mapping[str, Any]]]:
    listed = json.loads(node.run("nft", "-j", "list", "ruleset").stdout)["nftables"]
    found = [_still(each) for each in listed if "metainfo" not in each]
    return [(json.dumps(each), each) for each in found]


def _still(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _still(item) for key, item in value.items() if key not in MOVING}
    return [_still(item) for item in value] if isinstance(value, list) else value


def generation(node: Node) -> int:
    """The number of transactions that the node's nf_tables has been through."""
    family = (socket.AF_NETLINK, socket.SOCK_RAW, wire.NETLINK_NETFILTER)
    with wire.inside(node.path, lambda: socket.socket(*family)) as asker:
        asker.send(struct.pack("=IHHII4x", 20, NFT_MSG_GETGEN, NLM_F_REQUEST, 1, 0))
        answer = asker.recv(1 << 16)
    number: int = struct.unpack_from("!I", answer, 24)[0]  # NFTA_GEN_ID, the first attribute
    return number
