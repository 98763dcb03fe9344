"""Reads the folders of the node's container runtimes: from their own configuration, else the usual ones."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cni_v6.attachments.context import Context
from cni_v6.config.main import OUR_IPAM
from cni_v6.ctl import conf_dir, runtime_folders
from cni_v6.ctl.plan import configurations
from cni_v6.ctl.runtime_folders import BIN_DIR, CONF_DIR
from cni_v6.errors import CniError
from cni_v6.kernel import programs
from cni_v6.plan.health.runtime import OURS, ConfFile, Runtime
from cni_v6.protocol.json_reader import decode

FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
# Runtimes that look for plugins whether they are configured or not, and the names of their programs.
PROGRAMS = {"containerd": "containerd", "CRI-O": "crio"}
TAKE_FIRST = ("containerd", "CRI-O")  # the first configuration by name; podman and nerdctl take the one that is named


def read(folder: Path | None, bin_dirs: Sequence[Path] | None, node: Context, root: Path = Path("/")) -> list[Runtime]:
    """The runtimes of this node; with folders that somebody named, one that uses these."""
    if folder or bin_dirs:
        named = [str(bin_dir) for bin_dir in bin_dirs or (BIN_DIR,)]
        return [_runtime("runtime", folder or Path(CONF_DIR), named, node)]
    try:
        configured = runtime_folders.runtimes(str(root))
    except CniError as error:
        return [Runtime("runtime", CONF_DIR, {BIN_DIR: _executables(BIN_DIR)}, (), error=str(error))]
    found = [_configured(runtime, node) for runtime in configured]
    files = ("/etc/containerd/config.toml", "/etc/crio/crio.conf")  # with one of these it has said what it wants
    for (name, program), file in zip(PROGRAMS.items(), files):
        if _is_there(program, root) and not (root / file.lstrip("/")).exists():
            if name not in {runtime.name for runtime in found}:
                found.append(_runtime(name, Path(CONF_DIR), [BIN_DIR], node))
    return found or [_runtime("runtime", Path(CONF_DIR), [BIN_DIR], node)]


def _configured(runtime: runtime_folders.Runtime, node: Context) -> Runtime:
    """podman's default is a list of folders that no node has all of."""
    usual = runtime.bin_dirs == runtime_folders.PODMAN_BIN_DIRS
    there = [bin_dir for bin_dir in runtime.bin_dirs if os.path.isdir(bin_dir)] if usual else runtime.bin_dirs
    takes_first = runtime.name in TAKE_FIRST
    return _runtime(runtime.name, Path(runtime.conf_dir), there or [BIN_DIR], node, takes_first=takes_first)


def _is_there(program: str, root: Path) -> bool:
    return programs.find(program, [str(root / folder.lstrip("/")) for folder in FOLDERS]) is not None


def _runtime(name: str, where: Path, bin_dirs: Iterable[str], node: Context, *, takes_first: bool = True) -> Runtime:
    try:
        paths = conf_dir.files(where)
    except CniError:  # a folder that is not there has no files
        paths = []
    listed = {each: _executables(each) for each in bin_dirs}
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
    entries = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
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
