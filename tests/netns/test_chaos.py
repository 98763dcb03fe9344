"""Everything that goes wrong on a node, one after the other, while eight callers never rest."""

from __future__ import annotations

import os

import pytest

from tests.netns import chaos
from tests.sandbox import Node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SEED = os.environ.get("CHAOS_SEED", "20261129")
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", str(2 * len(chaos.FAULTS))))


def test_after_each_fault_all_talk_that_should_and_nobody_else(warm_node: Node) -> None:
    """``CHAOS_SEED`` repeats a run, ``CHAOS_ROUNDS`` makes it longer; what failed is printed with both."""
    won: list[str] = []
    chaos.run(warm_node, SEED, lambda rounds: rounds < ROUNDS, lambda number, fault: won.append(fault))
    assert len(won) == ROUNDS
