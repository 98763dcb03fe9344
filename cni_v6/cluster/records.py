"""What a cluster's store holds: objects of JSON, named by key. Read with distrust: other nodes wrote them.

``pools``: the prefix length of the blocks of each pool, which all nodes must agree on. ``nodes/NAME``: a node and how
it is reached. ``blocks/PREFIX``: the node that has this block; creating the object is the claim.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

from cni_v6.errors import DECODING_FAILURE, CniError
from cni_v6.protocol.json_reader import Fields, canonical_prefix, decode, shown

Objects = Mapping[str, str]
POOLS, NODES, BLOCKS = "pools", "nodes/", "blocks/"
Value = TypeVar("Value")
CACHED = 1 << 14  # objects of 5,000 nodes
KEY_BYTES = 32  # of a key of WireGuard
MOST_ORDER = 1 << 16  # of a claim; another one is none, else the next claim could have one that nobody reads


@dataclass(frozen=True, slots=True)
class Change:
    """One object as it must be, and as it shall be; None for absent. A store makes all changes of a call, or none."""

    key: str
    was: str | None
    now: str | None


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node. ``id``: random, made once for its state folder; another node of the same name has another one.

    ``addresses``: next hops to it on the link of all nodes, one a family at most. ``removed``: by an operator.
    ``boot``: that of the machine that wrote this; "" if it did not say. ``public_key``: of its WireGuard, in base64.
    """

    name: str
    id: str
    addresses: tuple[str, ...] = ()
    carrier: str = ""
    removed: bool = False
    boot: str = ""
    public_key: str = ""

    @property
    def key(self) -> str:
        return NODES + self.name

    def address(self, family: int) -> str | None:
        return next((address for address in self.addresses if (":" in address) == (family == 6)), None)


@dataclass(frozen=True, slots=True)
class Claim:
    """A block, and the node that has it. ``order``: of the node's blocks of a pool, that it claimed them in, from 0."""

    prefix: str
    node: str
    id: str
    order: int = 0

    @property
    def key(self) -> str:
        return BLOCKS + self.prefix


@dataclass(frozen=True, slots=True)
class Cluster:
    """All objects of a store, read. ``taken``: the prefixes of all claims, readable or not.

    ``complaints``: what could not be read, in words. ``of_owner``: the claims by the name and the id of their node.
    ``shared_keys``: public keys that more than one node has: nobody knows whose they are.
    """

    pools: Mapping[str, int] = field(default_factory=dict)
    nodes: Mapping[str, NodeRecord] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    taken: tuple[str, ...] = ()
    complaints: tuple[str, ...] = ()
    of_owner: Mapping[tuple[str, str], tuple[Claim, ...]] = field(init=False, repr=False, compare=False)
    shared_keys: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        of_owner: dict[tuple[str, str], list[Claim]] = {}
        for claim in self.claims:
            of_owner.setdefault((claim.node, claim.id), []).append(claim)
        object.__setattr__(self, "of_owner", {owner: tuple(claims) for owner, claims in of_owner.items()})
        keys = Counter(node.public_key for node in self.nodes.values() if node.public_key and not node.removed)
        object.__setattr__(self, "shared_keys", frozenset(key for key, count in keys.items() if count > 1))

    def of_node(self, node: NodeRecord) -> tuple[Claim, ...]:
        """The claims of a node, not those of another one with its name."""
        return self.of_owner.get((node.name, node.id), ())


def encode_pools(pools: Mapping[str, int]) -> str:
    return to_text(dict(pools))


def encode_node(node: NodeRecord) -> str:
    made: dict[str, Any] = {"id": node.id, "addresses": list(node.addresses), "carrier": node.carrier}
    if node.boot:
        made["boot"] = node.boot
    if node.public_key:
        made["publicKey"] = node.public_key
    return to_text({**made, "removed": True} if node.removed else made)


def mark_removed(text: str) -> str:
    """The object of a node that an operator has removed. What else is in it stays, of another version too."""
    return to_text({**decode(text.encode(), "the node's object"), "removed": True})


def encode_claim(claim: Claim) -> str:
    return to_text({"node": claim.node, "id": claim.id, **({"order": claim.order} if claim.order else {})})


