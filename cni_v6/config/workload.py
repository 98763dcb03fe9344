"""The workload of a call: the name that stays the same when its container is replaced by another."""

from __future__ import annotations

import re

from cni_v6.protocol.invocation import Invocation

# What CRI and podman let names be made of: no slash, so that a name is never taken for a namespace and a name.
_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]*", re.ASCII)


def of(call: Invocation) -> str:
    """``namespace/name`` of the pod, as CRI runtimes send it; the name if only that is sent; else the container's id.

    podman tells a container's name as K8S_POD_NAME, and no namespace. Both were the name before podman 4.0
    (containers/podman#12083).
    """
    told = call.args.kubernetes
    name, namespace = told.get("K8S_POD_NAME", ""), told.get("K8S_POD_NAMESPACE", "")
    if not _NAME.fullmatch(name):
        return call.container_id
    return f"{namespace}/{name}" if _NAME.fullmatch(namespace) else name


def is_one(text: str) -> bool:
    """Whether a workload can have this identity."""
    return len(text.split("/")) <= 2 and all(_NAME.fullmatch(part) for part in text.split("/"))
