"""The list of valid attachments that a runtime sends with GC (SPEC.md, section 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.protocol.json_reader import shown

# The second name is what SPEC.md had until containernetworking/cni#1101; libcni sends both.
KEYS = "cni.dev/valid-attachments", "cni.dev/attachments"


def valid_attachments(config: Mapping[str, Any]) -> frozenset[str] | None:
    """GC's attachments that are still in use, ``containerID:ifname``; None where the runtime names none at all.

    No interface's name has a colon (``identifiers``), so that the last one parts the two.

    None is no empty set: ``cnitool gc`` sends no list, and freeing everything then would cut off running containers.
    A null is one, though: that is how libcni writes an empty list that a runtime made as a nil slice.

    :param config: as it was sent, or as of ``with_set``.
    :raises CniError: INVALID_CONFIG naming the key.
    """
    for key in KEYS:
        if key in config:
            listed = [] if config[key] is None else config[key]
            if isinstance(listed, frozenset):
                return listed
            if not isinstance(listed, list):
                raise CniError(INVALID_CONFIG, f"{key} is {shown(listed)}, not a list")
            return _all(listed) or frozenset(_attachment(item, f"{key}[{at}]") for at, item in enumerate(listed))
    return None


def with_set(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration with the set of ``valid_attachments`` in place of the list, of which it takes a fraction of the
    memory; as it was sent if there is no list, or one that is not as it should be.
    """
    try:
        valid = valid_attachments(config)
    except CniError:
        return config
    others = {key: value for key, value in config.items() if key not in KEYS}
    return config if valid is None else {**others, KEYS[0]: valid}


def _all(listed: Sequence[Any]) -> frozenset[str] | None:
    """The attachments of a list in which all is as it should be; None for another one. It may have 100,000."""
    try:
        found = list(map(":".join, map(itemgetter("containerID", "ifname"), listed)))
    except (KeyError, TypeError):
        return None
    lines = "\n".join(("", *found, ""))
    return None if "\n:" in lines or ":\n" in lines else frozenset(found)  # perhaps an empty word


def _attachment(item: object, where: str) -> str:
    words = (item.get("containerID"), item.get("ifname")) if isinstance(item, Mapping) else ()
    match words:
        case (str(container_id), str(ifname)) if container_id and ifname:
            return f"{container_id}:{ifname}"
    raise CniError(INVALID_CONFIG, f"{where} is not an object with containerID and ifname", "both are strings")