def to_text(value: object) -> str:
    """A value as a store keeps it: the same value is the same text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def read(objects: Objects) -> Cluster:
    """
    :raises CniError: DECODING_FAILURE if ``pools`` cannot be read: then nobody knows what a block is.
    """
    complaints: list[str] = []
    pools = _read_pools(objects[POOLS]) if POOLS in objects else {}
    nodes = _all(objects, NODES, _read_node, complaints)
    claims = _all(objects, BLOCKS, _read_claim, complaints)
    named = (_prefix(key) for key in sorted(objects) if _is(key, BLOCKS))
    return Cluster(
        pools, {node.name: node for node in nodes}, tuple(claims), tuple(prefix for prefix in named if prefix),
        tuple(complaints),
    )


class Reader:
    """Reads the objects of a store again and again: for the same objects the same ``Cluster``, at once."""

    def __init__(self) -> None:
        self._objects: Objects = {}
        self._cluster = Cluster()

    def read(self, objects: Objects) -> Cluster:
        """
        :raises CniError: as ``read``.
        """
        if objects != self._objects:
            self._cluster, self._objects = read(objects), dict(objects)
        return self._cluster


def _is(key: str, kind: str) -> bool:
    return key.startswith(kind)


def _all(
    objects: Objects, kind: str, read_one: Callable[[str, Fields], Value], complaints: list[str]
) -> Sequence[Value]:
    found = []
    for key in sorted(objects):
        if _is(key, kind):
            read_object = _cached(read_one, kind, key, objects[key])
            if isinstance(read_object, str):
                complaints.append(read_object)
            else:
                found.append(read_object)
    return found


@lru_cache(CACHED)
def _cached(read_one: Callable[[str, Fields], Value], kind: str, key: str, text: str) -> Value | str:
    """The object, or why it cannot be read. An agent reads all of them at each step, and few have changed."""
    try:
        return read_one(key.removeprefix(kind), _fields(key, text))
    except CniError as error:
        return f"object {shown(key)} of the cluster's store is left out: {error}"


@lru_cache(CACHED)
def _prefix(key: str) -> str | None:
    """The prefix that a block's key names."""
    return canonical_prefix(key.removeprefix(BLOCKS), host_bits=False)


def _fields(key: str, text: str) -> Fields:
    return Fields(decode(text.encode(), f"object {shown(key)}"), "")


def _read_pools(text: str) -> dict[str, int]:
    fields = _fields(POOLS, text)
    found = {}
    for cidr in fields.raw:
        length = fields.number(cidr, most=128)
        if length is None or canonical_prefix(cidr, host_bits=False) != cidr:
            raise CniError(DECODING_FAILURE, f"object pools of the cluster's store has no pool {shown(cidr)}")
        found[cidr] = length
    return found


def _read_node(name: str, fields: Fields) -> NodeRecord:
    addresses = tuple(_address(fields, text) for text in fields.texts("addresses"))
    if len({":" in address for address in addresses}) != len(addresses):
        raise fields.wrong("addresses", "one address a family at most")
    removed = fields.raw.get("removed") is True
    return NodeRecord(name, fields.required("id"), addresses, fields.text("carrier"), removed, fields.text("boot"),
                      _public_key(fields))


def _public_key(fields: Fields) -> str:
    """In the one spelling that base64 has for it, so that nobody has the key of another node in another one."""
    found = fields.text("publicKey")
    try:
        whole = b64decode(found, validate=True)
    except ValueError:
        whole = b""
    if found and (len(whole) != KEY_BYTES or b64encode(whole).decode() != found):
        raise fields.wrong("publicKey", f"{KEY_BYTES} bytes in base64")
    return found


def _address(fields: Fields, text: str) -> str:
    found = Fields({"addresses": text}).ip("addresses")
    if found is None:
        raise fields.wrong("addresses", "a list of addresses")
    return found


def _read_claim(prefix: str, fields: Fields) -> Claim:
    if canonical_prefix(prefix, host_bits=False) != prefix:
        raise CniError(DECODING_FAILURE, f"its key has no prefix in canonical form: {shown(prefix)}")
    order = fields.number("order") or 0
    return Claim(prefix, fields.required("node"), fields.required("id"), order if order <= MOST_ORDER else 0)
