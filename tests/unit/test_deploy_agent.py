"""The node agent in deploy/ and conf/: what the manifests and the unit say fits together, the code, and their page."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from cni_v6.cluster.config import parse
from cni_v6.cluster.conflist import parse_template
from cni_v6.cluster.disk import READY
from cni_v6.cluster.keys import STATE_DIR
from cni_v6.cluster.open_store import FORMS
from cni_v6.config.keys.ipam import DEFAULT_DATA_DIR
from cni_v6.ctl.runtime_folders import CONF_DIR
from cni_v6.kernel.sysctl import MOUNTED_ROOT, ROOT as SYSCTLS
from cni_v6.leases.disk.data_dirs import RUN_DIR
from cni_v6.net.addresses import overlap
from tests import kubernetes
from tests.netns.cluster import unit_rights
from tests.sandbox import ROOT

KUSTOMIZATION = kubernetes.document("agent/kustomization.yaml")
OBJECTS = {name: kubernetes.document(f"agent/{name}") for name in KUSTOMIZATION["resources"]}
POD = OBJECTS["daemonset.yaml"]["spec"]["template"]["spec"]
[AGENT] = POD["containers"]
SAMPLES = ROOT / "conf/cluster"
GUIDE = SAMPLES / "kubernetes-ipv6"
PAGE = ROOT.joinpath("docs/cluster.md").read_text(encoding="utf-8")
UNIT = ROOT / "conf/systemd/cni-v6-agent.service"


def test_all_is_in_one_namespace_of_its_own() -> None:
    """In kube-system the right to write Leases would be that to stop the scheduler."""
    namespace = KUSTOMIZATION["namespace"]
    assert namespace == OBJECTS["namespace.yaml"]["metadata"]["name"] != "kube-system"
    for name, document in OBJECTS.items():
        cluster_wide = document["kind"] in ("Namespace", "ClusterRole", "ClusterRoleBinding")
        assert document["metadata"].get("namespace") == (None if cluster_wide else namespace), name
    assert {entry["name"] for entry in KUSTOMIZATION["images"]} == {AGENT["image"]}


@pytest.mark.parametrize("kind", ["role", "cluster-role"])
def test_a_binding_binds_the_role_to_the_agents_account(kind: str) -> None:
    role, binding = OBJECTS[f"{kind}.yaml"], OBJECTS[f"{kind}-binding.yaml"]
    assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == (role["kind"], role["metadata"]["name"])
    account = OBJECTS["service-account.yaml"]["metadata"]
    [subject] = binding["subjects"]
    assert subject == {"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}
    assert POD["serviceAccountName"] == account["name"]


def test_the_selector_selects_the_pods() -> None:
    spec = OBJECTS["daemonset.yaml"]["spec"]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


def test_the_container_has_no_more_rights_than_under_systemd() -> None:
    context = AGENT["securityContext"]
    held = ",".join(f"+{name.lower()}" for name in context["capabilities"]["add"])
    assert context["capabilities"]["drop"] == ["ALL"] and f"--bounding-set=-all,{held}" in unit_rights()
    assert context["readOnlyRootFilesystem"] is True and context["allowPrivilegeEscalation"] is False
    assert POD["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault" and POD["hostNetwork"] is True


@pytest.mark.parametrize("samples", [SAMPLES, SAMPLES / "kubernetes", GUIDE], ids=lambda folder: folder.name)
def test_the_paths_are_those_of_the_code_and_the_samples(samples: Path) -> None:
    paths = {name: volume["path"] for name, volume in kubernetes.host_paths(POD).items()}
    places = {mount["name"]: mount["mountPath"] for mount in AGENT["volumeMounts"]}
    assert set(places) == {volume["name"] for volume in POD["volumes"]} == {*paths, "configuration"}
    sample = samples / "agent.json"
    conf = parse(sample.read_bytes(), str(sample))
    parse_template(samples.joinpath("template.conflist").read_bytes(), "template.conflist")
    assert conf.state_dir == STATE_DIR == paths["state"] == places["state"]
    assert paths["networks"] == places["networks"] == CONF_DIR and conf.target.startswith(f"{CONF_DIR}/")
    assert conf.template == f"{places['configuration']}/template.conflist"
    assert AGENT["command"][-1] == f"{places['configuration']}/{sample.name}"
    assert paths["run"] == places["run"] == RUN_DIR and paths["leases"] == places["leases"] == DEFAULT_DATA_DIR
    assert (paths["sysctls"], places["sysctls"]) == (SYSCTLS.rstrip("/"), MOUNTED_ROOT.rstrip("/"))
    assert AGENT["readinessProbe"]["exec"]["command"] == ["test", "-e", f"{STATE_DIR}/{READY}"]


def test_the_command_is_the_agents() -> None:
    assert AGENT["command"][:2] == ["cni-v6ctl", "agent"] and "kubernetes" in FORMS
    options = dict(zip(AGENT["command"][2::2], AGENT["command"][3::2]))
    [variable] = AGENT["env"]
    assert options["--node"] == f"$({variable['name']})" and options["--cluster"] == "kubernetes"
    assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}


def test_the_image_has_what_the_extra_has() -> None:
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    wanted = settings["options.extras_require"]["cluster"].split()
    dockerfile = ROOT.joinpath("deploy/agent/Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r'"([^"]+)"$', dockerfile, re.MULTILINE) == wanted


def test_its_page_tells_of_each_capability_and_mount() -> None:
    section = PAGE.partition("### In a DaemonSet")[2].partition("\n## ")[0]
    rows = set(re.findall(r"^\| `([^`]+)`", section, re.MULTILINE))
    assert rows == {*AGENT["securityContext"]["capabilities"]["add"],
                    *(mount["mountPath"] for mount in AGENT["volumeMounts"])}
    [example] = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)]
    assert example["resources"] == ["cni-v6/deploy/kubernetes", "cni-v6/deploy/kubernetes/agent"]
    [generated] = example["configMapGenerator"]
    [volume] = [volume for volume in POD["volumes"] if "configMap" in volume]
    assert generated["name"] == volume["configMap"]["name"] and generated["namespace"] == KUSTOMIZATION["namespace"]
    assert generated["files"] == ["agent.json", "template.conflist"]


def test_the_guides_files_fit_together() -> None:
    """kubeadm's prefix for pods is the agents' pool, and that for services apart from it. The page shows the files."""
    page = ROOT.joinpath("docs/ipv6-only-kubernetes.md").read_text(encoding="utf-8")
    text = GUIDE.joinpath("kubeadm.yaml").read_text(encoding="utf-8")
    kubeadm = {part["kind"]: part for part in yaml.safe_load_all(text)}
    networking = kubeadm["ClusterConfiguration"]["networking"]
    [pool] = parse(GUIDE.joinpath("agent.json").read_bytes(), "agent.json").pools
    assert (networking["podSubnet"], 64, True) == (pool.cidr, pool.block, pool.given)
    assert not overlap(networking["serviceSubnet"], pool.cidr)
    master = kubeadm["InitConfiguration"]["localAPIEndpoint"]["advertiseAddress"]
    assert f"| `kube-master` | `{master}` |" in page and f"--node-ip={master} " in page
    for name in ("agent.json", "kubeadm.yaml"):
        shown = GUIDE.joinpath(name).read_text(encoding="utf-8")
        assert "\n".join(line for line in shown.splitlines() if not line.startswith("#")) in page
    kustomization = yaml.safe_load(GUIDE.joinpath("kustomization.yaml").read_text(encoding="utf-8"))
    for folder in (*kustomization["resources"], *kustomization["components"]):
        assert (GUIDE / folder / "kustomization.yaml").is_file()
    images = {f"{image['newName']}:{image['newTag']}" for image in kustomization["images"]}
    assert "docker save " + " ".join(sorted(images, reverse=True)) in page
    assert kustomization["configMapGenerator"][0]["files"] == ["agent.json", "template.conflist"]


def test_the_unit_waits_for_the_word_that_the_agent_sends() -> None:
    unit = _settings()
    assert unit["Type"] == "notify" and unit["TimeoutStartSec"] == "infinity" and unit["Restart"] == "on-failure"
    assert "--node %H --cluster ${CNI_V6_CLUSTER} --config /etc/cni/cluster/agent.json" in unit["ExecStart"]
    assert unit["EnvironmentFile"] == "/etc/default/cni-v6-agent"
    families = set(unit["RestrictAddressFamilies"].split())
    assert families == {"AF_UNIX", "AF_NETLINK", "AF_INET", "AF_INET6"}  # systemd, the kernel, the store


def test_the_unit_for_the_boot_comes_before_what_starts_containers() -> None:
    boot = _settings(UNIT.with_name("cni-v6-clusters.service"))
    assert {"containerd.service", "crio.service", "podman.service", "kubelet.service", "cni-v6-agent.service"} <= {
        *boot["Before"].split()}
    assert boot["ExecStart"].endswith(" agent --keep-out --config /etc/cni/cluster/agent.json")
    assert boot["ConditionPathExists"] == boot["ExecStart"].split()[-1]
    assert _settings()["Also"] == "cni-v6-clusters.service"


def _settings(unit: Path = UNIT) -> dict[str, Any]:
    lines = unit.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
