"""The networks of deploy/kubernetes/multus, and a pod that is on both, on a node of fakes."""

from __future__ import annotations

import json
import re
from typing import Any

from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST
from cni_v6.plan.lint import document as lint
from tests import kubernetes
from tests.sandbox import ROOT
from tests.unit.fake_context import CONFIG, FakeContext

PAGE = ROOT.joinpath("docs/multus.md").read_text(encoding="utf-8")
PATHS = kubernetes.document("multus/kustomization.yaml")["resources"]


def networks() -> dict[str, Any]:
    found = [kubernetes.document(f"multus/{path}") for path in PATHS]
    return {each["metadata"]["name"]: json.loads(each["spec"]["config"]) for each in found}


def asked() -> list[dict[str, Any]]:
    """What the pod of the page asks for."""
    [annotation] = re.findall(r"networks: \|\n((?: {6}.*\n)+)", PAGE)
    found: list[dict[str, Any]] = json.loads(annotation)
    return found


def test_a_network_has_the_name_of_its_definition_and_a_version() -> None:
    for name, config in networks().items():
        assert config["name"] == name and list(lint.form("10-x.conf", config)) == []


def test_the_pod_of_the_page() -> None:
    fake = FakeContext()
    fake.kernel.add_link(HOST, Link("eth1", "02:00:00:00:00:99", 1500, up=True))
    result = fake.add("pod", CONFIG)
    assert [ip["address"] for ip in result["ips"]] == ["2001:db8:1::2/64", "10.1.0.2/24"]
    known, interfaces = networks(), []
    for number, wanted in enumerate(asked(), 1):
        config = known[wanted.pop("name")]
        assert set(wanted) <= set(config.get("capabilities", ()))
        config["runtimeConfig"] = wanted
        ifname = f"net{number}"
        made = fake.call("ADD", "pod", config, type=config["type"], CNI_IFNAME=ifname).ok()
        interfaces.append((config, ifname, made))
    space = fake.kernel.spaces["/run/netns/pod"]
    ruled = [source for source, _ in space.rules]
    assert ruled == ["fd42:8e1f:6a00:6:c000::/128", "fd42:8e1f:6a00:7::80/128", "10.99.0.2/32"]
    for config, ifname, made in interfaces:
        checked = config | {"prevResult": made}
        fake.call("CHECK", "pod", checked, type=config["type"], CNI_IFNAME=ifname).ok()
    for config, ifname, _ in reversed(interfaces):
        fake.call("DEL", "pod", config, type=config["type"], CNI_IFNAME=ifname).ok()
    assert space.rules == []
