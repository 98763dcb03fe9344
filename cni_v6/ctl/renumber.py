"""``cni-v6ctl renumber``: gives running containers addresses of the prefix that the node has now."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Protocol

from cni_v6.attachments import renumber
from cni_v6.attachments.context import Context
from cni_v6.config.main import IPAM_PLUGIN
from cni_v6.ctl.output import OWNER, Output, flag, object_of, or_null, text
from cni_v6.ctl.plan import configurations
from cni_v6.engine.handle import real_context
from cni_v6.errors import CniError
from cni_v6.plugins.registry import PLUGINS
from cni_v6.protocol import invocation
from cni_v6.protocol.invocation import Request
from cni_v6.protocol.names import Owner

NAMED = ("/run/netns", "/run/docker/netns")  # where ip-netns(8), containerd, podman and Docker bind namespaces
NOWHERE = "/run/netns/renumber"  # nobody opens it
FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # opening a fifo would block otherwise

OUTPUTS = {"renumber": Output(object_of({
    "network": OWNER["network"],
    "containerID": or_null(text("as the runtime calls it; null where no range of the network follows a prefix")),
    "ifname": or_null(text("the interface in the container; null in the same case")),
    "message": text("what was done"), "failed": flag("whether it failed; so does the command then"),
    "dryRun": flag("whether it was only told"),
}), lines=True)}


def register(commands: Any) -> None:
    parser = commands.add_parser("renumber", help="have running containers follow the prefix that the node has now")
    parser.add_argument("conflist", type=Path, nargs="+", help="network configuration (list) files")
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done, and do nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object for each container and line")
    parser.set_defaults(run=run, root=True)


def run(
    chosen: argparse.Namespace, make_node: Callable[[], Context] = real_context,
    look: Callable[[Context], AbstractContextManager[Search]] = lambda node: Namespaces(node),
) -> int:
    node, failed = make_node(), False
    with ExitStack() as stack:
        stack.callback(node.kernel.close)
        namespaces = stack.enter_context(look(node))
        for config in (config for path in chosen.conflist for config in configurations(path)):
            if config["type"] == IPAM_PLUGIN:  # the IPAM plugin alone does not configure containers
                continue
            plugin = PLUGINS[config["type"]].main
            assert plugin  # the types of ``configurations``
            network = renumber.look(invocation.parse(_request(config)), plugin, node)
            if network is None:
                _tell(chosen, config["name"], None, "no range follows a prefix")
                continue
            for outcome in renumber.renumber(network, node, namespaces.find, dry=chosen.dry_run):
                _tell(chosen, outcome.owner.network, outcome.owner, outcome.words, failed=outcome.failed)
                failed = failed or outcome.failed
    return int(failed)


def _tell(chosen: argparse.Namespace, network: str, owner: Owner | None, words: str, *, failed: bool = False) -> None:
    if not chosen.json:
        print(f"{owner or network}: {words}", flush=True)
        return
    OUTPUTS["renumber"].show({
        "network": network, "containerID": owner.container_id if owner else None,
        "ifname": owner.ifname if owner else None, "message": words, "failed": failed, "dryRun": chosen.dry_run,
    }, flush=True)


def _request(config: dict[str, Any]) -> Request:
    """A request with a configuration, as for an ADD of a container: every version has ADD."""
    environment = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "renumber", "CNI_NETNS": NOWHERE, "CNI_IFNAME": "eth0",
                   "CNI_PATH": "/opt/cni/bin"}
    return Request(str(config["type"]), environment, json.dumps(config).encode())


class Search(Protocol):
    """Finds network namespaces."""

    def find(self, namespace: tuple[int, int]) -> str | None:
        """A path of the namespace with this id (``Kernel.netns_id``); None if it is not found."""
        ...


class Namespaces:
    """The network namespaces of the node that have a name or a process.

    A namespace stays open after it is found. So its path leads to it, even if its name or process id is reused.
    """

    def __init__(self, context: Context, folders: tuple[str, ...] = NAMED, processes: str = "/proc") -> None:
        self._node = context
        self._folders = folders
        self._processes = processes
        self._seen: set[tuple[int, int]] = set()
        self._found: dict[tuple[int, int], int] = {}
        self._left = self._paths()

    def __enter__(self) -> Namespaces:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._found.values():
            os.close(file)

    def find(self, namespace: tuple[int, int]) -> str | None:
        """See ``Search``."""
        while namespace not in self._found:
            path = next(self._left, None)
            if path is None:
                return None
            self._open(path)
        return f"/proc/self/fd/{self._found[namespace]}"

    def _paths(self) -> Iterator[str]:
        for folder in self._folders:
            yield from (entry.path for entry in _entries(folder))
        yield from (f"{entry.path}/ns/net" for entry in _entries(self._processes) if entry.name.isdigit())

    def _open(self, path: str) -> None:
        try:
            file = os.open(path, FLAGS)
        except OSError:  # its process has ended, or it cannot be opened
            return
        status = os.fstat(file)
        try:
            if (status.st_dev, status.st_ino) not in self._seen:  # most processes share a few
                self._seen.add((status.st_dev, status.st_ino))
                self._found[self._node.kernel.netns_id(f"/proc/self/fd/{file}")] = os.dup(file)
        except CniError:
            pass  # it is not a namespace
        finally:
            os.close(file)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []
