"""docs/errors.md lists every error code, under its own name, in order, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from cni_v6 import errors

DOCUMENT = Path(__file__).resolve().parent.parent.parent / "docs" / "errors.md"
HEADING = re.compile(r"^### (\d+) (\w+)$", re.MULTILINE)


def test_every_code_is_listed_with_its_name() -> None:
    codes = [(value, name) for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)]
    listed = [(int(code), name) for code, name in HEADING.findall(DOCUMENT.read_text(encoding="utf-8"))]
    assert listed == sorted(codes)


def test_every_code_says_when_it_happens_and_what_to_do() -> None:
    _, *sections = re.split(r"^##+ ", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    described = {title: text.strip() for title, _, text in (section.partition("\n") for section in sections)}
    assert not [title for title, text in described.items() if title[0].isdigit() and len(text.split()) < 20]
