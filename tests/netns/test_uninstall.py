"""``make uninstall`` takes along what the plugins left on the node: the engine, and tables that nobody uses."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests import processes
from tests.netns import networks
from tests.netns.networks import DUAL
from tests.sandbox import ROOT, Node

pytestmark = [pytest.mark.xdist_group("install"), pytest.mark.slow]
TABLES = "table inet cni_v6\ntable bridge cni_v6\n"


@pytest.mark.parametrize("used", [True, False])
def test_the_engine_and_the_tables_go_along(tmp_path: Path, used: bool) -> None:
    """Tables stay while a container counts on them: it would be open without."""
    given = {"PREFIX": f"{tmp_path}/usr", "CNI_BIN_DIR": f"{tmp_path}/cni", "PYTHON": f"{ROOT}/.venv/bin/python"}
    subprocess.run([ROOT / "tools/install"], env={**os.environ, **given, "COURIER": "no"}, check=True)
    node = Node(engine=True, plugins=given["CNI_BIN_DIR"])
    try:
        [pod] = networks.pods(node, networks.gateway(*DUAL), "a")
        if not used:
            pod.delete()
        here = {os.stat(node.path).st_ino}
        assert len(processes.inside(here, node.mount_namespace)) == 2, "the holder of the node, and an engine"
        said = node.run(f"{ROOT}/tools/install", "--remove", env={**node.environment, **given}).stderr
        assert ("the firewall's tables stay" in said) if used else not said, said
        assert len(processes.inside(here, node.mount_namespace)) == 1
        assert node.run("nft", "list", "tables").stdout == (TABLES if used else "")
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    finally:
        node.close()
