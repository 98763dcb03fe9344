"""The Debian package of this checkout, built once for all tests of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.sandbox import ROOT, need


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need((ROOT / ".venv/wheels").is_dir(), "needs the wheels that make test puts into .venv")
    done = subprocess.run([ROOT / "tools/deb", tmp_path_factory.mktemp("dist")], env={**os.environ, "PYTHON": ""},
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())
