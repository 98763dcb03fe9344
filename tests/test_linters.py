"""flake8, mypy --strict and the house rules that a pattern can find, as ordinary tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOT_OURS = {".git", ".tools", ".venv", ".mypy_cache", ".pytest_cache", ".hypothesis", "__pycache__", "build", "dist"}
SCRIPTS = ["bin/cni-v6", "bin/cni-v6-ipam", "bin/cni-v6ctl", "bin/loopback", "tools/manual", "tools/needs",
           "tools/pictures", "tools/requirements", "tools/site/conf.py"]
# The oldest that setup.cfg allows and the newest release's that is tested: a line may be unreachable in one of them.
PYTHONS = ("3.10", "3.13")

# Written so that this file does not match itself.
BANNED = {
    r"\bTO[D]O\b|\bFIX[M]E\b|\bX[X]X\b": "do it, or leave it out",
    r"\btime\.slee[p]\(": "wait for the event itself",
    r"# type: ignor[e](?!\[)|# noq[a](?!: )": "name the rule that is set aside",
    r"unittest\.moc[k]|\bmonkeypatc[h]\b": "inject a fake",
    r"pytest\.mark\.(ski[p]|xfai[l])\b": "need() skips on a workstation and fails in CI",
}


def run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def texts() -> Iterator[Path]:
    """Every file of the repository that is text."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in NOT_OURS and not name.endswith(".egg-info")]
        yield from (Path(folder, name) for name in names if not name.startswith(".coverage"))


def test_flake8() -> None:
    run("flake8", ".", *SCRIPTS)


@pytest.mark.xdist_group("mypy")  # one cache
@pytest.mark.timeout(600)  # without a cache it reads the whole of what we depend on, too
@pytest.mark.parametrize("version", [PYTHONS[0], pytest.param(PYTHONS[1], marks=pytest.mark.slow)])
def test_mypy_strict(version: str) -> None:
    run("mypy", "--python-version", version)


@pytest.mark.xdist_group("mypy")
@pytest.mark.parametrize("script", SCRIPTS)
def test_mypy_strict_scripts(script: str) -> None:
    run("mypy", "--python-version", PYTHONS[0], script)


@pytest.mark.parametrize(("pattern", "instead"), BANNED.items())
def test_nothing_banned(pattern: str, instead: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert found == [], instead


def test_shell_scripts_parse_and_stop_at_errors() -> None:
    scripts = [path for path in texts() if path.parent.name == "tools" and path.read_bytes().startswith(b"#!/bin/sh")]
    assert scripts, "tools/ has shell scripts"
    for path in scripts:
        assert "set -eu" in path.read_text(encoding="utf-8"), path
        subprocess.run(["sh", "-n", path], check=True)
