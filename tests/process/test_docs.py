"""The commands in the documentation, run as they are written, on a throwaway node; what they print is what it says.

A comment before a block of commands or output says what becomes of it::

    <!-- run -->            ```sh: the whole block is a script; ```console: commands after "$ ", and what they print
    <!-- output of: CMD --> ```text: what CMD prints
    <!-- figures of: CMD --> the same, whatever the numbers are
    <!-- not run: WHY -->   nothing: it needs something that is not here

In what is printed, ``...`` stands for anything. A page's blocks run in order on one node, each command from the top of
the checkout. The node's /etc, /opt, /var/lib, /usr/local and /usr/lib/cni may be written to: it has its own.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.runtimes.node import ENVIRONMENT, PATH, Node, node
from tests.sandbox import ROOT, need

pytestmark = pytest.mark.xdist_group("install")  # it runs "make install"

PAGES = sorted(path for path in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")))
BLOCK = re.compile(r"^(?:<!-- ([^\n]*) -->\n)?```(sh|console|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MARK = re.compile(r"run|output of: .+|figures of: .+|not run: .+")
NUMBER = re.compile(r"\d+(?:\\\.\d+)?")  # in an expression that re.escape made

# Beside what a node has of its own already: where "make install" writes, and podman's storage, which wants no overlay.
OWN_FOLDERS = """
mkdir -p /var/lib/containers
mount -t tmpfs tmpfs /var/lib/containers
for dir in /usr/local /usr/lib/cni; do
    mkdir -p $dir /run/node$dir/upper /run/node$dir/work
    mount -t overlay -o lowerdir=$dir,upperdir=/run/node$dir/upper,workdir=/run/node$dir/work overlay $dir
done
"""


@dataclass(frozen=True)
class Step:
    """A command of a page and what it prints; None where the page does not show that."""

    command: str
    printed: str | None = None
    figures: bool = False


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


def expression(step: Step) -> str:
    """The regular expression of what a step prints, white space aside."""
    lines = (" ".join(line.split()) for line in (step.printed or "").strip().splitlines())
    escaped = re.escape("\n".join(lines)).replace(r"\ ", r"\s+").replace("\\\n", r"\s+").replace(r"\.\.\.", ".*?")
    return NUMBER.sub(r"[0-9.]+", escaped) if step.figures else escaped


def run(machine: Node, step: Step) -> str:
    """Run a step as a person would in a shell; standard output and error, as they come."""
    # The interpreter that made .venv: "make" would make it anew for another one.
    python = {"PYTHON": f"{ROOT}/.venv/bin/python"}
    done = subprocess.run(
        machine.argv("sh", "-euc", f"cd {ROOT}\n{step.command}"),
        env={**ENVIRONMENT, "PATH": f"{ROOT}/.tools/bin:{PATH}", **python},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    assert done.returncode == 0, f"exit {done.returncode}: {step.command}\n{done.stdout}"
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_what_becomes_of_it(page: Path) -> None:
    unmarked = [block.text for block in blocks(page) if block.kind != "text" and not MARK.fullmatch(block.mark)]
    assert unmarked == []


@pytest.mark.parametrize("page", [page for page in PAGES if STEPS[page]], ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_do_what_the_page_says(page: Path) -> None:
    need((ROOT / ".venv/wheels").is_dir(), "needs the wheels that make test puts into .venv")
    with node() as machine:
        machine.run("sh", "-euc", OWN_FOLDERS)
        for step in STEPS[page]:
            printed = run(machine, step)
            if step.printed is not None:
                found = re.fullmatch(expression(step), printed.strip(), re.DOTALL)
                assert found, f"$ {step.command}\nprints:\n{printed}\nbut the page says:\n{step.printed}"


def test_the_first_steps_are_among_what_is_run() -> None:
    commands = "\n".join(step.command for step in STEPS[ROOT / "README.md"]).splitlines()
    assert {"make demo", "make install"} <= set(commands)
