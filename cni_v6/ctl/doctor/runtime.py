"""Reads the folders of the node's container runtimes: from their own configuration, else the usual ones."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cni_v6.attachments.context import Context
from cni_v6.config.main import OUR_IPAM
from cni_v6.ctl import conf_dir, runtime_folders
from cni_v6.ctl.plan import configurations
from cni_v6.ctl.runtime_folders import BIN_DIR, USUAL_BIN_DIRS
from cni_v6.errors import CniError
from cni_v6.plan.health.runtime import OURS, ConfFile, Runtime
from cni_v6.protocol.invocation import BRIDGE
from cni_v6.protocol.json_reader import decode

TAKE_FIRST = ("containerd", "CRI-O")  # the first configuration by name is the network of all pods


def read(folder: Path | None, bin_dirs: Sequence[Path] | None, node: Context, root: str = "/") -> list[Runtime]:
    """The runtimes of this node; with folders that somebody named, one that uses these.

    :param root: the folder that holds the node's files.
    :raises CniError: INVALID_CONFIG for a runtime's configuration that cannot be read.
    """
    if folder or bin_dirs:
        named = [str(bin_dir) for bin_dir in bin_dirs or (BIN_DIR,)]
        return [_runtime("runtime", folder or conf_dir.CONF_DIR, named, node)]
    found = [
        _runtime(runtime.name, Path(runtime.conf_dir), runtime.bin_dirs, node, takes_first=runtime.name in TAKE_FIRST)
        for runtime in runtime_folders.runtimes(root)
    ]
    return found or [_of_others(node, root.rstrip("/"))]


def _of_others(node: Context, root: str) -> Runtime:
    """On a node without a runtime that we know: one that looks where the plugins are. ``takes_first``: nobody knows."""
    there = [bin_dir for bin_dir in USUAL_BIN_DIRS if BRIDGE in (_executables(root + bin_dir) or ())]
    made = _runtime("runtime", conf_dir.CONF_DIR, there or USUAL_BIN_DIRS, node, takes_first=False)
    return replace(made, is_known=False)


def _runtime(name: str, where: Path, bin_dirs: Iterable[str], node: Context, *, takes_first: bool = True) -> Runtime:
    try:
        paths = conf_dir.files(where)
    except CniError:  # a folder that is not there has no files
        paths = []
    listed = {bin_dir: _executables(bin_dir) for bin_dir in bin_dirs}
    return Runtime(name, str(where), listed, tuple(_file(path, node) for path in paths), takes_first)


def _executables(folder: str) -> frozenset[str] | None:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if os.access(entry.path, os.X_OK) and entry.is_file())
    except OSError:
        return None


def _file(path: Path, node: Context) -> ConfFile:
    try:
        document = decode(path.read_bytes(), path.name)
    except (OSError, CniError) as error:
        return ConfFile(path.name, error=getattr(error, "msg", str(error)))
    listed = document.get("plugins", [document])
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    types = tuple(dict.fromkeys(kind for entry in entries for kind in _types(entry)))
    return ConfFile(path.name, str(document.get("name", "")), types, problem=_problem(path, types, node))


def _types(entry: dict[str, Any]) -> Iterator[str]:
    own, ipam = entry.get("type"), entry.get("ipam")
    if isinstance(own, str):
        yield own
    inner = ipam.get("type") if isinstance(ipam, dict) else None
    if isinstance(inner, str) and inner and not (own in OURS and inner in OUR_IPAM):  # these are in the same process
        yield inner


def _problem(path: Path, types: Iterable[str], node: Context) -> tuple[str, str]:
    if not any(kind in OURS for kind in types):
        return "", ""
    try:
        for config in configurations(path):
            conf_dir.checked(config, node)
    except CniError as error:
        return error.msg, error.details
    return "", ""
