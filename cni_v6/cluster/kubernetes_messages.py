"""Objects, requests and answers of the Kubernetes API: an object of a cluster's store is a ``Lease``.

``coordination.k8s.io/v1`` is in every cluster, so nothing must be installed. The name of the Lease says what it is, two
annotations have the object. Its holder is the UID of the node, and the node owns it: with the Node object goes what it
had (Kubernetes, "Garbage Collection").
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address
from typing import Any

from cni_v6.cluster.mirror import Event, Forgotten, Kept
from cni_v6.cluster.records import BLOCKS, NODES, to_text
from cni_v6.cluster.store import Registered
from cni_v6.errors import DECODING_FAILURE, IO_FAILURE, CniError
from cni_v6.protocol.json_reader import Fields, canonical_prefix, decode, shown

WHAT = "the answer of the Kubernetes API"
LABEL = {"app.kubernetes.io/managed-by": "cni-v6"}
REPORT_LABEL = {"app.kubernetes.io/managed-by": "cni-v6-reports"}  # watched by nobody
KEY, VALUE = "cni-v6/key", "cni-v6/value"  # annotations
BLOCK_NAME, NODE_NAME, OTHER_NAME = "cni-v6-block-", "cni-v6-node-", "cni-v6-object-"
# Names of objects (Kubernetes, "Object Names and IDs"): as of a host in DNS, 253 characters at most.
_NAME = re.compile("[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_NAME_LENGTH = 253
GONE = 410

Read = Callable[[Fields], "tuple[str, str] | None"]  # an object of the API -> key and text; None for none of ours


def lease_name(key: str) -> str:
    """The name of an object's Lease: all nodes name it alike."""
    if key.startswith(BLOCKS):
        prefix = canonical_prefix(key.removeprefix(BLOCKS), host_bits=False)
        if prefix is not None and BLOCKS + prefix == key:
            ip, _, length = prefix.partition("/")
            words = IPv6Address(ip).exploded if ":" in ip else ip
            return f"{BLOCK_NAME}{words.replace(':', '-').replace('.', '-')}-{length}"
    name = NODE_NAME + key.removeprefix(NODES)
    if key.startswith(NODES) and _NAME.fullmatch(name) and len(name) <= _NAME_LENGTH:
        return name
    return OTHER_NAME + hashlib.sha256(key.encode()).hexdigest()


def read_lease(fields: Fields) -> tuple[str, str] | None:
    """Its key and text. A Lease with the name of a block counts, whatever is in it: nobody can create another one."""
    metadata = _metadata(fields)
    annotations = metadata.child("annotations") or Fields({})
    name, given = metadata.required("name"), annotations.raw.get(KEY)
    key = given if isinstance(given, str) and lease_name(given) == name else _key_of(name)
    value = annotations.raw.get(VALUE)
    return None if key is None else (key, value if isinstance(value, str) else "")


def _key_of(name: str) -> str | None:
    """The key of an object by its Lease's name alone."""
    if name.startswith(NODE_NAME):
        return NODES + name.removeprefix(NODE_NAME)
    if not name.startswith(BLOCK_NAME):
        return None
    *words, length = name.removeprefix(BLOCK_NAME).split("-")
    prefix = canonical_prefix(f"{(':' if len(words) == 8 else '.').join(words)}/{length}", host_bits=False)
    return BLOCKS + prefix if prefix and lease_name(BLOCKS + prefix) == name else None


def create_document(key: str, text: str, node: tuple[str, str] | None) -> dict[str, Any]:
    """A new Lease.

    :param node: name and UID of this node: it owns what it writes of itself.
    """
    metadata = {"name": lease_name(key), "labels": LABEL, "annotations": {KEY: key, VALUE: text}, **_owner(text, node)}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": _spec(text)}


def report_key(name: str) -> str:
    """The key of a node's report: that of no object of a cluster."""
    return f"reports/{name}"


def report_document(name: str, text: str, node: tuple[str, str] | None, *, new: bool) -> dict[str, Any]:
    """A report as a new Lease, or a merge patch of it, whatever it was."""
    key = report_key(name)
    made = create_document(key, text, node)
    if new:
        return {**made, "metadata": {**made["metadata"], "labels": REPORT_LABEL}}
    return {"metadata": {"annotations": {VALUE: text}, **_owner(text, node)}, "spec": made["spec"]}


