"""What a command prints with ``--json``: its JSON Schema, and whether it is one document or one for each line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]
NO_KEYS: Schema = {}


@dataclass(frozen=True, slots=True)
class Output:
    """``schema``: of the document; with ``lines``, of each line's."""

    schema: Schema
    lines: bool = False

    def show(self, document: object, *, flush: bool = False) -> None:
        """Print a document."""
        print(self.encode(document), flush=flush)

    def encode(self, document: object) -> str:
        """A document as text."""
        return json.dumps(document, indent=None if self.lines else 2)


# Kinds of values, each with its meaning


def text(meaning: str) -> Schema:
    return {"type": "string", "description": meaning}


def number(meaning: str) -> Schema:
    return {"type": "number", "description": meaning}


def whole(meaning: str) -> Schema:
    return {"type": "integer", "minimum": 0, "description": meaning}


def flag(meaning: str) -> Schema:
    return {"type": "boolean", "description": meaning}


def choice(meaning: str, *values: object) -> Schema:
    return {"enum": list(values), "description": meaning}


def anything(meaning: str) -> Schema:
    return {"description": meaning}


def texts(meaning: str) -> Schema:
    return {"type": "array", "items": {"type": "string"}, "description": meaning}


def listed(of: Schema, meaning: str) -> Schema:
    return {"type": "array", "items": of, "description": meaning}


def mapped(to: Schema, meaning: str) -> Schema:
    """An object whose keys are names of something."""
    return {"type": "object", "additionalProperties": to, "description": meaning}


def or_null(of: Schema) -> Schema:
    """A value that may be null, which its meaning explains."""
    return {**of, "type": [of["type"], "null"]}


def object_of(keys: Mapping[str, Schema], optional: Mapping[str, Schema] = NO_KEYS, meaning: str = "") -> Schema:
    """An object that has these keys. A later version may add keys."""
    words = {"description": meaning} if meaning else {}
    return {"type": "object", **words, "required": list(keys), "properties": {**keys, **optional}}


# What several commands say

OWNER: Mapping[str, Schema] = {
    "network": text("the name in its configuration"),
    "containerID": text("as the runtime calls it"),
    "ifname": text("the interface in the container; empty if the lease does not say it"),
}
HELD: Mapping[str, Schema] = {
    "addresses": texts("without a prefix length"), "prefixes": texts("delegated to the container"),
}
