"""The table of keys, rendered: as a JSON Schema for editors and pipelines, as tables of the documentation and lines of
the manual.

The schema knows each value's kind, bounds and form. What depends on several values, and unknown keys, only the parser
knows: whatever it accepts is valid by the schema, but not the other way round.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from cni_v6.config.formats import FORMS
from cni_v6.config.keys import Flag, Flags, Items, Key, Kind, Level, Named, Nested, Number, Text
from cni_v6.config.keys.bridge import BRIDGE, MAIN_OF_IPAM
from cni_v6.config.keys.ipvlan import IPVLAN
from cni_v6.config.keys.macvlan import MACVLAN
from cni_v6.config.keys.routed import ROUTED
from cni_v6.config.keys.slaac import SLAAC
from cni_v6.config.keys.vlan import VLAN

DRAFT = "https://json-schema.org/draft/2020-12/schema"

_LIST = {"required": ["plugins"], "not": {"required": ["type"]}}
_MAIN = (BRIDGE, ROUTED, MACVLAN, IPVLAN, VLAN)  # the keys of each main plugin
_OUR_IPAM = {"required": ["ipam"], "properties": {"ipam": {
    "type": "object", "required": ["type"], "properties": {"type": {"const": "cni-v6-ipam"}},
}}}
_FOREIGN_IPAM = {"required": ["type"], "properties": {"type": {"type": "string", "pattern": "."}}, "not": {
    "properties": {"type": {"enum": ["cni-v6-ipam", "host-local", "cni-v6-slaac"]}},
}}
_SLAAC_IPAM = {"type": "object", "required": ["type"], "properties": {"type": {"const": "cni-v6-slaac"}}}
_NO_TYPE = {"properties": {"type": {"enum": [None, ""]}}}


def schema() -> dict[str, Any]:
    """JSON Schema of a network configuration list, or of one plugin's configuration, with our plugins in it."""
    defined = definitions(*_MAIN, SLAAC, MAIN_OF_IPAM)
    chosen: dict[str, Any] = {"if": _OUR_IPAM, "then": {"$ref": "#/$defs/mainOfIpam"}}
    for level in reversed(_MAIN):
        kind = next(str(key.example) for key in level.keys if key.name == "type")
        named = {"required": ["type"], "properties": {"type": {"const": kind}}}
        chosen = {"if": named, "then": {"$ref": f"#/$defs/{level.name}"}, "else": chosen}
    defined["plugin"] = {"type": "object", **chosen}
    defined["list"] = {
        "type": "object",
        "required": ["cniVersion", "name", "plugins"],
        "properties": {
            "cniVersion": {"type": "string"},
            "name": {"type": "string", "pattern": "^[0-9A-Za-z][0-9A-Za-z_.-]*$"},
            "plugins": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/plugin"}},
        },
    }
    return {
        "$schema": DRAFT,
        "title": "CNI network configuration with cni-v6",
        "if": _LIST, "then": {"$ref": "#/$defs/list"}, "else": {"$ref": "#/$defs/plugin"},
        "$defs": defined,
    }


def definitions(*tops: Level) -> dict[str, Any]:
    """Name -> JSON Schema of every level that the given ones lead to."""
    return {level.name: _level(level) for level in levels(*tops)}


def levels(*tops: Level) -> Iterator[Level]:
    """Every level that the given ones lead to, these first, none twice."""
    seen: list[Level] = []
    waiting = list(tops)
    while waiting:
        level = waiting.pop(0)
        if level not in seen:
            seen.append(level)
            waiting += (nested for key in level.keys for nested in _nested(key.kind))
    yield from seen