def read_report(fields: Fields) -> tuple[str, str] | None:
    """The name of a node and its report."""
    found = read_lease(fields)
    return (found[0].removeprefix(report_key("")), found[1]) if found and found[0].startswith(report_key("")) else None


def patch_document(text: str, revision: int, node: tuple[str, str] | None) -> dict[str, Any]:
    """A merge patch (RFC 7386) of a Lease. The API refuses it if the Lease has changed since the revision."""
    metadata = {"resourceVersion": str(revision), "annotations": {VALUE: text}, **_owner(text, node)}
    return {"metadata": metadata, "spec": _spec(text)}


def delete_document(revision: int) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"resourceVersion": str(revision)}}


def _spec(text: str) -> dict[str, Any]:
    holder = _id(text)
    return {"holderIdentity": holder} if holder else {}


def _owner(text: str, node: tuple[str, str] | None) -> dict[str, Any]:
    if node is None or _id(text) != node[1]:
        return {}
    return {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node[0], "uid": node[1]}]}


def _id(text: str) -> str:
    """The id of the node that an object is of; "" for none."""
    try:
        return Fields(decode(text.encode(), "the object")).text("id")
    except CniError:
        return ""


def read_node(fields: Fields) -> tuple[str, str]:
    """Of a Node: its name; its UID and its blocks as a text. What else it has changes all the time."""
    metadata = _metadata(fields)
    given = (fields.child("spec") or Fields({})).texts("podCIDRs")
    blocks = [prefix for prefix in (canonical_prefix(text, host_bits=False) for text in given) if prefix]
    return metadata.required("name"), to_text({"id": metadata.required("uid"), "blocks": blocks})


def registered(text: str) -> Registered:
    """What ``read_node`` made."""
    found = json.loads(text)
    return Registered(found["id"], tuple(found["blocks"]))


def read_list(data: bytes, read: Read) -> tuple[dict[str, Kept], int]:
    """All objects of a kind, and the revision that they are of.

    :raises CniError: DECODING_FAILURE.
    """
    fields = Fields(decode(data, WHAT))
    found = {}
    for item in fields.children("items"):
        read_one = read(item)
        if read_one:
            found[read_one[0]] = Kept(read_one[1], revision(item))
    return found, revision(fields)


def read_object(data: bytes) -> int:
    """The revision of an object that was written.

    :raises CniError: DECODING_FAILURE.
    """
    return revision(Fields(decode(data, WHAT)))


def read_event(line: bytes, read: Read) -> tuple[list[Event], int]:
    """What a line of a watch tells of, and up to which revision that is all.

    :raises Forgotten:
    :raises CniError: DECODING_FAILURE; IO_FAILURE if the API ends the watch.
    """
    fields = Fields(decode(line, WHAT))
    kind, item = fields.required("type"), fields.child("object")
    if item is None:
        raise fields.wrong("object", "an object")
    if kind == "ERROR":
        if item.raw.get("code") == GONE:
            raise Forgotten
        raise CniError(IO_FAILURE, "the Kubernetes API has ended the watch", shown(item.raw.get("message")))
    last = revision(item)
    found = None if kind == "BOOKMARK" else read(item)
    if found is None:
        return [], last
    return [Event(found[0], None if kind == "DELETED" else found[1], last)], last


def revision(fields: Fields) -> int:
    """``metadata.resourceVersion``: a number, and the larger one is the later one (KEP 5504).

    :raises CniError: DECODING_FAILURE.
    """
    metadata = _metadata(fields)
    text = metadata.text("resourceVersion")
    if not re.fullmatch("[0-9]{1,20}", text):
        raise metadata.wrong("resourceVersion", "a number in quotes")
    return int(text)


def refusal(status: int, data: bytes) -> str:
    """What the API says in an answer that is no success: it answers with a ``Status``."""
    try:
        words = Fields(decode(data, WHAT)).text("message")
    except CniError:
        words = ""
    return f"status {status}" + (f": {words[:300]!r}" if words else "")


def _metadata(fields: Fields) -> Fields:
    found = fields.child("metadata")
    if found is None:
        raise CniError(DECODING_FAILURE, f"{WHAT} has an object without metadata")
    return found


def query(values: Mapping[str, str]) -> dict[str, str]:
    """The query of a list and of a watch, by labels."""
    return {"labelSelector": ",".join(f"{key}={value}" for key, value in values.items())}
