"""Lines of the log of calls: read, chosen, and written for a person."""

from __future__ import annotations

import json
from calendar import timegm
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from time import strptime
from typing import Any

from cni_v6.ctl import screen
from cni_v6.ctl.output import Output, mapped, number, object_of, text, texts, whole
from cni_v6.ctl.screen import plain

INDENT = 21  # behind the time
LABEL = INDENT + 10
START = b'{"time":'  # of a line, and nowhere else in it: in a text, JSON puts a backslash before the quotes

Said = Mapping[str, Any]

OUTPUT = Output(object_of({"time": text("when it was answered, UTC")}, {
    "id": text("of the call"), "plugin": text("the CNI type"), "command": text("of CNI"),
    "network": text("the name in its configuration"), "container": text("as the runtime calls it"),
    "ifname": text("the interface in the container"), "netns": text("path of its network namespace"),
    "pod": text("namespace and name, from CNI_ARGS"), "addresses": texts("of an ADD's result; that a DEL has freed"),
    "ms": number("milliseconds from the request's arrival to the answer"),
    "steps": mapped(number("milliseconds"), "the parts of ms"), "warnings": texts("on standard error"),
    "notes": texts("on standard error"),
    "error": object_of({
        "code": whole("docs/errors.md"), "msg": text("what is wrong"), "details": text("what to do"),
    }, meaning="of a call that failed"),
    "traceback": text("of a bug of ours"), "trace": text("trace id of TRACEPARENT"),
    "parent": text("span id of TRACEPARENT"), "event": text("instead of a call: what the engine did by itself"),
    "pid": whole("of the process that handled it"),
}), lines=True)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines; "" and False for all. ``container`` and ``call``: how the id begins."""

    network: str = ""
    container: str = ""
    call: str = ""
    errors: bool = False

    @property
    def is_all(self) -> bool:
        return self == Wanted()

    def has(self, said: Said) -> bool:
        return (
            self.network in ("", said.get("network", "")) and str(said.get("container", "")).startswith(self.container)
            and str(said.get("id", "")).startswith(self.call) and (not self.errors or "error" in said)
        )


def parse(lines: Iterable[bytes]) -> Iterator[Said]:
    """The objects of some lines; what is none is left out, such as a part of a line before a whole one."""
    for line in lines:
        try:
            said = json.loads(line[max(0, line.rfind(START)):])
        except (ValueError, RecursionError):
            continue
        if isinstance(said, dict) and isinstance(said.get("time"), str):
            yield said


def rendered(said: Said, *, steps: bool = False) -> Iterator[str]:
    """A call or an event as lines of the screen's width."""
    when = _moment(said)
    if "event" in said:
        yield from screen.wrapped(when, f"engine: {plain(said['event'])}", INDENT)
        return
    head = f"{plain(said.get('command') or '-'):<6} {_duration(said):>8}  {_whose(said)}"
    yield f"{when}  {screen.cut(head, screen.WIDTH - INDENT)}".rstrip()
    rows = [("pod", plain(said.get("pod", ""))), ("addresses", " ".join(map(plain, _list(said, "addresses")))),
            *(("warning", plain(words)) for words in _list(said, "warnings")),
            *(("note", plain(words)) for words in _list(said, "notes")),
            ("error", _error(said)), ("call", plain(said.get("id", "")) if "error" in said else ""),
            ("trace", plain(said.get("trace", ""))), ("steps", _steps(said) if steps else "")]
    for label, words in rows:
        if words:
            yield from screen.wrapped(" " * INDENT + label, words, LABEL)


def in_a_line(said: Said) -> str:
    """A call or an event in one line of the screen's width."""
    if "event" in said:
        words = f"engine  {plain(said['event'])}"
    else:
        end = f"error {_error(said)}" if "error" in said else " ".join(map(plain, _list(said, "addresses")))
        words = f"{plain(said.get('command') or '-'):<6}  {_whose(said)}  {_duration(said)}  {end}"
    line = f"{_moment(said)[11:]}  {words}".rstrip()
    return line if len(line) <= screen.WIDTH else f"{line[:screen.WIDTH - 3]}..."


def _whose(said: Said) -> str:
    container = plain(said.get("container", ""))[:screen.LEAST]
    owner = f"{container}/{plain(said.get('ifname', ''))}" if container else ""
    return " ".join(filter(None, (plain(said.get("network") or said.get("plugin") or ""), owner)))


def _duration(said: Said) -> str:
    spent = said.get("ms")
    if not isinstance(spent, int | float):
        return "-"
    return f"{spent / 1000:.1f} s" if spent >= 1000 else f"{spent:.1f} ms"


def _error(said: Said) -> str:
    error = said.get("error")
    if not isinstance(error, dict):
        return ""
    return plain(": ".join(str(error[key]) for key in ("code", "msg", "details") if error.get(key)))


def _steps(said: Said) -> str:
    steps = said.get("steps")
    return ", ".join(f"{plain(name)} {spent} ms" for name, spent in steps.items()) if isinstance(steps, dict) else ""


def _list(said: Said, key: str) -> list[Any]:
    found = said.get(key)
    return found if isinstance(found, list) else []


def _moment(said: Said) -> str:
    """The time of a line as local time of the node."""
    try:
        return screen.moment(timegm(strptime(said["time"][:19], "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return plain(said["time"])[:INDENT - 2]
