"""What ``cni-v6ctl`` prints with ``--json``: a schema for each command, and no command without one.

That the output is as the schema says is checked wherever a test has a command print it: ``tests/outputs.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from cni_v6.ctl import command_tree, main, schema
from tests import outputs

SCHEMA_FILE = Path(__file__).resolve().parents[2] / "conf" / "cni-v6ctl.schema.json"
# They print no data: a schema, a script, a configuration or words of a process in the foreground.
WITHOUT = {"schema", "engine", "agent", "completion"}
COMMANDS = {" ".join(found.words): found for found in command_tree.tree().all() if found.words and not found.commands}
Capture = pytest.CaptureFixture[str]


def test_every_command_has_json() -> None:
    having = {words for words, found in COMMANDS.items() if any("--json" in option.flags for option in found.options)}
    assert having == set(COMMANDS) - WITHOUT


def test_every_command_with_json_has_a_schema() -> None:
    described = {words.partition(" --")[0] for words in schema.outputs()}
    assert described == set(COMMANDS) - WITHOUT


@pytest.mark.parametrize("words", schema.outputs())
def test_it_is_a_schema(words: str, capsys: Capture) -> None:
    """Every key of it says what it is."""
    assert main(["schema", "--of", words]) == 0
    found = json.loads(capsys.readouterr().out)
    Draft202012Validator.check_schema(found)
    assert found["title"] == f"cni-v6ctl {words}" and ("$comment" in found) == schema.outputs()[words].lines
    option = words.partition(" --")[2]
    flags = {flag for option in COMMANDS[words.partition(" --")[0]].options for flag in option.flags}
    assert not option or f"--{option}" in flags
    assert [path for path in unexplained(found, words)] == []


def unexplained(of: dict[str, Any], path: str) -> Iterator[str]:
    """The keys that have no description."""
    for key, below in of.get("properties", {}).items():
        if not below.get("description"):
            yield f"{path}.{key}"
        yield from unexplained(below, f"{path}.{key}")
    if "items" in of:
        yield from unexplained(of["items"], f"{path}[]")


def test_the_shipped_one_is_current(capsys: Capture) -> None:
    assert main(["schema", "--of"]) == 0
    assert capsys.readouterr().out == SCHEMA_FILE.read_text(encoding="utf-8")


def test_a_command_that_has_none(capsys: Capture) -> None:
    assert main(["schema", "--of", "engine"]) == 1
    assert "error 7: --of engine is no command with --json: write one of list, " in capsys.readouterr().err


# The check itself

LIST = "/usr/sbin/cni-v6ctl", "list", "--json"
LINE = {"network": "pods", "containerID": "a", "ifname": "eth0", "addresses": [], "prefixes": [], "hostInterface": "",
        "hostInterfaceState": "", "created": 0}


def test_lines_are_checked_one_by_one() -> None:
    outputs.check(LIST, "")
    outputs.check(LIST, f"{json.dumps(LINE)}\n{json.dumps(LINE)}\n")
    outputs.check(LIST[:2], "a table")
    outputs.check(("ip", "-j", "list", "--json"), "[]")
    for wrong in ({**LINE, "new": 1}, {key: value for key, value in LINE.items() if key != "created"},
                  {**LINE, "created": "yesterday"}):
        with pytest.raises(AssertionError):
            outputs.check(LIST, f"{json.dumps(LINE)}\n{json.dumps(wrong)}\n")


def test_what_is_printed_in_this_process_is_checked() -> None:
    with pytest.raises(AssertionError, match="'network' is a required property"):
        schema.outputs()["list"].encode({})


def test_an_option_makes_it_another_shape() -> None:
    watched, probed = (outputs.output_of(("trace", "a", "--json", *more)) for more in ((), ("--to", "::1")))
    assert watched.lines and not probed.lines
    with pytest.raises(AssertionError, match="has no schema"):
        outputs.output_of(("engine", "--json"))


def test_it_is_open_to_later_keys() -> None:
    """A script that validates with today's schema must not refuse what the next version adds."""
    document = LINE | {"new": 1}
    plain = schema.of_output("list")
    Draft202012Validator(plain).validate(document)
    with pytest.raises(ValidationError):
        Draft202012Validator(outputs.closed(plain)).validate(document)


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json.dumps(schema.of_all(), indent=2) + "\n", encoding="utf-8")
