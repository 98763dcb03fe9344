"""Where the container runtimes of this node look for plugins and configurations: what their own configuration says.

containerd (docs/man/containerd-config.toml.5.md, docs/cri/config.md), CRI-O (crio.conf(5), crio.conf.d(5)), podman
(containers.conf(5)) and nerdctl (docs/config.md) have it in TOML.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

from cni_v6.errors import INVALID_CONFIG, CniError

BIN_DIR, CONF_DIR = "/opt/cni/bin", "/etc/cni/net.d"  # the runtimes' defaults, and CONVENTIONS.md's
USUAL_BIN_DIRS = (BIN_DIR, "/usr/lib/cni", "/usr/libexec/cni")  # beside that, packages of Debian and of Fedora
PODMAN_BIN_DIRS = (
    "/usr/local/libexec/cni", "/usr/libexec/cni", "/usr/local/lib/cni", "/usr/lib/cni", BIN_DIR,
)
# containerd: the version of a configuration file -> the plugin whose table ``cni`` counts. Without: 1.
CRI = {1: "cri", 2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
BACKEND = "/var/lib/containers/storage/defaultNetworkBackend"  # podman's choice where no file names one

Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime of this node. ``source``: the file that is its configuration; "" if it has none.

    ``bin_dirs``: a plugin is executed from the first of them that has it.
    """

    name: str
    source: str
    bin_dirs: tuple[str, ...]
    conf_dir: str


def runtimes(root: str = "/") -> list[Runtime]:
    """The runtimes that are configured on this node, or run without a configuration.

    :param root: the folder that holds the node's files.
    :raises CniError: INVALID_CONFIG for a file that cannot be read, or has no valid TOML.
    """
    node = _Node(root)
    return [found for ask in ASKED for found in ask(node)]


