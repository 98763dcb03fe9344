"""The configuration list for the container runtime: the operator's template with the node's blocks and MTU."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.protocol.json_reader import decode, shown

Document = Mapping[str, Any]
TRANSLATES = ("ipMasq", "masquerade")  # keys that make a network translate its containers' sources


def parse_template(data: bytes, path: str) -> Document:
    """
    :param path: of the file, for messages.
    :raises CniError: DECODING_FAILURE or INVALID_CONFIG.
    """
    document = decode(data, f"template {path}")
    plugins = document.get("plugins")
    if not isinstance(plugins, list) or not plugins or not isinstance(plugins[0], dict):
        raise _wrong(path, "plugins is no list of plugins", "write a configuration list, whose first plugin is cni-v6")
    ipam, mtu, kept = (plugins[0].get(key) for key in ("ipam", "mtu", "nonMasquerade"))
    if kept is not None and not isinstance(kept, list):
        raise _wrong(path, f"plugins[0].nonMasquerade is {shown(kept)}, not a list of prefixes", "write [...]")
    if not isinstance(ipam, dict):
        raise _wrong(path, f"plugins[0].ipam is {shown(ipam)}, not an object", 'write {"type": "cni-v6-ipam"}')
    for key in ("ranges", "subnet"):
        if key in ipam:
            raise _wrong(path, f"plugins[0].ipam.{key} is what the agent writes", "remove it")
    if mtu is not None and mtu != "auto" and (isinstance(mtu, bool) or not isinstance(mtu, int) or mtu < 0):
        raise _wrong(path, f"plugins[0].mtu is {shown(mtu)}, not a number of bytes", "remove it, or write the most")
    return document


def render(template: Document, blocks: Sequence[str], mtu: int, others: Sequence[str] = ()) -> str:
    """The text of the list.

    :param blocks: one a family, in the order of the pools: a set of ranges each.
    :param mtu: what the carrier has room for; a number in the template can only lower it.
    :param others: pools of other clusters: a network that translates sources leaves packets for them as they are.
    """
    first, *later = template["plugins"]
    least = first.get("mtu")
    limit = min(mtu, least) if isinstance(least, int) and least else mtu
    ranges = [[{"subnet": block}] for block in blocks]
    plugin = {**first, "mtu": limit, "ipam": {**first["ipam"], "ranges": ranges}}
    if others and any(first.get(key) for key in TRANSLATES):
        kept = first.get("nonMasquerade") or []
        plugin["nonMasquerade"] = [*kept, *(prefix for prefix in others if prefix not in kept)]
    return json.dumps({**template, "plugins": [plugin, *later]}, indent=2, ensure_ascii=False) + "\n"


def _wrong(path: str, words: str, remedy: str) -> CniError:
    return CniError(INVALID_CONFIG, f"template {path}: {words}", remedy)
