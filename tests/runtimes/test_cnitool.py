"""cnitool, the CNI project's own runtime, drives the plugin through libcni: every command, alone and in a chain."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox import PLUGIN_PATH, ROOT, Node, need

from . import networks

pytestmark = pytest.mark.runtimes

NETWORK = "tool"
MARTIANS = "net.ipv4.conf.eth0.log_martians"
CURSOR = "store [^ ]*/cursors/"  # where a large set is gets on with every address handed out
TUNING = {"type": "tuning", "sysctl": {MARTIANS: "1"}}


class Tool:
    """cnitool on a node, with the networks of one folder."""

    def __init__(self, node: Node, folder: Path) -> None:
        places = (os.environ.get("CNITOOL"), str(ROOT / ".tools/bin/cnitool"), shutil.which("cnitool"))
        found = [place for place in places if place and os.access(place, os.X_OK)]
        need(found, "needs cnitool: tools/cnitool builds it")
        self.node, self.folder, self.command = node, folder, found[0]

    def network(self, version: str, *plugins: Mapping[str, Any]) -> None:
        (self.folder / f"{NETWORK}.conflist").write_text(networks.conflist(NETWORK, version, *plugins))

    def fails(self, command: str, netns: str) -> str:
        """Run a command that has to fail; returns what it says."""
        done = self._run(command, netns)
        assert done.returncode == 1, done.stdout
        return done.stderr

    def __call__(self, command: str, netns: str) -> Any:
        """Run a command that has to succeed; returns the result it prints, None where it prints none."""
        done = self._run(command, netns)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout else None

    def _run(self, command: str, netns: str) -> subprocess.CompletedProcess[str]:
        env = {"NETCONFPATH": str(self.folder), "CNI_PATH": ":".join(PLUGIN_PATH)}
        return self.node.run(self.command, command, NETWORK, netns, env=env, check=False)


@pytest.fixture
def tool(node: Node, tmp_path: Path) -> Tool:
    return Tool(node, tmp_path)


def addresses(node: Node, netns: str) -> set[str]:
    links = node.ip_json("address", "show", "dev", "eth0", "scope", "global", netns=netns)
    return {f"{entry['local']}/{entry['prefixlen']}" for entry in links[0]["addr_info"] if entry}


def leases(node: Node) -> set[str]:
    return networks.leases(node.file(networks.STORE), NETWORK)


def warm_up(tool: Tool, netns: str) -> None:
    """Make what belongs to the network and stays: the bridge, its addresses, the node's forwarding."""
    tool("add", netns)
    tool("del", netns)


def test_add_check_del(tool: Tool, node: Node) -> None:
    tool.network(networks.NEWEST)
    netns = node.container("a")
    warm_up(tool, netns)
    with node.unchanged(ignore=CURSOR):
        result = tool("add", netns)
        assert result["cniVersion"] == networks.NEWEST
        assert {entry["address"] for entry in result["ips"]} == addresses(node, netns)
        assert leases(node) == {entry["address"].partition("/")[0] for entry in result["ips"]}
        for gateway in (networks.GATEWAY6, networks.GATEWAY4):
            node.run("ping", "-c", "1", "-W", "5", gateway, netns=netns)
        tool("check", netns)
        tool("del", netns)
        tool("del", netns)


def test_check_names_what_is_missing(tool: Tool, node: Node) -> None:
    tool.network(networks.NEWEST)
    netns = node.container("a")
    tool("add", netns)
    address = max(addresses(node, netns))
    node.run("ip", "address", "delete", address, "dev", "eth0", netns=netns)
    assert address.partition("/")[0] in tool.fails("check", netns)
    tool("del", netns)


def test_chained_with_tuning(tool: Tool, node: Node) -> None:
    tool.network("1.0.0", networks.bridge(), TUNING)
    netns = node.container("a")
    warm_up(tool, netns)
    with node.unchanged(ignore=CURSOR):
        result = tool("add", netns)
        assert {entry["address"] for entry in result["ips"]} == addresses(node, netns)
        assert node.run("sysctl", "-n", MARTIANS, netns=netns).stdout == "1\n"
        tool("check", netns)
        node.run("sysctl", "-w", f"{MARTIANS}=0", netns=netns)
        assert MARTIANS.rpartition(".")[2] in tool.fails("check", netns)
        tool("del", netns)


def test_a_prefix_goes_through_libcni_and_a_chain(tool: Tool, node: Node) -> None:
    """It is an entry of ``ips`` without an interface, which the next plugin and CHECK are handed too."""
    plugin = networks.bridge(ipam=networks.ipam(networks.SUBNET6, delegate=96))
    tool.network("1.0.0", plugin, TUNING)
    netns = node.container("a")
    result = tool("add", netns)
    *own, given = result["ips"]
    assert {entry["address"] for entry in own} == addresses(node, netns)
    assert given == {"address": given["address"]} and given["address"].endswith("/96")
    tool("check", netns)
    assert given["address"] in node.run("ip", "-6", "route").stdout
    tool("del", netns)
    assert given["address"] not in node.run("ip", "-6", "route").stdout


def test_gc_frees_what_the_runtime_has_forgotten(tool: Tool, node: Node) -> None:
    """libcni itself calls DEL for the attachments in its cache; one that is lost there is the plugin's to find.

    cnitool sends no list of valid attachments, which is no reason to cut off a container: the plugin frees what is not
    on a list, and an empty one means all.
    """
    tool.network(networks.NEWEST)
    known, lost = node.container("known"), node.container("lost")
    warm_up(tool, lost)
    with node.unchanged(ignore=CURSOR):
        tool("add", lost)
        for entry in node.file("/var/lib/cni/results").iterdir():
            entry.unlink()
        tool("add", known)
        assert len(leases(node)) == 4
        tool("gc", known)
        assert leases(node) == {address.partition("/")[0] for address in addresses(node, lost)}
        config = {"cniVersion": networks.NEWEST, "name": NETWORK, **networks.bridge(), "cni.dev/valid-attachments": []}
        node.plugin(networks.PLUGIN, "GC", config).ok()


def test_status(tool: Tool, node: Node) -> None:
    tool.network(networks.NEWEST)
    netns = node.container("a")
    tool("status", netns)


def test_status_says_when_no_address_is_left(tool: Tool, node: Node) -> None:
    subnet = "10.66.1.0/30"  # two hosts: the gateway and one container
    tool.network(networks.NEWEST, networks.bridge(ipam=networks.ipam(subnet)))
    netns = node.container("a")
    tool("add", netns)
    assert "exhausted" in tool.fails("status", netns)
    tool("del", netns)
    tool("status", netns)
