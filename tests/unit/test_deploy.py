"""The manifests in deploy/: what they say fits together, the code, and their page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cni_v6.config.keys.ipam import DEFAULT_DATA_DIR
from cni_v6.ctl.engine import RUN_DIR
from cni_v6.ctl.runtime_folders import BIN_DIR, CONF_DIR
from cni_v6.kernel.sysctl import MOUNTED_ROOT, ROOT as SYSCTLS
from cni_v6.wire import ANSWER_SECONDS, STOP_SECONDS
from tests import image, kubernetes
from tests.sandbox import ROOT

MANIFESTS = sorted(kubernetes.MANIFESTS.rglob("*.yaml"))
PAGE = ROOT.joinpath("docs/nodes-without-python.md").read_text(encoding="utf-8")
POD = kubernetes.pod()
CONTAINERS = [*POD["initContainers"], *POD["containers"]]
[INSTALLER] = POD["initContainers"]
[ENGINE] = POD["containers"]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_manifest_is_one_document_without_a_key_twice(path: Path) -> None:
    root = yaml.compose(path.read_text(encoding="utf-8"))
    assert list(_repeated(root)) == []
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert found["apiVersion"] and found["kind"]


def _repeated(node: Any) -> Any:
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        yield from {key for key in keys if keys.count(key) > 1}
        for _, value in node.value:
            yield from _repeated(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _repeated(value)


def test_what_kustomize_is_pointed_to_is_there() -> None:
    own = {path for path in MANIFESTS if path.name == "kustomization.yaml"}
    pointed = set(own)
    for path in own:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        names = [*found.get("resources", ()), *(patch["path"] for patch in found.get("patches", ()))]
        pointed |= {path.parent / name for name in names}
    assert pointed == set(MANIFESTS)
    images = {entry["name"] for entry in kubernetes.document("kustomization.yaml")["images"]}
    assert images == {container["image"] for container in CONTAINERS}


def test_the_selector_selects_the_pods() -> None:
    spec = kubernetes.document("daemonset.yaml")["spec"]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda container: container["name"])
def test_a_container_is_not_privileged_and_drops_what_it_does_not_need(container: Any) -> None:
    context = container["securityContext"]
    assert not context.get("privileged") and context["readOnlyRootFilesystem"] is True
    assert context["capabilities"]["drop"] == ["ALL"]
    assert POD["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert POD["automountServiceAccountToken"] is False


def test_each_volume_is_mounted_once() -> None:
    mounted = [mount["name"] for container in CONTAINERS for mount in container["volumeMounts"]]
    assert sorted(mounted) == sorted(kubernetes.host_paths(POD))


def test_the_paths_are_those_of_the_code() -> None:
    paths = {name: volume["path"] for name, volume in kubernetes.host_paths(POD).items()}
    places = {mount["name"]: mount["mountPath"] for container in CONTAINERS for mount in container["volumeMounts"]}
    assert paths["run"] == places["run"] == RUN_DIR
    assert paths["leases"] == places["leases"] == str(Path(DEFAULT_DATA_DIR).parent)
    assert (paths["sysctls"], places["sysctls"]) == (SYSCTLS.rstrip("/"), MOUNTED_ROOT.rstrip("/"))
    assert paths["plugins"] == places["plugins"] == INSTALLER["command"][-1] == BIN_DIR
    assert all(paths[name] == places[name] for name in ("netns", "machine"))


def test_the_engine_has_the_time_that_it_may_take() -> None:
    assert POD["terminationGracePeriodSeconds"] > STOP_SECONDS >= ANSWER_SECONDS


def test_the_probes_call_what_the_image_has() -> None:
    commands = [ENGINE[kind]["exec"]["command"] for kind in ("startupProbe", "readinessProbe", "livenessProbe")]
    [program] = {command[-1] for command in commands}
    installed = [words for word, words in image.instructions() if word == "RUN" and "cni-v6ctl install" in words]
    assert installed == [f"cni-v6ctl install --courier-only --bin-dir {Path(program).parent}"]
    assert all(ENGINE[kind]["timeoutSeconds"] for kind in ("startupProbe", "readinessProbe", "livenessProbe"))


def test_the_component_only_changes_what_the_engine_sees() -> None:
    changed = kubernetes.with_component("older-kernels")
    assert changed.pop("hostPID") is True
    held = changed["containers"][0]["securityContext"].pop("capabilities")["add"]
    assert set(held) == {"NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE", "SYS_CHROOT"}
    usual = kubernetes.pod()
    usual["containers"][0]["securityContext"].pop("capabilities")
    assert changed == usual


def test_the_component_with_a_configuration_only_adds_it() -> None:
    changed = kubernetes.with_component("conflist")
    usual = kubernetes.pod()
    installer = changed["initContainers"][0]
    assert installer["command"][:len(INSTALLER["command"])] == INSTALLER["command"]
    options = installer.pop("command")[len(INSTALLER["command"]):]
    places = {mount["name"]: mount["mountPath"] for mount in installer["volumeMounts"]}
    assert options == ["--conf-dir", places["conf"], "--conflist", f"{places['network']}/10-cni-v6.conflist"]
    assert kubernetes.host_paths(changed)["conf"]["path"] == places["conf"] == CONF_DIR
    for name in ("conf", "network"):
        installer["volumeMounts"] = [each for each in installer["volumeMounts"] if each["name"] != name]
        changed["volumes"] = [each for each in changed["volumes"] if each["name"] != name]
    usual["initContainers"][0].pop("command")
    assert changed == usual


def test_its_page_tells_of_each_capability_and_mount() -> None:
    rows = set(re.findall(r"^\| `([^`]+)`", PAGE, re.MULTILINE))
    paths = {mount["name"]: kubernetes.host_paths(POD)[mount["name"]]["path"] for mount in ENGINE["volumeMounts"]}
    assert rows == {*ENGINE["securityContext"]["capabilities"]["add"], *paths.values()}
