"""What ``make install`` says of a kernel that lacks a part: no nf_tables was loaded, and nothing can load it."""

from __future__ import annotations

import sys

import pytest

from tests.sandbox import ROOT, Node

pytestmark = [pytest.mark.uml, pytest.mark.timeout(700), pytest.mark.xdist_group("uml")]


def test_a_kernel_without_nf_tables_is_told(node: Node) -> None:
    lines = node.run(sys.executable, str(ROOT / "tools/needs")).stdout.splitlines()
    missing = lines[lines.index("missing on this node, for the plugins to run:") + 1:]
    assert [line.split(":")[0].strip() for line in missing] == ["nf_tables"]
