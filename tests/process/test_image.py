"""``make image``: which programs it calls, and with what. No image can be pulled here: ``tests/image.py`` builds it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.sandbox import ROOT

TOOLS = ("dirname", "sh")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder of programs without any that builds images."""
    for name in TOOLS:
        [path] = [path for path in (Path("/bin", name), Path("/usr/bin", name)) if path.exists()][:1]
        (tmp_path / name).symlink_to(path)
    return tmp_path


def builder(place: Path, name: str) -> None:
    """A program that notes how it is called."""
    (place / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{place}/called\n')
    (place / name).chmod(0o755)


def made(place: Path, image: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.fspath(place), **env}
    return subprocess.run([ROOT / "tools/image", image], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("image, own, agent", [
    ("cni-v6", "cni-v6:latest", "cni-v6-agent:latest"),
    ("a.example:5000/cni-v6", "a.example:5000/cni-v6:latest", "a.example:5000/cni-v6-agent:latest"),
    ("a.example:5000/cni-v6:1", "a.example:5000/cni-v6:1", "a.example:5000/cni-v6-agent:1"),
])
def test_both_images_the_second_on_top_of_the_first(place: Path, image: str, own: str, agent: str) -> None:
    builder(place, "podman")
    done = made(place, image)
    assert done.returncode == 0, done.stderr
    assert (place / "called").read_text().splitlines() == [
        f"podman build --file deploy/Dockerfile --tag {own} .",
        f"podman build --build-arg BASE={own} --tag {agent} deploy/agent",
    ]
    assert done.stdout == f"built: {own} {agent}; to push: podman push {own} && podman push {agent}\n"


def test_docker_comes_first_or_what_somebody_names(place: Path) -> None:
    for name in ("docker", "podman"):
        builder(place, name)
    for env, wanted in (({}, "docker"), ({"BUILDER": "podman"}, "podman")):
        made(place, "cni-v6", **env)
        assert {line.split()[0] for line in (place / "called").read_text().splitlines()} == {wanted}
        (place / "called").unlink()


def test_without_a_builder_it_says_what_it_needs(place: Path) -> None:
    done = made(place, "cni-v6")
    assert (done.returncode, done.stderr) == (1, "image: needs docker or podman\n")
