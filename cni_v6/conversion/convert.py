"""Recognizes whose network a document is, and converts it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cni_v6.conversion import cni, docker, podman
from cni_v6.conversion.report import Conversion, Wanted, refused

SOURCES = (
    "it can be a CNI configuration (bridge, ptp, flannel, calico, or another main plugin with host-local), the output "
    "of podman network inspect NAME, or the output of docker network inspect NAME"
)


def convert(document: object, wanted: Wanted) -> Conversion:
    """
    :raises CniError: INVALID_CONFIG for what is nobody's, or has no counterpart.
    """
    found = _chosen(document, wanted) if isinstance(document, list) else document
    if not isinstance(found, Mapping):
        raise refused("this is no network of a program that is known", SOURCES)
    if cni.is_cni(found):
        return cni.convert(found, wanted)
    if podman.is_podman(found):
        return podman.convert(found, wanted)
    if docker.is_docker(found):
        return docker.convert(found, wanted)
    raise refused("this is no network of a program that is known", SOURCES)


def _chosen(networks: list[Any], wanted: Wanted) -> object:
    """One of the networks that an inspection has printed."""
    named = {str(entry.get("name", entry.get("Name", ""))): entry for entry in networks if isinstance(entry, Mapping)}
    if wanted.network:
        if wanted.network not in named:
            words = f"--network {wanted.network}: the file has {', '.join(sorted(named)) or 'none'}"
            raise refused(words, "name another")
        return named[wanted.network]
    if len(named) > 1:
        raise refused(f"the file has several networks: {', '.join(sorted(named))}", "choose one: --network NAME")
    return next(iter(named.values()), None)
