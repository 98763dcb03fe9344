"""The image of deploy/Dockerfile, made by hand: no image can be pulled where the tests run.

The machine's own /usr stands for the base image and the packages that apt-get adds; every other instruction of the last
stage is carried out in the root.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.distributions import WHEELS, distributions
from tests.sandbox import ROOT, need

DOCKERFILE = ROOT / "deploy/Dockerfile"
PACKAGES = {"nftables": "/usr/sbin/nft", "python3-venv": "/usr/bin/python3"}  # package -> a program of it
LINKS = ("bin", "sbin", "lib", "lib64")
FILES = ("/etc/passwd", "/etc/group", "/etc/ld.so.cache")
MADE_BY_APT = "apt-get update && apt-get install --yes --no-install-recommends "
ENTER = """
root=$1; shift
mount --bind $root $root
mount --bind /usr $root/usr
mount --bind $root/.local $root/usr/local
mount -t proc none $root/proc
mount --bind /dev/null $root/dev/null
cd $root
pivot_root . old
umount -l /old
exec "$@"
"""


@dataclass(frozen=True)
class Image:
    """``root``: its folder; the machine's /usr belongs there, and ``local`` on top of its /usr/local."""

    root: Path
    env: tuple[str, ...]

    @property
    def local(self) -> Path:
        return self.root / ".local"


def instructions() -> Iterator[tuple[str, str]]:
    """(word, arguments) of the last stage."""
    text = re.sub(r"\\\n\s*", " ", DOCKERFILE.read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    last = max(number for number, line in enumerate(lines) if line.startswith("FROM "))
    for line in lines[last + 1:]:
        word, _, arguments = line.partition(" ")
        yield word, arguments


def build(place: Path) -> Image:
    """Build the image in a folder."""
    root = place / "root"
    for name in (".local", "usr", "proc", "dev", "sys", "etc", "opt", "tmp", "run", "old", "var/lib"):
        root.joinpath(name).mkdir(parents=True)
    root.joinpath("dev/null").touch()
    for name in LINKS:
        root.joinpath(name).symlink_to(f"usr/{name}")
    for path in FILES:
        shutil.copy(path, root / path.lstrip("/"))
    env: dict[str, str] = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    for word, arguments in instructions():
        if word == "ENV":
            env |= dict(pair.split("=", 1) for pair in shlex.split(arguments))
        elif word == "COPY":
            _copy(arguments, root, place)
        elif word == "RUN" and arguments.startswith(MADE_BY_APT):
            _have(arguments.removeprefix(MADE_BY_APT).partition(" &&")[0].split())
        elif word == "RUN":
            _run(arguments, root, env)
        else:
            assert word == "CMD", f"{word} is not carried out here"
    return Image(root, tuple(f"{key}={value}" for key, value in env.items()))


def _have(packages: list[str]) -> None:
    for package in packages:
        need(Path(PACKAGES[package]).exists(), f"needs {package}")
    pip = subprocess.run(["/usr/bin/python3", "-c", "import ensurepip"], check=False)
    need(pip.returncode == 0, "needs python3-venv")


def _copy(arguments: str, root: Path, place: Path) -> None:
    """What the first stage made: ``make wheels`` leaves ours in dist/, and .venv/wheels has what they require."""
    stage, *sources, target = arguments.split()
    assert stage == "--from=build" and sources == ["/source/dist/", "/source/.venv/wheels/"]
    for folder in (distributions(place), WHEELS):
        shutil.copytree(folder, root / target.strip("/"), dirs_exist_ok=True)


def _run(command: str, root: Path, env: dict[str, str]) -> None:
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", ENTER, "sh", str(root)]
    done = subprocess.run([*argv, "/bin/sh", "-c", command], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
