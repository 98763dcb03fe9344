"""Reads the folders of the node's container runtimes: from their own configuration, else the usual ones."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cni_v6.attachments.context import Context
from cni_v6.config.main import OUR_IPAM
from cni_v6.ctl import conf_dir
from cni_v6.ctl.plan import configurations
from cni_v6.errors import CniError
from cni_v6.kernel import programs
from cni_v6.plan.health.runtime import OURS, ConfFile, Runtime
from cni_v6.protocol.json_reader import decode

FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
BIN_DIR = "/opt/cni/bin"


@dataclass(frozen=True, slots=True)
class Kind:
    """A runtime: its program, its configuration files, and the keys of its folders there with their defaults."""

    name: str
    program: str
    files: tuple[str, ...]
    conf_key: str
    bin_keys: tuple[str, ...]
    bin_dirs: tuple[str, ...]
    takes_first: bool = True


# containerd docs/cri/config.md; crio.conf(5); containers.conf(5). A later file overrides an earlier one.
KINDS = (
    Kind("containerd", "containerd", ("/etc/containerd/config.toml",), "conf_dir", ("bin_dir", "bin_dirs"), (BIN_DIR,)),
    Kind("CRI-O", "crio", ("/etc/crio/crio.conf", "/etc/crio/crio.conf.d/*.conf"), "network_dir",
         ("plugin_dir", "plugin_dirs"), (BIN_DIR,)),
    Kind("podman", "podman", ("/usr/share/containers/containers.conf", "/etc/containers/containers.conf",
                              "/etc/containers/containers.conf.d/*.conf"), "network_config_dir", ("cni_plugin_dirs",),
         ("/usr/local/libexec/cni", "/usr/libexec/cni", "/usr/local/lib/cni", "/usr/lib/cni", BIN_DIR), False),
)


def read(folder: Path | None, bin_dirs: Sequence[Path] | None, node: Context, root: Path = Path("/")) -> list[Runtime]:
    """The runtimes of this node; with folders that somebody named, one that uses these."""
    if folder or bin_dirs:
        return [_runtime("runtime", folder or conf_dir.CONF_DIR, [str(each) for each in bin_dirs or (BIN_DIR,)], node)]
    found = [_of(kind, node, root) for kind in KINDS if _is_there(kind, root)]
    return found or [_runtime("runtime", conf_dir.CONF_DIR, [BIN_DIR], node)]


def _is_there(kind: Kind, root: Path) -> bool:
    return programs.find(kind.program, [str(root / each.lstrip("/")) for each in FOLDERS]) is not None


def _of(kind: Kind, node: Context, root: Path) -> Runtime:
    texts = [path.read_text(errors="replace") for pattern in kind.files
             for path in sorted(root.glob(pattern.lstrip("/"))) if path.is_file()]
    folders = [each for text in texts for each in settings(text, (kind.conf_key,))]
    where = Path(folders[-1]) if folders else conf_dir.CONF_DIR
    named = [found for text in texts if (found := list(settings(text, kind.bin_keys)))]
    there = [each for each in kind.bin_dirs if os.path.isdir(each)] if not kind.takes_first else list(kind.bin_dirs)
    bins = named[-1] if named else there or [BIN_DIR]
    return _runtime(kind.name, where, bins, node, takes_first=kind.takes_first)


def settings(text: str, keys: Iterable[str]) -> Iterator[str]:
    """The strings that TOML text gives some keys, in any table. Lines that are commented out give none."""
    names = "|".join(map(re.escape, keys))
    values = r"(\[[^\]]*\]|\"[^\"\n]*\"|'[^'\n]*')"
    for found in re.finditer(rf"^[ \t]*(?:{names})[ \t]*=[ \t]*{values}", text, re.MULTILINE):
        for line in found[1].splitlines():
            yield from (each[1:-1] for each in re.findall(r"\"[^\"]*\"|'[^']*'", line.partition("#")[0]) if each[1:-1])


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
