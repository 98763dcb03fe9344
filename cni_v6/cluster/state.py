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
    """``objects``: of the cluster's store, as they were at last; ``others``: of those of other clusters, by name.

    ``replaced``: the boot whose record the node replaced with its own at last. ``rival``: the boot of the node of which
    this is a copy, once that is known.
    """

    member: Member
    objects: Objects = field(default_factory=dict)
    others: Mapping[str, Objects] = field(default_factory=dict)
    replaced: str = ""
    rival: str = ""


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
        "replaced": state.replaced, "rival": state.rival,
        "clusters": {name: dict(objects) for name, objects in state.others.items()},
    }
    return (to_text(document) + "\n").encode()


def decode_state(content: bytes, path: str) -> State:
    """
    :raises CniError: DECODING_FAILURE.
    """
    fields = Fields(decode(content, path))
    if fields.raw.get("version") != VERSION:
        raise fields.wrong("version", str(VERSION))
    others = fields.child("clusters")
    found = {name: _texts(others.child(name)) for name in others.raw} if others else {}
    return State(Member(fields.required("node"), fields.required("id")), _texts(fields.child("objects")), found,
                 fields.text("replaced"), fields.text("rival"))


def _texts(child: Fields | None) -> Objects:
    return {key: child.text(key) for key in child.raw} if child else {}
