"""docs/errors.md lists every error code, under its own name, in order, and no other; docs/commands.md every command.

The pictures are drawn anew by tools/pictures docs/pictures.
"""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from xml.etree import ElementTree

from cni_v6 import errors
from cni_v6.ctl import command_tree

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


def test_every_command_has_a_row() -> None:
    page = DOCUMENT.with_name("commands.md").read_text(encoding="utf-8")
    cells = [row.split("|")[1] for row in page.splitlines() if row.startswith("| `")]
    rows = {name for cell in cells for name in re.findall(r"`(?:cni-v6ctl )?([a-z-]+)", cell)}
    assert rows == {command.words[0] for command in command_tree.tree().commands}


def test_the_pictures_are_current(tmp_path: Path) -> None:
    """Each says in words what it shows, for who does not see it: in itself, and where it stands."""
    runpy.run_path(str(DOCUMENT.parents[1] / "tools/pictures"))["main"](tmp_path)
    shipped = {path.name: path.read_bytes() for path in DOCUMENT.with_name("pictures").iterdir()}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == shipped
    page = DOCUMENT.with_name("choosing.md").read_text(encoding="utf-8")
    for name, content in shipped.items():
        title = ElementTree.fromstring(content).findtext("{http://www.w3.org/2000/svg}title", "")
        assert len(title.split()) > 5 and re.search(rf"!\[[^\]]{{60,}}\]\(pictures/{name}\)", page), name
