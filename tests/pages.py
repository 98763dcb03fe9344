"""The documentation's pages: their blocks of commands and output, and what becomes of each.

A comment before a block says it::

    <!-- run -->            ```sh: the whole block is a script; ```console: commands after "$ ", and what they print
    <!-- output of: CMD --> ```text: what CMD prints
    <!-- figures of: CMD --> the same, whatever the numbers are
    <!-- not run: WHY -->   nothing: it needs something that is not here

In what is printed, ``...`` stands for anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.sandbox import ROOT

PAGES = sorted(path for path in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")))
BLOCK = re.compile(r"^(?:<!-- ([^\n]*) -->\n)?```(sh|console|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MARK = re.compile(r"run|output of: .+|figures of: .+|not run: .+")
NUMBER = re.compile(r"\d+(?:\\\.\d+)?")  # in an expression that re.escape made


@dataclass(frozen=True)
class Step:
    """A command of a page and what it prints; None where the page does not show that."""

    command: str
    printed: str | None = None
    figures: bool = False

    def difference(self, printed: str) -> str:
        """What to tell where a command prints something else than its page says; "" where it does not."""
        if self.printed is None or re.fullmatch(self._expression(), printed.strip(), re.DOTALL):
            return ""
        return f"$ {self.command}\nprints:\n{printed}\nbut the page says:\n{self.printed}"

    def _expression(self) -> str:
        """The regular expression of what a step prints, white space aside."""
        lines = (" ".join(line.split()) for line in (self.printed or "").strip().splitlines())
        escaped = re.escape("\n".join(lines)).replace(r"\ ", r"\s+").replace("\\\n", r"\s+").replace(r"\.\.\.", ".*?")
        return NUMBER.sub(r"[0-9.]+", escaped) if self.figures else escaped


@dataclass(frozen=True)
class Block:
    mark: str
    kind: str
    text: str

    def steps(self) -> Iterator[Step]:
        words = self.mark.partition(": ")
        if words[0] in ("output of", "figures of"):
            yield Step(words[2], self.text, words[0] == "figures of")
        elif self.mark == "run" and self.kind == "sh":
            yield Step(self.text)
        elif self.mark == "run":
            for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
                command, printed = _command(part)
                yield Step(command, printed)


def _command(text: str) -> tuple[str, str]:
    """A command, which a backslash continues on the next line, and what it prints."""
    lines = text.splitlines(keepends=True)
    length = next(number for number, line in enumerate(lines, 1) if not line.endswith("\\\n"))
    return "".join(lines[:length]), "".join(lines[length:])


def blocks(page: Path) -> list[Block]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(*words) for words in found]


STEPS = {page: [step for block in blocks(page) for step in block.steps()] for page in PAGES}
