"""Whatever a test has ``cni-v6ctl`` print with ``--json`` is checked against the command's JSON Schema.

The schemas are closed here: a key that they do not name is a mistake, and so is a key that is missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from cni_v6.ctl import schema
from cni_v6.ctl.output import Output

PROGRAM = "cni-v6ctl"


def closed(of: Any) -> Any:
    """A schema whose objects have no other keys than those that it names."""
    if isinstance(of, list):
        return [closed(part) for part in of]
    if not isinstance(of, dict):
        return of
    made = {key: closed(part) for key, part in of.items()}
    return {**made, "additionalProperties": False} if of.get("properties") else made


@contextmanager
def checked() -> Iterator[None]:
    """Check what commands in this process print."""
    plain = Output.encode

    def encode(output: Output, document: object) -> str:
        text = plain(output, document)
        _complain([text], output)
        return text

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Output, "encode", encode)
        yield


def check(argv: Sequence[str], printed: str) -> None:
    """Check what a command of another process has printed, if it is cni-v6ctl's; nothing after an error."""
    words = _words(argv)
    if not words or not printed or "--json" not in words:
        return
    output = output_of(words)
    _complain(printed.splitlines() if output.lines else [printed], output)


def output_of(words: Sequence[str]) -> Output:
    """What a command line has printed: with an option that makes it another shape, that one."""
    known = {tuple(name.split()): output for name, output in schema.outputs().items()}
    fitting = [name for name in known if set(name[1:]) <= set(words[1:]) and name[0] == words[0]]
    assert fitting, f"{PROGRAM} {' '.join(words)} has no schema"
    return known[max(fitting, key=len)]


def _words(argv: Sequence[str]) -> Sequence[str]:
    place = next((number for number, word in enumerate(argv) if Path(word).name == PROGRAM), None)
    return () if place is None else argv[place + 1:]


def _complain(texts: Sequence[str], output: Output) -> None:
    validator = _validator(json.dumps(closed(output.schema)))
    wrong = [f"{error.json_path}: {error.message}" for text in texts for error in validator.iter_errors(
        json.loads(text))]
    assert not wrong, "\n".join(wrong)


@lru_cache(maxsize=None)
def _validator(text: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(text))


def unwrapped(printed: str) -> str:
    """What a command prints for a terminal, each statement in one line again: the others begin with four blanks."""
    return re.sub(r"\n {4,}(?=\S)", " ", printed)
