"""A dozen agents on one etcd; ``make bench ARGS="--only cluster"`` measures a thousand."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import pytest

from tests.cluster_load import Node, asked, each
from tests.etcd import Etcd, etcd, own_address

pytestmark = [pytest.mark.slow, pytest.mark.netns]

COUNT = 12
ENTRIES = 2 * COUNT  # a route for each block


@pytest.fixture
def server() -> Iterator[Etcd]:
    with etcd(own_address()) as made:
        yield made


@pytest.fixture
def nodes(server: Etcd) -> Iterator[list[Node]]:
    made = [Node(f"{server.url}/test", number) for number in range(COUNT)]
    yield made
    each(made, Node.close)


def test_many_nodes_join_hear_of_each_other_and_restart(server: Etcd, nodes: list[Node]) -> None:
    blocks = [*chain(*each(nodes, Node.join))]
    assert len(set(blocks)) == len(blocks) == ENTRIES
    each(nodes, lambda node: node.settle(ENTRIES))
    each(nodes, Node.listen)
    before = asked(server.url)
    address = nodes[0].move()
    each(nodes, lambda node: node.hear("node-0", address))
    after = asked(server.url)
    assert (after["reads"], after["commits"]) == (before["reads"], before["commits"] + 1)
    each(nodes, Node.start)
    assert sorted(chain(*each(nodes, Node.join))) == sorted(blocks)
    each(nodes, lambda node: node.settle(ENTRIES))
    assert asked(server.url)["commits"] == after["commits"]
