"""What a conversion has to say: what changes, what has no counterpart, what a person must look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.protocol.json_reader import shown

CHANGED, LOST, LOOK = "changed", "no counterpart", "look at"
BRIDGE, ROUTED = "bridge", "routed"  # what ``to`` can be


@dataclass(frozen=True, slots=True)
class Remark:
    """``path``: of the key in the source. ``kind``: one of the words above."""

    kind: str
    path: str
    words: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the operator says.

    ``to``: BRIDGE, ROUTED, or "" for what is nearest. ``network``: which of several. ``subnets``: ranges that the
    source does not have in itself. ``environment``: flannel's subnet.env, "" if there is none.
    """

    to: str = ""
    network: str = ""
    subnets: tuple[str, ...] = ()
    environment: str = ""


@dataclass(frozen=True, slots=True)
class Conversion:
    """``source``: what it was taken for. ``leases``: what becomes of the addresses of running containers.

    ``commands``: of the move, with places for ``str.format``: ``file`` and ``new`` are the source and the result,
    ``folder`` is the runtime's, ``name`` the network's, ``bridge`` that of the source.
    """

    source: str
    document: Mapping[str, Any]
    remarks: tuple[Remark, ...]
    leases: str
    commands: tuple[str, ...]
    bridge: str = ""

    @property
    def is_in_place(self) -> bool:
        """Whether the result replaces the source."""
        return any("{file}" in command for command in self.commands)


@dataclass(slots=True)
class Report:
    """Collects remarks."""

    remarks: list[Remark] = field(default_factory=list)

    def changed(self, path: str, words: str) -> None:
        self.remarks.append(Remark(CHANGED, path, words))

    def lost(self, path: str, words: str) -> None:
        self.remarks.append(Remark(LOST, path, words))

    def look(self, path: str, words: str) -> None:
        self.remarks.append(Remark(LOOK, path, words))


def refused(words: str, remedy: str) -> CniError:
    return CniError(INVALID_CONFIG, words, remedy)


def mapping(value: object, path: str) -> Mapping[str, Any]:
    """An object of the source; absent and null are empty.

    :raises CniError: INVALID_CONFIG for anything else.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise refused(f"{path}: {shown(value)} is not an object", "write {...}, or remove it")
    return value


def items(value: object, path: str) -> list[Any]:
    """A list of the source; absent and null are empty.

    :raises CniError: INVALID_CONFIG for anything else.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise refused(f"{path}: {shown(value)} is not a list", "write [...], or remove it")
    return value


def text(value: object, path: str) -> str:
    """A string of the source; absent and null are empty.

    :raises CniError: INVALID_CONFIG for anything else.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise refused(f"{path}: {shown(value)} is not a string", "write it in quotes, or remove it")
    return value


def renamed(raw: Mapping[str, Any], known: frozenset[str], path: str, report: Report) -> dict[str, Any]:
    """An object with the names that we know. Go's JSON, which the reference plugins use, ignores letter case."""
    by_case = {name.lower(): name for name in known}
    found: dict[str, Any] = {}
    for key, value in raw.items():
        name = key if key in known else by_case.get(key.lower(), key)
        if name != key:
            report.changed(f"{path}{key}", f"written {name}: names are exact here")
        if value is not None:
            found[name] = value
    return found
