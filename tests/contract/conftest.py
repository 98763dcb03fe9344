"""The node that most contract tests are about, of either kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.worlds import World, fake_world, linux_world


@pytest.fixture(params=["fake", pytest.param("linux", marks=pytest.mark.netns)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "fake":
        yield fake_world()
        return
    with linux_world() as made:
        yield made
