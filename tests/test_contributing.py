"""What a contributor finds in a checkout agrees with what the Makefile and CI do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.test_linters import texts

ROOT = Path(__file__).resolve().parent.parent
HOOK_ENTRY = re.compile(r"^ +entry: sh -c '(.+)'$", re.MULTILINE)


def text(name: str) -> str:
    return ROOT.joinpath(name).read_text(encoding="utf-8")


def commands_of(target: str) -> list[str]:
    """The commands of a Makefile target, without those of the targets it needs."""
    dry_run = ["make", "--dry-run", "--no-print-directory", "--old-file=setup-test", target]
    return subprocess.run(dry_run, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def test_pre_commit_runs_what_lint_and_type_run() -> None:
    assert HOOK_ENTRY.findall(text(".pre-commit-config.yaml")) == [*commands_of("lint"), *commands_of("type")]


def test_pre_commit_downloads_nothing() -> None:
    config = text(".pre-commit-config.yaml")
    assert re.findall(r"repo: (\S+)", config) == ["local"]
    assert set(re.findall(r"language: (\S+)", config)) == {"system"}


def test_the_workflow_runs_what_ci_runs() -> None:
    assert "run: .ci/run" in text(".github/workflows/ci.yml")


def test_contributing_names_make_help_first() -> None:
    named = re.findall(r"\bmake [a-z-]+", text("CONTRIBUTING.md"))
    assert named[0] == "make help"


def test_help_lists_every_target_of_the_makefile_that_a_person_calls() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = {line.split()[0] for line in shown.splitlines() if line}
    named = set(re.findall(r"(?m)(?:^|`)make ([a-z-]+)", text("CONTRIBUTING.md") + text("README.md")))
    assert named <= listed


def test_security_says_where_to_report_what_is_supported_and_what_is_in_scope() -> None:
    headings = re.findall(r"^## (.+)$", text("SECURITY.md"), re.MULTILINE)
    assert headings == [
        "Report a vulnerability", "What is supported", "What is in scope", "What is not in scope",
    ]


TEXT_SUFFIXES = {".py", ".md", ".cfg", ".toml", ".yml", ".yaml", ".json", ".conflist"}


# What must not be in a text file.
BROKEN = {"trailing space": r"(?m)[ \t]$", "no final newline": r"[^\n]\Z", "tab": r"\t"}


@pytest.mark.parametrize("pattern", BROKEN.values(), ids=BROKEN.keys())
def test_files_keep_to_the_editor_configuration(pattern: str) -> None:
    files = [path for path in texts() if path.suffix in TEXT_SUFFIXES]
    assert files, "the repository has text files"
    assert [path for path in files if re.search(pattern, path.read_text(encoding="utf-8"))] == []
