"""Requests and answers of etcd's JSON gateway (etcd, ``api_grpc_gateway``): objects of JSON, keys and values in base64.

A 64-bit number is a string there, and what is 0, false or empty is left out.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cni_v6.cluster.mirror import Event, Forgotten, Kept
from cni_v6.cluster.records import Change
from cni_v6.config.reader import wrong
from cni_v6.errors import DECODING_FAILURE, IO_FAILURE, CniError
from cni_v6.protocol.json_reader import Fields, decode, shown

PORT = 2379
EXAMPLE = "etcd:http://10.0.0.1:2379,http://[fd00::2]:2379/NAME"
# A watch ends when its member has no leader: else it would stay silent (etcd, "require leader").
LEADER = {"Grpc-Metadata-hasleader": "true"}
WHAT = "the answer of etcd"
_URL = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?::([0-9]{1,5}))?")
_PREFIX = re.compile("(/[0-9A-Za-z._-]+)+")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One member of an etcd cluster."""

    secure: bool
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.secure else ''}://{host}:{self.port}"


def parse_target(text: str) -> tuple[tuple[Endpoint, ...], str]:
    """(members, prefix of all keys) of ``URL[,URL]/PREFIX``.

    :raises CniError: INVALID_CONFIG.
    """
    *others, last = text.split(",")
    found = _URL.match(last)
    path = last[found.end():].rstrip("/") if found else ""
    matches = [_URL.fullmatch(url) for url in (*others, last[:found.end()] if found else "")]
    if not _PREFIX.fullmatch(path) or not all(match and 0 < int(match[3] or PORT) < 1 << 16 for match in matches):
        raise wrong("--cluster", f"etcd:{text}", "names no etcd", f"write {EXAMPLE}")
    members = (match for match in matches if match)
    endpoints = tuple(Endpoint(match[1] == "https", match[2].strip("[]"), int(match[3] or PORT)) for match in members)
    return endpoints, f"{path}/"


def range_request(prefix: str) -> dict[str, Any]:
    """All keys with a prefix, as the majority of the members has them."""
    return {"key": _encode(prefix), "range_end": _encode(_end(prefix))}


def reports_prefix(prefix: str) -> str:
    """That of the reports' keys: below no prefix that ``--cluster`` can have, so no watch tells of them."""
    return f"{prefix[:-1]}+reports/"


def key_request(key: str) -> dict[str, Any]:
    """One key, if it is there."""
    return {"key": _encode(key)}


def set_request(key: str, text: str | None) -> dict[str, Any]:
    """A transaction that sets a key, or deletes it, whatever it was."""
    kind = {"request_delete_range": {"key": _encode(key)}} if text is None else {
        "request_put": {"key": _encode(key), "value": _encode(text)}}
    return {"success": [kind]}


def watch_request(prefix: str, revision: int) -> dict[str, Any]:
    """Changes after a revision. While there are none, etcd says so from time to time."""
    return {"create_request": {
        **range_request(prefix), "start_revision": str(revision + 1), "progress_notify": True}}


def read_range(data: bytes, prefix: str) -> tuple[dict[str, Kept], int]:
    """All objects, and the revision that they are of.

    :raises CniError: DECODING_FAILURE.
    """
    fields = Fields(decode(data, WHAT))
    found = {}
    for pair in fields.children("kvs"):
        found[_key(pair, prefix)] = Kept(_decode(pair, "value"), _number(pair, "mod_revision"))
    return found, _revision(fields)


def commit_request(changes: Sequence[Change], known: Mapping[str, Kept], prefix: str) -> dict[str, Any] | None:
    """A transaction; None if it would fail by what is known.

    :param known: the objects that were read at last; a change's ``was`` is of them.
    """
    compared, done = [], []
    for change in changes:
        kept, key = known.get(change.key), _encode(prefix + change.key)
        if (kept.text if kept else None) != change.was:
            return None
        # A key that does not exist has revision 0.
        compared.append({"key": key, "target": "MOD", "mod_revision": str(kept.revision if kept else 0)})
        if change.now is None:
            done.append({"request_delete_range": {"key": key}})
        elif change.now != change.was:
            done.append({"request_put": {"key": key, "value": _encode(change.now)}})
    return {"compare": compared, "success": done}


def read_commit(data: bytes) -> int | None:
    """The revision of the transaction; None if it was not made.

    :raises CniError: DECODING_FAILURE.
    """
    fields = Fields(decode(data, WHAT))
    return _revision(fields) if fields.raw.get("succeeded") is True else None


def read_watch(line: bytes, prefix: str, after: int) -> tuple[list[Event], int]:
    """What a line of a watch's answer tells of, and its last revision; nothing and 0 for a line without changes.

    All changes of a revision are in one line (etcd, "Watch APIs": atomic).

    :param after: the revision that the watch was to begin after. A member that does not have it yet lags behind, or
        etcd was restored from a backup or begun anew: it would be silent until it has.
    :raises Forgotten:
    :raises CniError: DECODING_FAILURE; IO_FAILURE if etcd ends the watch.
    """
    document = Fields(decode(line, WHAT))
    result = document.child("result")
    if result is None or result.raw.get("canceled") is True:
        if result and result.text("compact_revision"):
            raise Forgotten
        raise CniError(IO_FAILURE, "etcd has ended the watch", _reason(result or document))
    if result.raw.get("created") is True and _revision(result) < after:
        raise Forgotten
    events = [_event(fields, prefix) for fields in result.children("events")]
    return events, max((event.revision for event in events), default=0)


def _event(fields: Fields, prefix: str) -> Event:
    pair = fields.child("kv")
    if pair is None:
        raise fields.wrong("kv", "an object")
    deleted = fields.text("type") == "DELETE"
    return Event(_key(pair, prefix), None if deleted else _decode(pair, "value"), _number(pair, "mod_revision"))


def _reason(fields: Fields) -> str:
    error = fields.child("error") or fields
    return shown(error.text("cancel_reason") or error.text("message"))


def refusal(status: int, data: bytes) -> str:
    """What etcd says in an answer that is no success."""
    try:
        fields = Fields(decode(data, WHAT))
        words = fields.text("message") or fields.text("error")
    except CniError:
        words = ""
    return f"status {status}" + (f": {shown(words)}" if words else "")


def _end(prefix: str) -> str:
    """The first key after all keys with a prefix, which ends with an ASCII character."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decode(fields: Fields, name: str) -> str:
    try:
        return base64.b64decode(fields.text(name), validate=True).decode(errors="replace")
    except ValueError:
        raise fields.wrong(name, "base64") from None


def _key(fields: Fields, prefix: str) -> str:
    key = _decode(fields, "key")
    if not key.startswith(prefix):
        raise CniError(DECODING_FAILURE, f"{WHAT} has key {shown(key)}, which is not below {prefix}")
    return key.removeprefix(prefix)


def _revision(fields: Fields) -> int:
    """That of the whole store."""
    header = fields.child("header")
    if header is None:
        raise fields.wrong("header", "an object")
    return _number(header, "revision")


def _number(fields: Fields, name: str) -> int:
    text = fields.text(name)
    if not re.fullmatch("[0-9]{1,19}", text):
        raise fields.wrong(name, "a number in quotes")
    return int(text)
