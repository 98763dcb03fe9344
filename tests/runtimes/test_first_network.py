"""The README's way from nothing to two containers that talk: its commands as they are written, under containerd."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.pages import Block, blocks
from tests.process.test_docs import OWN_FOLDERS
from tests.sandbox import ROOT, need

from . import networks
from .containerd import COMMANDS, FOLDER, containerd
from .images import archive
from .node import ENVIRONMENT, PATH, node

pytestmark = [pytest.mark.runtimes, pytest.mark.xdist_group("install")]

IMAGE = "docker.io/library/busybox:latest"
PULL = f"ctr image pull {IMAGE}\n"


def test_the_readmes_commands_in_their_order(tmp_path: Path) -> None:
    networks.need_commands(*COMMANDS)
    need((ROOT / ".venv/wheels").is_dir(), "needs the wheels that make test puts into .venv")
    [block] = [block for block in blocks(ROOT / "README.md") if "test_first_network.py" in block.mark]
    steps = list(Block("run", block.kind, block.text).steps())
    assert len(steps) <= 5 and PULL in [step.command for step in steps]
    with node() as machine:
        machine.run("sh", "-euc", OWN_FOLDERS)
        with containerd(machine, tmp_path) as runtime:
            # As ctr's options --address, --namespace and --snapshotter, which are this machine's matter.
            own = {"CONTAINERD_ADDRESS": f"{FOLDER}/containerd.sock", "CONTAINERD_NAMESPACE": machine.cgroup,
                   "CONTAINERD_SNAPSHOTTER": "native", "PATH": f"{PATH}", "PYTHON": f"{ROOT}/.venv/bin/python"}
            runtime.ctr("image", "import", "--snapshotter", "native", archive(tmp_path / "busybox.tar", IMAGE))
            for step in steps:
                if step.command == PULL:
                    continue  # the image is there already: nothing is downloaded here
                argv = machine.argv("sh", "-euc", f"cd {ROOT}\n{step.command}")
                done = subprocess.run(argv, env={**ENVIRONMENT, **own}, stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
                assert done.returncode == 0, f"exit {done.returncode}: {step.command}\n{done.stdout}"
                assert re.search(r"\b0% packet loss", done.stdout) or "ping" not in step.command
            assert step.difference(done.stdout) == "", "the last one prints what the page says"
            runtime.ctr("task", "kill", "--signal", "KILL", "alpha")
