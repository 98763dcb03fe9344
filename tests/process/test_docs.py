"""The commands in the documentation, run as they are written, on a throwaway node; what they print is what it says.

``tests/pages.py`` says which. A page's blocks run in order on one node, each command from the top of the checkout. The
node's /etc, /opt, /var/lib, /usr/local and /usr/lib/cni may be written to: it has its own.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tests.pages import MARK, PAGES, STEPS, Step, blocks
from tests.runtimes.node import ENVIRONMENT, PATH, Node, node
from tests.runtimes.podman import WITHOUT_CNI, has_cni
from tests.sandbox import ROOT, need

pytestmark = pytest.mark.xdist_group("install")  # it runs "make install"

README = ROOT / "README.md"
SCREEN = 50  # lines
# Programs that a page cannot show without what only "make test-rest" installs.
RUNTIMES = ("cnitool", "podman", "ctr", "crictl", "nerdctl")

# Beside what a node has of its own already: where "make install" writes, and podman's storage, which wants no overlay.
OWN_FOLDERS = """
mkdir -p /var/lib/containers
mount -t tmpfs tmpfs /var/lib/containers
for dir in /usr/local /usr/lib/cni; do
    mkdir -p $dir /run/node$dir/upper /run/node$dir/work
    mount -t overlay -o lowerdir=$dir,upperdir=/run/node$dir/upper,workdir=/run/node$dir/work overlay $dir
done
"""


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


def runs(page: Path) -> ParameterSet:
    """A page that shows a runtime at work is one of the tests of runtimes. The bare machines run README's, too."""
    named = {name for name in RUNTIMES for step in STEPS[page] if re.search(rf"\b{name} ", step.command)}
    marks = [pytest.mark.runtimes if named else pytest.mark.slow]
    return pytest.param(page, marks=marks, id=str(page.relative_to(ROOT)))


@pytest.mark.parametrize("page", [runs(page) for page in PAGES if STEPS[page]])
def test_commands_do_what_the_page_says(page: Path) -> None:
    need((ROOT / ".venv/wheels").is_dir(), "needs the wheels that make test puts into .venv")
    podmans = [step for step in STEPS[page] if "podman " in step.command]
    left_out = podmans if podmans and not has_cni() else []
    with node() as machine:
        machine.run("sh", "-euc", OWN_FOLDERS)
        for step in STEPS[page]:
            if step not in left_out:
                difference = step.difference(run(machine, step))  # before the assert, which may run it again
                assert not difference, difference
    if left_out:
        pytest.skip(f"passed, but for what this machine cannot do: {WITHOUT_CNI}")


def test_the_readme_fits_on_two_screens_and_shows_what_comes_first() -> None:
    """The demo, two containers in five commands, the map, and three questions to the node."""
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 2 * SCREEN
    assert [step.command for step in STEPS[README]] == ["make demo"]
    [block] = [block for block in blocks(README) if "test_bare.py" in block.mark]
    assert len(re.findall(r"^\$ ", block.text, re.MULTILINE)) == 5
    assert len(re.findall(r"^\| `cni-v6ctl", text, re.MULTILINE)) == 3
    assert re.search(r"^!\[.*\]\(docs/topology.svg\)$", text, re.MULTILINE)
