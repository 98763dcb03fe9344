"""The manual pages and the completion of ``cni-v6ctl``: complete, accepted by their readers, at work in real shells."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cni_v6.config.json_schema import levels
from cni_v6.config.keys.bridge import BRIDGE, MAIN_OF_IPAM
from cni_v6.config.keys.ipvlan import IPVLAN
from cni_v6.config.keys.macvlan import MACVLAN
from cni_v6.config.keys.routed import ROUTED
from cni_v6.config.keys.vlan import VLAN
from cni_v6.ctl.command import COMMANDS
from cni_v6.ctl.command_tree import tree
from tests.sandbox import ROOT, need

CTL = ROOT / "bin/cni-v6ctl"
PATIENCE = 60  # seconds; a shell that takes as long hangs


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("share")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "0"}
    subprocess.run([sys.executable, ROOT / "tools/manual", folder], check=True, env=environment)
    return folder


def page(manual: Path, name: str) -> str:
    return (manual / f"man/man{name[-1]}" / name).read_text().replace("\\-", "-")


def test_each_command_and_option_has_its_entry(manual: Path) -> None:
    text = page(manual, "cni-v6ctl.8")
    for command in tree().all():
        if command.words and not command.commands:
            section = text.partition(f"\n.SS {' '.join(command.words)}\n")[2].partition("\n.SS ")[0]
            flags = {flag for option in command.options for flag in option.flags}
            assert section and not [flag for flag in flags if f"\\fB{flag}\\fR" not in section], command.words
    assert {command.words[0] for command in tree().commands} == set(COMMANDS)


def test_each_key_has_its_entry(manual: Path) -> None:
    text = page(manual, "cni-v6.conf.5")
    keys = {key.name for level in levels(BRIDGE, ROUTED, MACVLAN, IPVLAN, VLAN, MAIN_OF_IPAM) for key in level.keys}
    assert not [key for key in keys if f"\n\\fB{key}\\fR (" not in text]
    assert '"1970-01-01"' in text or " 1970-01-01 " in text, "the date can be given, for builds that repeat"


@pytest.mark.slow
def test_readers_of_manual_pages_have_no_remark(manual: Path) -> None:
    need(shutil.which("mandoc"), "needs mandoc")
    pages = sorted(map(str, manual.glob("man/*/*")))
    argv = ["mandoc", "-T", "lint", "-W", "warning", *pages]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, len(pages)) == (0, "", 3)


# Completion


def script(shell: str, folder: Path) -> Path:
    done = subprocess.run([CTL, "completion", shell], capture_output=True, text=True, check=True)
    path = folder / ("_cni-v6ctl" if shell == "zsh" else f"cni-v6ctl.{shell}")
    path.write_text(done.stdout)
    return path


# The words typed, the last one to be completed, and what is offered.
TYPED = [
    ("li", {"lint", "list"}),
    ("lint --form", {"--format"}),
    ("lint --format s", {"sarif"}),
    ("ipam b", {"burn"}),
    ("ipam burn --ra", {"--rate"}),
    ("completion z", {"zsh"}),
    ("convert net", {"network.json"}),
    ("lint --conf-dir fol", {"folder"}),
    ("init --name li", set()),  # its value is the operator's
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with something to name."""
    (tmp_path / "network.json").touch()
    (tmp_path / "folder").mkdir()
    return tmp_path


def test_bash_completes(place: Path) -> None:
    lines = [f"source {script('bash', place)}"]
    for typed, _ in TYPED:
        words = ["cni-v6ctl", *typed.split(" ")]
        lines.append(f"COMP_WORDS=({' '.join(repr(word) for word in words)}) COMP_CWORD={len(words) - 1}")
        lines.append('_cni_v6ctl; echo "${COMPREPLY[*]}"')
    done = subprocess.run(["bash", "-c", "\n".join(lines)], cwd=place, capture_output=True, text=True, check=True)
    offered = [set(line.split()) for line in done.stdout.splitlines()]
    assert (offered, done.stderr) == ([wanted for _, wanted in TYPED], "")


@pytest.mark.slow
def test_fish_completes(place: Path) -> None:
    need(shutil.which("fish"), "needs fish")
    lines = [f"source {script('fish', place)}"]
    for typed, _ in TYPED:
        lines += [f"complete -C 'cni-v6ctl {typed}' | string split -f1 \\t", "echo =="]
    environment = {**os.environ, "HOME": str(place), "XDG_CONFIG_HOME": str(place)}
    done = subprocess.run(["fish", "--no-config", "-c", "\n".join(lines)], cwd=place, env=environment,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    offered = [{name.rstrip("/") for name in part.split()} for part in done.stdout.split("==\n")[:-1]]
    assert (offered, done.stderr) == ([wanted for _, wanted in TYPED], "")


@pytest.mark.slow
def test_zsh_completes(place: Path) -> None:
    """At a terminal: zsh has no other way to ask its completion."""
    need(shutil.which("zsh"), "needs zsh")
    script("zsh", place)
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(place)
        environment = {"PATH": os.environ["PATH"], "HOME": str(place), "TERM": "dumb", "LC_ALL": "C"}
        os.execvpe("zsh", ["zsh", "-f", "-i"], environment)
    try:
        start = f"PS1=${{:-rea}}dy'> '; fpath=({place} $fpath); autoload -Uz compinit; compinit -u -D"
        typed(terminal, f"{start}; echo is-${{:-set}}\n", "is-set\r\n", "ready> ")
        for words, wanted in TYPED:
            if not wanted:
                continue
            # Ambiguous words are listed, others completed on the line; the rest of the line is then thrown away.
            typed(terminal, f"cni-v6ctl {words}\t", *(each[len(words.rpartition(' ')[2]):] for each in wanted))
            typed(terminal, "\x15echo is-${:-clear}\n", "is-clear\r\n")
    finally:
        os.close(terminal)  # the hangup ends the shell
        os.waitpid(pid, 0)


def typed(terminal: int, text: str, *wanted: str) -> None:
    """Type at a terminal, and read until all that is wanted has been shown."""
    os.write(terminal, text.encode())
    shown = ""
    while not all(words in shown for words in wanted):
        ready, _, _ = select.select([terminal], [], [], PATIENCE)
        assert ready, f"{text!r}: of {wanted} not all is in {shown!r}"
        shown += os.read(terminal, 4096).decode(errors="replace")
