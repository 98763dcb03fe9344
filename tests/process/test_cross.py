"""``make courier``: couriers for other processors, the same bytes each time; and they do what the native one does."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.process.fake_engine import FakeEngine
from tests.process.test_courier import ANSWERS, STATUS, Shim
from tests.sandbox import ROOT, need

# The compiler has 300 MB, and its first build makes a C library.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cross"), pytest.mark.timeout(900)]

# One that counts from the other end, and one of 32 bits.
EMULATORS = {"s390x": "qemu-s390x", "armv7": "qemu-arm"}
MACHINES = {"s390x": (22, 2, 2), "armv7": (40, 1, 1)}  # elf(5): e_machine; 64 bits: 2; most significant byte first: 2
SOURCES = ("courier/courier.c", "tools/courier", "tools/cross", "cni_v6/__init__.py")


def cross(checkout: Path, *architectures: str) -> subprocess.CompletedProcess[str]:
    """Build couriers in a checkout; the C library's objects are shared with ``make courier``, nothing of ours is."""
    env = {
        "PATH": os.environ["PATH"], "ZIG_GLOBAL_CACHE_DIR": str(ROOT / ".tools/zig"),
        "ZIG_LOCAL_CACHE_DIR": str(checkout / "cache"),
    }
    argv = [str(checkout / "tools/cross"), "built", *architectures]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)


def checkout_at(folder: Path) -> Path:
    """A copy of what the build reads."""
    for name in SOURCES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of two builds, in checkouts at different places."""
    need(importlib.util.find_spec("ziglang"), "needs the compiler of make courier")
    places = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("over there") / "deep"
    folders = [checkout_at(place) for place in places]
    for folder in folders:
        done = cross(folder, *EMULATORS)
        assert done.returncode == 0, done.stderr
    return [folder / "built" for folder in folders]


@pytest.mark.parametrize("architecture", EMULATORS)
def test_two_builds_are_the_same_bytes(twice: list[Path], architecture: str) -> None:
    first, second = ((folder / architecture / "cni-v6").read_bytes() for folder in twice)
    assert first == second
    machine, bits, order = MACHINES[architecture]
    assert (first[:4], first[4], first[5]) == (b"\x7fELF", bits, order)
    assert int.from_bytes(first[18:20], "big" if order == 2 else "little") == machine
    assert b"/usr/local/lib/cni-v6/bin" in first
    assert (twice[0] / architecture / "cni-v6-ipam").read_bytes() == first


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> FakeEngine:
    return FakeEngine(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def of_the_shim(engine: FakeEngine) -> Shim:
    return Shim(engine)


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("architecture", EMULATORS)
def test_on_another_processor_an_answer_is_treated_alike(
    twice: list[Path], engine: FakeEngine, of_the_shim: Shim, architecture: str, answer: str
) -> None:
    """Without Python beside it: only what comes from an engine is the same."""
    emulator = shutil.which(EMULATORS[architecture])
    need(emulator, "needs qemu-user")
    found = engine.outcome([str(emulator), str(twice[0] / architecture / "cni-v6")], STATUS, ANSWERS[answer])
    wanted = of_the_shim.outcome(answer)
    assert found.code == wanted.code and found.heard and wanted.heard
    assert found.heard.taken == wanted.heard.taken
    if found.heard.taken:
        assert (found.stdout, found.stderr) == (wanted.stdout, wanted.stderr)
    else:
        assert re.search(b'"code": 11, "msg": "the cni-v6 engine (ended|on this node does not)', found.stdout)


def test_an_architecture_that_is_not_known_is_refused(tmp_path: Path) -> None:
    done = cross(checkout_at(tmp_path), "pdp11")
    assert done.returncode == 1 and "'pdp11' is not known" in done.stderr
