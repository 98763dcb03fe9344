"""Tests of networks run once for each main plugin that ``networks.network`` makes a configuration of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.netns import networks
from tests.sandbox import Node


@pytest.fixture(params=[networks.BRIDGE, networks.ROUTED])
def main_plugin(request: pytest.FixtureRequest) -> Iterator[str]:
    """The type of the networks of a test; the second one's are slow but for those that are ``core``."""
    yield from _of_type(request.param)


@pytest.fixture(params=[networks.BRIDGE, networks.ROUTED, networks.MACVLAN])
def any_plugin(request: pytest.FixtureRequest, node: Node) -> Iterator[str]:
    """As ``main_plugin``, of what holds for containers that have nothing on the node too; those have an uplink here."""
    if request.param == networks.MACVLAN:
        networks.outside(node)
    yield from _of_type(request.param)


def _of_type(kind: str) -> Iterator[str]:
    token = networks.main.set(kind)
    try:
        yield kind
    finally:
        networks.main.reset(token)
