"""A pod's container as a node of Kubernetes runs it: what its manifest says becomes runc's configuration, as
containerd's CRI service makes it (internal/cri/server/container_create.go, pkg/oci/spec.go).

What a manifest does not say is as strict as there: /proc/sys is read-only, parts of /proc and /sys are hidden.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.sandbox import ROOT

MANIFESTS = ROOT / "deploy/kubernetes"
SECCOMP = Path("/usr/share/containers/seccomp.json")  # the default profile of CRI-O and podman; containerd's is alike
PROPAGATION = {"None": "rprivate", "HostToContainer": "rslave", "Bidirectional": "rshared"}
NAMESPACES = ("pid", "ipc", "mount", "cgroup")  # of its own; hostNetwork: the node's network and host name
MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
MOUNTS = (
    ("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    ("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    ("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")),
    ("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    ("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
)

Mount = dict[str, Any]


def document(path: str) -> Any:
    """The document of a manifest."""
    return yaml.safe_load(MANIFESTS.joinpath(path).read_text(encoding="utf-8"))


def pod() -> Any:
    """What the DaemonSet says of its pods."""
    return document("daemonset.yaml")["spec"]["template"]["spec"]


def with_component(name: str) -> Any:
    """The same, with the patches of a component: merged as kubectl does, lists of objects by their names."""
    merged = document("daemonset.yaml")
    for patch in document(f"{name}/kustomization.yaml")["patches"]:
        merged = _merged(merged, document(f"{name}/{patch['path']}"))
    return merged["spec"]["template"]["spec"]


def _merged(base: Any, patch: Any) -> Any:
    if isinstance(base, dict) and isinstance(patch, dict):
        return {**base, **{key: _merged(base[key], value) if key in base else value for key, value in patch.items()}}
    if isinstance(base, list) and all(isinstance(entry, dict) for entry in patch):
        own, given = ({_merge_key(entry): entry for entry in entries} for entries in (base, patch))
        return list({**own, **{key: _merged(own.get(key, {}), entry) for key, entry in given.items()}}.values())
    return patch


def _merge_key(entry: Mapping[str, Any]) -> str:
    """What tells the entries of a list apart (patchMergeKey in the types of the API)."""
    return str(entry.get("mountPath") or entry["name"])


def capabilities(container: Mapping[str, Any]) -> list[str]:
    """The capabilities that a container has; it must drop all others."""
    wanted = container["securityContext"]["capabilities"]
    assert wanted["drop"] == ["ALL"]
    return [f"CAP_{name}" for name in wanted.get("add", [])]


def host_paths(spec: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The pod's volumes that are paths of the node: name -> ``hostPath``."""
    return {volume["name"]: volume["hostPath"] for volume in spec["volumes"] if "hostPath" in volume}


def bind(source: str | Path, destination: str, *options: str) -> Mount:
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind", *options]}


def configuration(
    spec: Mapping[str, Any], container: Mapping[str, Any], *, root: Path, image: Iterable[Mount], env: Sequence[str],
    cgroup: str, config_maps: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """The config.json of the OCI runtime specification.

    :param spec: of the pod.
    :param root: the folder with the image's root.
    :param image: mounts that belong to the image.
    :param env: of the image.
    :param config_maps: name -> the folder that kubelet made of it.
    """
    context = container["securityContext"]
    held = capabilities(container)
    read_only = bool(context.get("readOnlyRootFilesystem"))
    assert spec["hostNetwork"] and not spec.get("hostPID") and not context.get("privileged"), "none of ours says else"
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": container["command"], "env": list(env),
            "capabilities": {kind: held for kind in ("bounding", "effective", "permitted")},
            # The API refuses "false" beside CAP_SYS_ADMIN (ValidateSecurityContext).
            "noNewPrivileges": context.get("allowPrivilegeEscalation") is False,
        },
        "root": {"path": str(root), "readonly": read_only},
        "mounts": [
            *({"destination": where, "type": kind, "source": source, "options": list(options)}
              for where, kind, source, options in MOUNTS),
            *({**mount, "options": [*mount["options"], *(["ro"] if read_only else [])]} for mount in image),
            *_volumes(spec, container, config_maps or {}),
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": name} for name in NAMESPACES],
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READ_ONLY),
            **({"seccomp": _seccomp(set(held))} if spec["securityContext"]["seccompProfile"]["type"] != "Unconfined"
               else {}),
        },
    }


def _volumes(
    spec: Mapping[str, Any], container: Mapping[str, Any], config_maps: Mapping[str, Path]
) -> Iterator[Mount]:
    sources: dict[str, str | Path] = {name: path["path"] for name, path in host_paths(spec).items()}
    for volume in spec["volumes"]:
        if "configMap" in volume:
            sources[volume["name"]] = config_maps[volume["configMap"]["name"]]
    for mount in container["volumeMounts"]:
        propagation = PROPAGATION[mount.get("mountPropagation", "None")]
        options = (propagation, "ro" if mount.get("readOnly") else "rw")
        # runc refuses what lies in the container's own /proc (libcontainer, checkProcMount).
        assert not mount["mountPath"].startswith("/proc")
        yield bind(sources[mount["name"]], mount["mountPath"], *options)


def _seccomp(held: set[str]) -> dict[str, Any]:
    """The profile RuntimeDefault for a container with these capabilities."""
    profile = json.loads(SECCOMP.read_text(encoding="utf-8"))
    own = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    rules = []
    for rule in profile["syscalls"]:
        includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
        if not set(includes.get("caps") or ()) <= held or set(excludes.get("caps") or ()) & held:
            continue
        if own not in (includes.get("arches") or [own]) or own in (excludes.get("arches") or ()):
            continue
        rules.append({key: rule[key] for key in ("names", "action", "args", "errnoRet") if rule.get(key)})
    kept = ("defaultAction", "defaultErrnoRet")
    return {**{key: profile[key] for key in kept if key in profile}, "syscalls": rules}
