"""Couriers for the tests: built by ``tools/courier``, as an installation's are, for any Python executables."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.sandbox import ROOT, need

COMPILERS = ("musl-gcc", "cc", "gcc", "clang")
NAMES = ("cni-v6", "cni-v6-routed", "cni-v6-macvlan", "cni-v6-ipvlan", "cni-v6-vlan", "cni-v6-ipam", "loopback")


def build(
    folder: Path, *flags: str, python: Path = ROOT / "bin", compiler: str = "", link: str = "",
    names: Sequence[str] = NAMES,
) -> Path:
    """Build the courier into a folder, under each of its names. Returns the folder.

    :param python: where it finds the Python executables.
    :param compiler: "": as ``make install`` chooses it.
    :param link: flags in place of a static executable's.
    """
    found = any(shutil.which(each) for each in ([compiler] if compiler else COMPILERS))
    need(found, f"needs {compiler or 'a C compiler'}")
    folder.mkdir(parents=True, exist_ok=True)
    env = {"PATH": os.environ["PATH"]} | ({"CC": compiler} if compiler else {}) | ({"LINK": link} if link else {})
    argv = [str(ROOT / "tools/courier"), str(python), str(folder / names[0]), "-Werror", *flags]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in names[1:]:
        shutil.copy(folder / names[0], folder / name)
    return folder
