"""``cni-v6ctl map`` on a node with containers of each kind: it draws what is there, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.netns import networks
from tests.netns.networks import DUAL, MACVLAN, OUTSIDE, ROUTED, UPLINK, Pod
from tests.sandbox import ROOT, Node

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("map")]
CTL = str(ROOT / "bin/cni-v6ctl")
PORTS = {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}}
CONFIGS = (
    networks.gateway(*DUAL, ipMasq=True, args={"cni": {"delegate": 80}}),
    networks.network("fd00:7::/64", name="edge", type=ROUTED),
    networks.network("2001:db8:ffff:0:1::/80", name="lan", type=MACVLAN, master=UPLINK),
)


def conf_dir(folder: Path) -> str:
    for number, config in enumerate(CONFIGS):
        (folder / f"{number}.conf").write_text(json.dumps(config))
    return str(folder)


def drawn(node: Node, folder: str, *arguments: str) -> Any:
    return json.loads(node.run(CTL, "map", "--json", "--conf-dir", folder, *arguments).stdout)


def states(found: Mapping[str, Any]) -> dict[str, str]:
    return {attachment["containerID"]: attachment["state"]
            for segment in found["segments"] for attachment in segment["attachments"]}


def test_the_picture_is_what_is_there(node: Node, tmp_path: Path) -> None:
    networks.outside(node)
    for family, gateway in OUTSIDE.items():
        node.run("ip", f"-{family}", "route", "add", "default", "via", gateway)
    folder = conf_dir(tmp_path)
    pods = [Pod(node, config, name) for config, name in zip(CONFIGS, ("bridged", "routed", "beside"))]
    pods[0].add({**CONFIGS[0], **PORTS})
    for pod in pods[1:]:
        pod.add()
    second = Pod(node, CONFIGS[0], "second")
    second.add()
    second.delete()
    with node.unchanged():
        found = drawn(node, folder)
        page = tmp_path / "map.html"
        node.run(CTL, "map", "--output", str(page), "--conf-dir", folder)
    assert [(segment["kind"], segment["name"]) for segment in found["segments"]] == [
        ("bridge", "cni0"), ("routed", "edge"), ("master", UPLINK)]
    assert states(found) == {"bridged": "up", "routed": "up", "beside": "up"}
    assert UPLINK in [uplink["interface"] for uplink in found["uplinks"]] and found["firewallLoaded"]
    [bridged] = found["segments"][0]["attachments"]
    assert bridged["publishedPorts"] == [{"protocol": "tcp", "hostIP": "", "hostPort": 8080, "containerPort": 80}]
    [way6, way4] = found["segments"][0]["leaves"]
    assert (way4["uplinks"], way4["how"]) == ([UPLINK], ["masqueraded"]) and way6["how"] == ["masqueraded"]
    six, four = (next(space for space in found["addressSpaces"] if space["prefix"] == subnet) for subnet in DUAL)
    assert (six["counts"]["used"], six["counts"]["delegated"]) == (1, 2 ** 48)
    assert six["counts"]["spent"] == 2 ** 48 + 1  # what the second one had
    assert (four["counts"]["used"], four["counts"]["waiting"], four["counts"]["free"]) == (1, 1, 256 - 5)
    assert page.read_text().count("bridged") >= 2
    node.run("ip", "link", "set", pods[0].host, "down")
    assert states(drawn(node, folder, "pods")) == {"bridged": "cut off"}
    for pod in pods:
        pod.delete()
