"""handle(request) -> reply: the one place that assembles the real node and the plugins, and makes errors answers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from cni_v6 import bridge, delegate, ipam, protocol, textfile
from cni_v6.datadirs import RUN_DIR, DiskDataDirs
from cni_v6.errors import INTERNAL, CniError
from cni_v6.kernel.linux import LinuxKernel
from cni_v6.leases import Leases
from cni_v6.node import Node
from cni_v6.patience import Patience
from cni_v6.protocol import Invocation, Request
from cni_v6.result import Result, to_json
from cni_v6.store import DiskLeases

Handler = Callable[[Invocation, Node], Result | None]

PLUGINS: Mapping[str, Mapping[str, Handler]] = {
    "cni-v6": {
        "ADD": bridge.add,
        "DEL": bridge.delete,
        "CHECK": bridge.check,
        "GC": bridge.collect,
        "STATUS": bridge.status,
    },
    "cni-v6-ipam": {
        "ADD": ipam.add,
        "DEL": ipam.delete,
        "CHECK": ipam.check,
        "GC": ipam.collect,
        "STATUS": ipam.status,
    },
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the executable prints and how it ends."""

    stdout: bytes = b""
    stderr: str = ""
    code: int = 0


def handle(request: Request, node: Node | None = None) -> Reply:
    """Answer one call. Whatever comes, the answer is one JSON object or nothing on stdout, and an exit status.

    :param node: the world to work in; the real one where it is not given.
    """
    log = ""
    try:
        call = protocol.parse(request)
        log = call.log.text()
        if call.command == "VERSION":
            return _reply(protocol.version_reply(call.version), log)
        try:
            result = _perform(call, node)
        finally:
            log = call.log.text()
        return _reply(to_json(result, call.version) if result else None, log)
    except CniError as error:
        return _failed(error, request, log)
    except Exception as error:
        import traceback  # only where it is needed: the start-up path pays for every import

        words = f"{type(error).__name__}: {error}"
        wrapped = CniError(INTERNAL, "cni-v6 failed in a way it should not", words)
        return _failed(wrapped, request, log + traceback.format_exc())


def _perform(call: Invocation, node: Node | None) -> Result | None:
    world = node or real_node()
    try:
        return PLUGINS[call.plugin][call.command](call, world)
    finally:
        for remark in world.remarks():
            call.log.warning(remark)
        world.kernel.close()


def _reply(answer: Mapping[str, Any] | None, log: str = "") -> Reply:
    return Reply(_encode(answer) if answer is not None else b"", log)


def _failed(error: CniError, request: Request, log: str) -> Reply:
    answer = protocol.error_reply(error, protocol.version_of(request.stdin))
    return Reply(_encode(answer), f"{log}{request.plugin}: error {error.code}: {error}\n", 1)


def _encode(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def refuse(request: Request, error: CniError) -> Reply:
    """The answer to a call that is not begun."""
    return _failed(error, request, "")


def real_node(kernel: LinuxKernel | None = None, patience: Patience | None = None, run_dir: str = "") -> Node:
    """This machine: its kernel, its lease store, its plugins.

    :param kernel: this invocation's, where the caller has part of it open already.
    :param patience: this invocation's; None where nobody limits it.
    :param run_dir: the folder of what is kept in mind until a reboot; "" for what the environment says.
    """
    boot = _boot()
    patient = patience or Patience()
    kernel = kernel or LinuxKernel()

    def leases(network: str, data_dir: str) -> Leases:
        return DiskLeases(network, data_dir, boot=boot, left=patient.left)

    return Node(
        kernel=kernel,
        leases=leases,
        data_dirs=DiskDataDirs(run_dir or os.environ.get("CNI_V6_RUN_DIR", RUN_DIR)),
        delegate=partial(delegate.run, patience=patient),
        read_file=textfile.read,
        boot=boot,
        id=_id(),
        now=time.time,
        remarks=kernel.remarks,
    )


@cache
def _boot() -> str:
    """This boot's id; no process outlives it."""
    return _first_line("/proc/sys/kernel/random/boot_id")


@cache
def _id() -> str:
    """What tells this node from others; the same for as long as a process lives, whoever renames the node."""
    return _first_line("/etc/machine-id") or _first_line("/proc/sys/kernel/hostname")


def _first_line(path: str) -> str:
    try:
        return textfile.read(path).strip()
    except OSError:
        return ""
