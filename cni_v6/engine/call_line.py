"""What the log of calls says of one call, as a JSON object. Pure.

Everything in it has a bounded length: a line is written by one write(2), so that lines of several writers do not mix.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cni_v6.errors import CniError
from cni_v6.log import STEPS
from cni_v6.protocol.invocation import Invocation, Report, Request
from cni_v6.protocol.json_reader import decoded

QUIET = ("STATUS", "VERSION")  # runtimes ask every few seconds: a line only where something is wrong
MOST, LONG, SHORT = 20, 1000, 200  # items of a list; characters of a sentence, and of a name
# W3C Trace Context, section 3.2: version, trace id, parent id, flags.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_PATH = re.compile(r"/(?!(.*/)?\.\./)[ -~]*[^/]\.jsonl")  # as the form ``logFile`` of config/formats.py, but ASCII
_ENCODER = json.JSONEncoder(separators=(",", ":"))  # json.dumps would make one for each line
WARNING = "warning: "


def document(report: Report, request: Request, written: str, pid: int) -> dict[str, Any] | None:
    """The line of a call; None for one that needs none (``QUIET``).

    :param written: the time, as text.
    :param pid: of the process that handled it.
    """
    call, env = report.call, request.env
    command = call.command if call else env.get("CNI_COMMAND", "")
    lines = _lines(call)
    if command in QUIET and not report.error and not lines:
        return None
    names = {
        "plugin": request.plugin, "command": command, "network": call.network if call else "",
        "container": env.get("CNI_CONTAINERID", ""), "ifname": env.get("CNI_IFNAME", ""),
        "netns": env.get("CNI_NETNS", ""), "pod": _pod(call),
    }
    steps = report.steps.seconds
    said = {
        **{key: text[:SHORT] for key, text in names.items() if text},
        "addresses": _addresses(call, report)[:MOST],
        "ms": _ms(sum(steps.values())),
        "steps": {step: _ms(steps[step]) for step in STEPS if step in steps},
        "warnings": _few([line.removeprefix(WARNING) for line in lines if line.startswith(WARNING)]),
        "notes": _few([line for line in lines if not line.startswith(WARNING)]),
        "error": _error(report.error), "traceback": report.traceback[-4 * LONG:], **_trace(env),
    }
    return {"time": written, "id": report.id, **{key: value for key, value in said.items() if value}, "pid": pid}


def event(words: str, written: str, pid: int) -> dict[str, Any]:
    """The line of what an engine does by itself, between calls."""
    return {"time": written, "event": words[:LONG], "pid": pid}


def encode(said: Mapping[str, Any]) -> bytes:
    """A line as bytes. ASCII alone: nothing in it can move the cursor of a terminal."""
    return _ENCODER.encode(said).encode() + b"\n"


def path_of(request: Request, plugins: Sequence[str]) -> str:
    """The ``log`` of a configuration, "" for none. Read before the parser refuses a wrong one, for errors too.

    :param plugins: whose key it is: beside ``cni-v6-ipam`` it belongs to the main plugin.
    """
    if b'"log"' not in request.stdin or request.plugin not in plugins:
        return ""
    try:
        path = decoded(request.stdin).get("log")
    except CniError:
        return ""
    return path if isinstance(path, str) and _PATH.fullmatch(path) else ""


def _lines(call: Invocation | None) -> list[str]:
    """What the call has logged, without the name of the call, which is in the line already."""
    return [line.removeprefix(f"{call.log.prefix}: ") for line in call.log.lines] if call else []


def _few(lines: Sequence[str]) -> list[str]:
    more = [f"and {len(lines) - MOST} more"] if len(lines) > MOST else []
    return [line[:LONG] for line in lines[:MOST]] + more


def _addresses(call: Invocation | None, report: Report) -> list[str]:
    """The addresses of an ADD's result; of a DEL, those that it has freed."""
    if report.result:
        return [ip.address.partition("/")[0] for ip in report.result.ips]
    return list(call.log.released) if call else []


def _pod(call: Invocation | None) -> str:
    kubernetes = call.args.kubernetes if call else {}
    return "/".join(filter(None, (kubernetes.get("K8S_POD_NAMESPACE"), kubernetes.get("K8S_POD_NAME"))))


def _error(error: CniError | None) -> dict[str, Any] | None:
    return {"code": error.code, "msg": error.msg[:LONG], "details": error.details[:LONG]} if error else None


def _trace(env: Mapping[str, str]) -> dict[str, str]:
    found = _TRACEPARENT.fullmatch(env.get("TRACEPARENT", ""))
    return {"trace": found[1], "parent": found[2]} if found else {}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
