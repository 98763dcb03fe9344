"""Tests of networks run once for each main plugin that ``networks.network`` makes a configuration of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.netns import networks


@pytest.fixture(params=[networks.BRIDGE, networks.ROUTED])
def main_plugin(request: pytest.FixtureRequest) -> Iterator[str]:
    """The type of the networks of a test; the second one's are slow but for those that are ``core``."""
    token = networks.main.set(request.param)
    try:
        yield request.param
    finally:
        networks.main.reset(token)
