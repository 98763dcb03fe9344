"""What the agent's kernel does for carrier ``wireguard``: the fake; tests/uml/test_wireguard.py has the real one."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from cni_v6.cluster.facts import (
    Add,
    Device,
    Entry,
    Facts,
    Forward,
    NodeKernel,
    Op,
    Remove,
    RemoveDevice,
    Route,
    SetNodes,
    SetTable,
    Underlay,
)
from cni_v6.cluster.fake import FakeNode
from cni_v6.cluster.wireguard_values import WIREGUARD, Address, Encrypted, Peer

UNDERLAY = Underlay("eth0", 1400, True, ("172.30.0.1", "fd00:11::1"))
DEVICE = Encrypted(1320, "eth0", ("fd42::/48", "10.244.0.0/16"), ("fd42:0:0:1::/64", "10.244.0.64/26"))
KEYS = (bytes((0, *range(1, 31), 64)), bytes((8, *range(1, 31), 64)))  # private ones, clamped


def key(number: int) -> str:
    return b64encode(bytes((number, *bytes(31)))).decode()


PEER = Peer(key(2), "fd00:11::2", ("10.244.1.0/26", "fd42:0:0:2::/64"))
OTHER = Peer(key(3), "172.30.0.3", ("10.244.1.64/26", "fd42:0:0:3::/64"))
ENTRIES: tuple[Entry, ...] = (
    PEER, OTHER, Address("fd42:0:0:1::/128"), Address("10.244.0.64/32"),
    Route("fd42:0:0:2::/64", WIREGUARD), Route("10.244.1.0/26", WIREGUARD), Route("fd42:0:0:1::/64"),
)


@dataclass
class Secured:
    """``restart`` gives the kernel of an agent that starts anew with a private key."""

    kernel: NodeKernel
    restart: Callable[[bytes], NodeKernel]


@pytest.fixture
def secured() -> Secured:
    fake = FakeNode(UNDERLAY, closed=["eth0"], private_key=KEYS[0])

    def restart(private_key: bytes) -> NodeKernel:
        fake.private_key = private_key
        return fake

    return Secured(fake, restart)


def refusals(kernel: NodeKernel, *operations: Op) -> list[str]:
    return [*map(str, kernel.apply(operations))]


def test_the_interface(secured: Secured) -> None:
    kernel = secured.kernel
    before = kernel.observe()
    assert before.public_key == "" and before.devices == {}
    [refused] = refusals(kernel, Add(PEER))
    assert "No such device" in refused
    assert refusals(kernel, Add(DEVICE), *map(Add, ENTRIES)) == []
    seen = kernel.observe()
    devices: dict[str, Device | None] = {WIREGUARD: DEVICE}
    closed = before.closed | {WIREGUARD} if before.closed else frozenset()  # before Linux 6.17 none is by itself
    assert seen == Facts(UNDERLAY, devices, frozenset(ENTRIES), closed, nodes=frozenset(),
                         interfaces=frozenset({DEVICE.interface}), public_key=seen.public_key)
    assert len(seen.public_key) == 44 and seen.public_key != b64encode(KEYS[0]).decode()
    assert len(refusals(kernel, Add(DEVICE))) == 1
    nodes = frozenset({"fd00:11::2"})
    assert refusals(kernel, SetNodes(nodes), *map(Forward, sorted(closed))) == []
    assert kernel.observe() == replace(seen, closed=frozenset(), nodes=nodes)
    assert refusals(kernel, *map(Remove, reversed(ENTRIES))) == [] and kernel.observe().entries == frozenset()
    assert refusals(kernel, *map(Remove, ENTRIES)) == []
    assert refusals(kernel, *map(Add, ENTRIES), RemoveDevice(WIREGUARD), RemoveDevice(WIREGUARD)) == []
    assert refusals(kernel, Remove(PEER), Remove(ENTRIES[2])) == []
    assert kernel.observe() == replace(before, entries=frozenset({ENTRIES[-1]}), closed=frozenset())


def test_a_peer_that_is_changed(secured: Secured) -> None:
    """It has what it is given at last, and a block is of one peer."""
    kernel = secured.kernel
    assert refusals(kernel, Add(DEVICE), Add(PEER), Add(OTHER)) == []
    moved = replace(PEER, endpoint="172.30.0.2", blocks=("fd42:0:0:2::/64",))
    assert refusals(kernel, Add(moved)) == [] and kernel.observe().entries == {moved, OTHER}
    assert refusals(kernel, Add(PEER)) == [] and kernel.observe().entries == {PEER, OTHER}
    greedy = replace(OTHER, blocks=tuple(sorted((*OTHER.blocks, "fd42:0:0:2::/64"))))
    left = replace(PEER, blocks=("10.244.1.0/26",))
    assert refusals(kernel, Add(greedy)) == [] and kernel.observe().entries == {greedy, left}
    assert refusals(kernel, Remove(greedy), Add(PEER)) == [] and kernel.observe().entries == {PEER}


def test_many_peers_with_many_blocks(secured: Secured) -> None:
    """More than one message of the kernel, or to it, has room for."""
    peers = [Peer(b64encode(bytes((number & 255, number >> 8, *bytes(30)))).decode(), f"fd00:11::{number:x}",
                  (f"10.{number >> 8}.{number & 255}.0/26", f"fd42:0:0:{number:x}::/64")) for number in range(2, 802)]
    blocks = tuple(sorted(f"fd42:0:1:{number:x}::/64" for number in range(1, 2502)))
    large = Peer(b64encode(bytes((9,) * 32)).decode(), "fd00:11::9999", blocks)
    assert refusals(secured.kernel, Add(DEVICE), *map(Add, (*peers, large))) == []
    assert secured.kernel.observe().entries == {*peers, large}


def test_another_private_key(secured: Secured) -> None:
    """The interface is not the node's then, until it is made anew. Without a key, as with another carrier, none is."""
    secured.kernel.apply([Add(DEVICE)])
    first = secured.kernel.observe().public_key
    kernel = secured.restart(KEYS[1])
    assert (kernel.observe().devices, kernel.observe().public_key) == ({WIREGUARD: None}, "")
    assert refusals(kernel, RemoveDevice(WIREGUARD), Add(DEVICE)) == []
    seen = kernel.observe()
    assert seen.devices == {WIREGUARD: DEVICE} and len({seen.public_key, first, ""}) == 3
    kernel = secured.restart(b"")
    assert kernel.observe().devices == {WIREGUARD: None} and refusals(kernel, RemoveDevice(WIREGUARD)) == []
    assert kernel.observe().devices == {}
    kernel = secured.restart(KEYS[0])
    assert refusals(kernel, Add(DEVICE)) == [] and kernel.observe().public_key == first


def test_its_table_is_made_anew_and_the_rest_stays(secured: Secured) -> None:
    kernel = secured.kernel
    assert refusals(kernel, Add(DEVICE), *map(Add, ENTRIES)) == []
    for blocks in ((), DEVICE.blocks[1:], DEVICE.blocks):
        changed = replace(DEVICE, blocks=blocks, pools=("fd42::/48", "10.244.0.0/16", "fd43::/48"))
        assert refusals(kernel, SetTable(changed, frozenset())) == []
        seen = kernel.observe()
        assert seen.devices == {WIREGUARD: changed} and seen.entries == frozenset(ENTRIES)
