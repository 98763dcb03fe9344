"""The benchmark of the carriers, with few samples: ``make bench ARGS="--only carriers"`` takes more."""

from __future__ import annotations

import pytest

from tests.bench import carriers
from tests.bench.figures import Findings
from tests.bench.setting import QUICK

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]


def test_carriers_are_measured_beside_static_routes() -> None:
    """Without BGP: tests/netns/test_cluster_bgp.py has that."""
    found = Findings()
    carriers.measure(QUICK, found, with_bgp=False)
    for carrier in ("direct", "srv6", "vxlan"):
        assert len([row for row in found.rows if row.figure.endswith(f", {carrier}") and row.ratio]) == 6