def table(level: Level) -> str:
    """The keys of one level as a Markdown table; the last column only where there is a reference plugin."""
    titles = ("key", "type", "default", "example", "meaning", "reference plugin")
    cells = (
        (f"`{key.name}`", _words(key.kind), _default(key), _code(key.example), key.meaning, key.reference)
        for key in level.keys
    )
    columns = len(titles) if any(key.reference for key in level.keys) else len(titles) - 1
    head, *rows = (f"| {' | '.join(row[:columns])} |" for row in (titles, *cells))
    return "\n".join((head, "|---" * columns + "|", *rows)) + "\n"


def entry(key: Key) -> str:
    """A key's type and default in words, for a list of keys."""
    default = _default(key)
    return f"{_words(key.kind)}, {default if key.required else f'default {default}'}" if default else _words(key.kind)


def _default(key: Key) -> str:
    return "required" if key.required else _code(key.default)


def _code(value: object) -> str:
    return "" if value is None else f"`{json.dumps(value)}`"


def _nested(kind: Kind) -> Iterator[Level]:
    match kind:
        case Items():
            yield from _nested(kind.of)
        case Nested():
            yield kind.level


def _words(kind: Kind) -> str:
    match kind:
        case Flag():
            return "boolean"
        case Number():
            return ", or ".join((f"integer, {kind.low} to {kind.high}", *(f"`{word}`" for word, _ in kind.words)))
        case Text():
            return "string"
        case Items():
            return f"list of {_words(kind.of)}"
        case Nested():
            return "object"
        case Flags():
            return "object of booleans"
        case Named():
            return f"object of {_words(kind.of)}s, or lists of them"
    return "any"


def _level(level: Level) -> dict[str, Any]:
    properties = {key.name: _key(key) for key in level.keys}
    required = [key.name for key in level.keys if key.required and not level.fold]
    made: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        made["required"] = required
    if level.one_of:
        made["anyOf"] = [{"required": [name]} for name in level.one_of]
    return made


def _key(key: Key) -> dict[str, Any]:
    made = _kind(key.kind)
    if key.refusal:
        made = _nothing(key.kind)
    elif not key.required and made:
        made = {"anyOf": [{"type": "null"}, made]}
    made["description"] = key.meaning
    if key.default is not None:
        made["default"] = key.default
    return made


def _nothing(kind: Kind) -> dict[str, Any]:
    """What a refused key may still say: that nothing is asked for."""
    match kind:
        case Nested():
            return {"type": ["object", "null"], "properties": {key.name: _nothing(key.kind) for key in kind.level.keys}}
        case Number():
            return {"enum": [None, 0]}
    return {"enum": [None, False if isinstance(kind, Flag) else [] if isinstance(kind, Items) else ""]}


def _kind(kind: Kind) -> dict[str, Any]:
    match kind:
        case Flag():
            return {"type": "boolean"}
        case Number():
            number = {"type": "integer", "minimum": kind.low, "maximum": kind.high}
            return {"anyOf": [number, {"enum": [word for word, _ in kind.words]}]} if kind.words else number
        case Text():
            return {"type": "string", **({} if kind.blank else {"minLength": 1}), **FORMS[kind.form].schema}
        case Items():
            return {"type": "array", "items": _kind(kind.of)}
        case Flags():
            return {"type": "object", "additionalProperties": {"type": ["boolean", "null"]}}
        case Named():
            schema = _kind(kind.of)
            return {"type": "object", "additionalProperties": {"anyOf": [schema, {"type": "array", "items": schema}]}}
        case Nested(later=True):
            # Keys of ours only where the allocation is ours.
            reference = {"$ref": f"#/$defs/{kind.level.name}"}
            name = {"type": ["string", "null"], **FORMS["plugin"].schema}
            foreign = {"type": "object", "properties": {"type": name}}
            ours = {"if": _SLAAC_IPAM, "then": {"$ref": "#/$defs/slaac"}, "else": reference}
            return {"if": {"type": "object", "anyOf": [_FOREIGN_IPAM, _NO_TYPE]}, "then": foreign, "else": ours}
        case Nested(level=level):
            return {"$ref": f"#/$defs/{level.name}"}
    return {}
