"""The distributions that ``tools/wheels`` builds, for the tests: of this checkout, with this processor's courier."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from tests.couriers import build
from tests.sandbox import ROOT, need

WHEELS = ROOT / ".venv/wheels"  # what ours requires
PYTHON_DIR = Path("/usr/local/lib/cni-v6/bin")


def distributions(place: Path, env: Mapping[str, str] | None = None) -> Path:
    """Build them in a folder of ``place``. Returns the folder."""
    need(find_spec("wheel"), "needs the package wheel")
    need(WHEELS.is_dir(), "needs the wheels that make test puts into .venv")
    build(place / "couriers" / platform.machine(), python=PYTHON_DIR)
    argv = [ROOT / "tools/wheels", place / "dist", place / "couriers"]
    done = subprocess.run(argv, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return place / "dist"
