"""The benchmark of the carriers, with few samples: ``make bench ARGS="--only carriers"`` takes more."""

from __future__ import annotations

import pytest

from tests.bench import carriers
from tests.bench.figures import Findings
from tests.bench.setting import QUICK
from tests.bird import need_bird

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]


def test_all_carriers_are_measured_beside_static_routes() -> None:
    need_bird()
    found = Findings()
    carriers.measure(QUICK, found)
    for carrier in ("direct", "bgp", "srv6", "vxlan"):
        assert len([row for row in found.rows if row.figure.endswith(f", {carrier}") and row.ratio]) == 6
    assert len([row for row in found.rows if row.figure.startswith("a silent node is noticed") and row.ours]) == 2