class _Node:
    """Reads the node's files. All paths are those that the node has."""

    def __init__(self, root: str) -> None:
        self._root = root.rstrip("/")

    def table(self, path: str) -> Table | None:
        """A TOML file; None if it does not exist."""
        try:
            content = Path(self._root + path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise CniError(INVALID_CONFIG, f"cannot read {path}", str(error.strerror)) from error
        return _parse(content, path)

    def text(self, path: str) -> str:
        """A file's text; "" if it cannot be read."""
        try:
            return Path(self._root + path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def paths(self, pattern: str) -> list[str]:
        """The paths that a pattern of glob(7) matches, sorted."""
        return sorted(path.removeprefix(self._root) for path in glob(self._root + pattern))

    def arguments(self, program: str) -> list[list[str]]:
        """The arguments of each process of the node itself that executes a program, its name left out."""
        lines = ((pid, self.text(f"/proc/{pid}/cmdline").split("\0")) for pid in self._processes())
        return [words[1:] for pid, words in lines
                if os.path.basename(words[0]) == program and self._is_trusted(pid) and self._has_these_files(pid)]

    def _is_trusted(self, pid: str) -> bool:
        """Whether root, or whoever runs us, has started a process: anybody may write any command line.

        The real user counts. A setuid program has another effective one, and may own its /proc/pid (proc(5)).
        """
        found = re.search(r"^Uid:\t(\d+)\t", self.text(f"/proc/{pid}/status"), re.MULTILINE)
        return found is not None and int(found[1]) in (0, os.geteuid())

    def _has_these_files(self, pid: str) -> bool:
        """Whether a process has the node's root folder (proc(5), /proc/pid/root).

        A container has another: a runtime in it is not the node's, and root in it may name a file in a volume, which
        we would believe.
        """
        try:
            return os.path.samefile(f"{self._root}/proc/{pid}/root", self._root or "/")
        except OSError:  # it has ended, or is another user's
            return False

    def _processes(self) -> Iterator[str]:
        try:
            yield from filter(str.isdecimal, os.listdir(f"{self._root}/proc"))
        except OSError:
            return


def _parse(content: bytes, path: str) -> Table:
    try:
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
    except ImportError as error:  # installed for another Python
        words = "install tomli, or name the folders (--bin-dir, --conf-dir)"
        raise CniError(INVALID_CONFIG, f"cannot read {path}", words) from error
    try:
        table: Table = tomllib.loads(content.decode())
    except ValueError as error:  # of UTF-8, or of TOML
        raise CniError(INVALID_CONFIG, f"{path} is not valid TOML", str(error)) from error
    return table


def _containerd(node: _Node) -> Iterator[Runtime]:
    usual = "/etc/containerd/config.toml"
    named = _named(node, "containerd", ("--config", "-c"), usual)
    for path in named or ([usual] if node.table(usual) is not None else []):
        cni: Table = {}
        disabled: set[str] = set()
        for table in _with_imports(node, path, seen=set()):
            disabled |= set(_strings(table.get("disabled_plugins")))
            version = table.get("version", 1)
            plugin = _below(table, "plugins").get(CRI.get(version, "") if isinstance(version, int) else "")
            if isinstance(plugin, Mapping):  # containerd replaces the table of a plugin, not the keys in it
                cni = _below(plugin, "cni")
        if disabled.isdisjoint(CRI.values()):  # Docker's containerd has no use for CNI
            several = _strings(cni.get("bin_dirs")) or _strings([cni.get("bin_dir")])
            yield _runtime("containerd", path, several, cni.get("conf_dir"))


def _with_imports(node: _Node, path: str, seen: set[str]) -> Iterator[Table]:
    """A file of containerd and those that it imports: a later one replaces what an earlier one says."""
    table = None if path in seen else node.table(path)
    seen.add(path)
    if table is None:
        return
    yield table
    for pattern in _strings(table.get("imports")):
        for imported in node.paths(os.path.join(os.path.dirname(path), pattern)):
            yield from _with_imports(node, imported, seen)


def _crio(node: _Node) -> Iterator[Runtime]:
    usual = "/etc/crio/crio.conf"
    named = _named(node, "crio", ("--config", "-c"), usual)
    for path in named or [usual]:
        merged, source = _merged(node, (path, *node.paths("/etc/crio/crio.conf.d/*")), "crio", "network")
        if source or named:
            several = _strings([*_strings(merged.get("plugin_dirs")), merged.get("plugin_dir")])
            yield _runtime("CRI-O", source, several, merged.get("network_dir"))


def _podman(node: _Node) -> Iterator[Runtime]:
    """Only with its CNI backend; netavark, the other one, executes no plugins."""
    files = ("/usr/share/containers/containers.conf", "/etc/containers/containers.conf")
    merged, source = _merged(node, (*files, *node.paths("/etc/containers/containers.conf.d/*.conf")), "network")
    if (merged.get("network_backend") or node.text(BACKEND).strip()) == "cni":
        several = _strings(merged.get("cni_plugin_dirs")) or PODMAN_BIN_DIRS
        yield _runtime("podman", source, several, merged.get("network_config_dir"))


def _nerdctl(node: _Node) -> Iterator[Runtime]:
    path = "/etc/nerdctl/nerdctl.toml"
    table = node.table(path)
    if table is not None:
        yield _runtime("nerdctl", path, _strings([table.get("cni_path")]), table.get("cni_netconfpath"))


ASKED: tuple[Callable[[_Node], Iterable[Runtime]], ...] = (_containerd, _crio, _podman, _nerdctl)


def _named(node: _Node, program: str, options: tuple[str, str], usual: str) -> list[str]:
    """The configuration files of a daemon's processes; none where none runs."""
    return list(dict.fromkeys(_option(arguments, options) or usual for arguments in node.arguments(program)))


def _option(arguments: list[str], names: tuple[str, str]) -> str:
    """The absolute path that a command line gives for an option; "" for none."""
    for name in names:
        following = (after for word, after in zip(arguments, arguments[1:]) if word == name)
        joined = (word.removeprefix(f"{name}=") for word in arguments if word.startswith(f"{name}="))
        for value in (*following, *joined):
            if os.path.isabs(value):
                return value
    return ""


def _merged(node: _Node, paths: Iterable[str], *below: str) -> tuple[Table, str]:
    """The table at a place, with each key from the last file that has it; and the last file that has any."""
    merged: dict[str, Any] = {}
    source = ""
    for path in paths:
        table = node.table(path)
        if table is None:
            continue
        for key in below:
            table = _below(table, key)
        merged |= table
        source = path if table or not source else source
    return merged, source


def _below(table: Table, key: str) -> Table:
    value = table.get(key)
    return value if isinstance(value, Mapping) else {}


def _strings(value: object) -> tuple[str, ...]:
    """The words of a list; other values in it, and other values than lists, are left out."""
    return tuple(word for word in value if isinstance(word, str) and word) if isinstance(value, list) else ()


def _runtime(name: str, source: str, bin_dirs: tuple[str, ...], conf_dir: object) -> Runtime:
    folders = tuple(map(os.path.normpath, bin_dirs or (BIN_DIR,)))
    conf = os.path.normpath(conf_dir) if isinstance(conf_dir, str) and conf_dir else CONF_DIR
    return Runtime(name, source, folders, conf)
