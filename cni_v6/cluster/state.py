"""What the agent keeps on disk: who it is and what it knew of the cluster at last, for a start without the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from cni_v6.cluster.membership import Member
from cni_v6.cluster.records import Objects, to_text
from cni_v6.protocol.json_reader import Fields, decode

VERSION = 1


@dataclass(frozen=True, slots=True)
class State:
    """``objects``: of the cluster's store, as they were seen at last."""

    member: Member
    objects: Objects = field(default_factory=dict)


class Disk(Protocol):
    """The agent's files: its state, the configuration list, and a file that says that the node is ready."""

    def load(self) -> State | None: ...

    def save(self, state: State) -> None: ...

    def read_conflist(self) -> str | None: ...

    def write_conflist(self, text: str | None) -> None:
        """Replace it, or remove it for None."""
        ...

    def set_ready(self, ready: bool) -> None: ...


def encode_state(state: State) -> bytes:
    document: dict[str, Any] = {
        "version": VERSION, "node": state.member.name, "id": state.member.id, "objects": dict(state.objects),
    }
    return (to_text(document) + "\n").encode()


def decode_state(content: bytes, path: str) -> State:
    """
    :raises CniError: DECODING_FAILURE.
    """
    fields = Fields(decode(content, path))
    if fields.raw.get("version") != VERSION:
        raise fields.wrong("version", str(VERSION))
    child = fields.child("objects")
    objects: Mapping[str, str] = {key: child.text(key) for key in child.raw} if child else {}
    return State(Member(fields.required("node"), fields.required("id")), objects)
