"""What docs/security.md and docs/design/robustness.md promise is tested: each row that has a column for its test names
one, and each test that they name is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = ["docs/security.md", "docs/design/robustness.md"]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
TABLE = re.compile(r"^\|[^\n]*\| test \|\n\|[-|]+\|\n((?:\|[^\n]*\|\n)+)", re.MULTILINE)


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def defined_in(path: str) -> set[str]:
    file = ROOT / path
    tree = ast.parse(file.read_text(encoding="utf-8")) if file.exists() else ast.Module([], [])
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_is_named_exists(page: str) -> None:
    named = NAMED.findall(read(page))
    assert named
    assert [f"{path}::{test}" for path, test in named if test not in defined_in(path)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_promise_names_its_test(page: str) -> None:
    tables = [table.splitlines() for table in TABLE.findall(read(page))]
    assert tables
    assert [row for table in tables for row in table if not NAMED.search(row.rsplit("|", 2)[1])] == []


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_named_in_another_way(page: str) -> None:
    """A test's name that is written in another way would not be looked for."""
    text = read(page)
    assert text.count("::test_") == len(NAMED.findall(text))
