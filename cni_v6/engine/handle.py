"""handle(request) -> reply: the only place that combines plugins and real node, and turns errors into answers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from cni_v6.attachments.context import Context
from cni_v6.errors import INTERNAL, INVALID_ENVIRONMENT, CniError
from cni_v6.kernel import privilege, text_file
from cni_v6.kernel.deadline import Patience
from cni_v6.kernel.linux import LinuxKernel
from cni_v6.leases.disk.data_dirs import RUN_DIR, DiskDataDirs
from cni_v6.leases.disk.store import DiskLeases
from cni_v6.leases.store import Leases
from cni_v6.plugins import delegate
from cni_v6.plugins.registry import PLUGINS
from cni_v6.protocol import invocation
from cni_v6.protocol.invocation import Invocation, Report, Request
from cni_v6.protocol.json_reader import shown
from cni_v6.protocol.result import Result, to_json
from cni_v6.values import dataclass

if TYPE_CHECKING:
    from cni_v6.engine.in_order import InOrder
    from cni_v6.leases.disk.known_records import KnownRecords


@dataclass(frozen=True, slots=True)
class Reply:
    """The output of the executable and its exit status."""

    stdout: bytes = b""
    stderr: str = ""
    code: int = 0


def handle(request: Request, context: Context | None = None, report: Report | None = None) -> Reply:
    """Answer one call. Any call gets an exit status and one JSON object, or nothing, on stdout.

    :param context: the node to work on; None for the real one.
    :param report: is filled for the log of calls; None for the context's.
    """
    log = ""
    report = report or (context.report if context else None)
    try:
        _require_plugin(request)
        if context is None:
            _require_root(request)
        call = invocation.parse(request)
        if report:
            report.call = call
        log = call.log.text()
        if call.command == "VERSION":
            return _reply(invocation.version_reply(call.version), log)
        try:
            result = _perform(call, context, report)
        finally:
            log = call.log.text()
        return _reply(to_json(result, call.version) if result else None, log)
    except CniError as error:
        return _failed(error, request, log, report)
    except Exception as error:
        import traceback  # imported here: it would slow down every start

        words = f"{type(error).__name__}: {error}"
        wrapped = CniError(INTERNAL, "cni-v6 failed in a way it should not", words)
        where = traceback.format_exc()
        if report:
            report.traceback = where
        return _failed(wrapped, request, log + where, report)


def _require_plugin(request: Request) -> None:
    """Check the plugin's name. A courier takes it from the name of its file, which may be any.

    :raises CniError: INVALID_ENVIRONMENT.
    """
    if request.plugin not in PLUGINS:
        words = f"there is no plugin {shown(request.plugin)}"
        raise CniError(INVALID_ENVIRONMENT, words, f"its executable must be called one of {', '.join(PLUGINS)}")


def _require_root(request: Request) -> None:
    """Check the privilege before anything else: otherwise the first error of the kernel would hide the reason.

    The IPAM plugin needs no privilege: the owner and mode of ``dataDir`` decide.

    :raises CniError: NOT_PRIVILEGED.
    """
    command = request.env.get("CNI_COMMAND", "")
    plugin = PLUGINS[request.plugin]
    if plugin.needs_net_admin and command in plugin.commands:
        privilege.require(f"{request.plugin} {command}")


def _perform(call: Invocation, context: Context | None, report: Report | None) -> Result | None:
    world = context or real_context()
    if report:
        from cni_v6.engine.steps import timed  # nobody asks without an engine, unless the configuration has a log

        world = timed(world, report.steps)
    try:
        result = PLUGINS[call.plugin].commands[call.command](call, world)
        if report:
            report.result = result
        return result
    finally:
        for remark in world.remarks():
            call.log.warning(remark)
        world.kernel.close()


def _reply(answer: Mapping[str, Any] | None, log: str = "") -> Reply:
    return Reply(_encode(answer) if answer is not None else b"", log)


def _failed(error: CniError, request: Request, log: str, report: Report | None) -> Reply:
    if report:
        report.error = error
        # What to look for in the log of calls; not behind the details, which end in commands to copy.
        error = CniError(error.code, f"{error.msg} (call {report.id})", error.details)
    answer = invocation.error_reply(error, invocation.version_of(request.stdin))
    return Reply(_encode(answer), f"{log}{request.plugin}: error {error.code}: {error}\n", 1)


def _encode(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def refuse(request: Request, error: CniError, report: Report | None = None) -> Reply:
    """The answer to a call that was not begun."""
    return _failed(error, request, "", report)


def real_context(
    kernel: LinuxKernel | None = None, patience: Patience | None = None, run_dir: str = "",
    known: KnownRecords | None = None, report: Report | None = None, in_order: InOrder | None = None,
) -> Context:
    """The real node: its kernel, its lease store, its plugins.

    :param kernel: of this invocation, if the caller has part of it open; None for a new one.
    :param patience: the time limits of this invocation; None for none.
    :param run_dir: the folder for files that last until a reboot; "" for CNI_V6_RUN_DIR or the default.
    :param known: what an engine knows of the records.
    :param report: see ``Context``; ``in_order`` too.
    """
    boot = _boot()
    patient = patience or Patience()
    kernel = kernel or LinuxKernel()

    def leases(network: str, data_dir: str) -> Leases:
        return DiskLeases(network, data_dir, boot=boot, left=patient.left, known=known)

    return Context(
        kernel=kernel,
        leases=leases,
        data_dirs=DiskDataDirs(run_dir or os.environ.get("CNI_V6_RUN_DIR", RUN_DIR)),
        delegate=partial(delegate.run, patience=patient),
        read_file=text_file.read,
        boot=boot,
        id=_id(),
        now=time.time,
        remarks=kernel.remarks,
        report=report,
        in_order=in_order,
    )


@cache
def _boot() -> str:
    """This boot's id. It cannot change while a process lives, so it is cached."""
    return _first_line("/proc/sys/kernel/random/boot_id")


@cache
def _id() -> str:
    """The machine id, else the host name; cached, so that renaming the node does not change it."""
    return _first_line("/etc/machine-id") or _first_line("/proc/sys/kernel/hostname")


def _first_line(path: str) -> str:
    try:
        return text_file.read(path).strip()
    except OSError:
        return ""
