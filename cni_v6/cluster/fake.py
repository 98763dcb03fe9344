"""A kernel, leases and a BIRD in this process for tests of the agent."""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from hashlib import sha256

from cni_v6.cluster import blocks
from cni_v6.cluster.bgp import tag_of
from cni_v6.cluster.bird_messages import Running
from cni_v6.cluster.capacity import Used
from cni_v6.cluster.config import Pool
from cni_v6.cluster.facts import (
    SRV6,
    SRV6_IN,
    TUNNEL,
    Add,
    Device,
    Entry,
    Facts,
    Forward,
    Op,
    Pair,
    Passage,
    Remove,
    RemoveDevice,
    Route,
    Rule,
    SegmentRoute,
    SetGate,
    SetNodes,
    SetTable,
    Tunnel,
    Underlay,
    Vacate,
)
from cni_v6.cluster.places import interface_of, place
from cni_v6.cluster.wireguard_values import WIREGUARD, Address, Encrypted, Peer
from cni_v6.errors import INVALID_CONFIG, IO_FAILURE, KERNEL_REFUSED, CniError
from cni_v6.net.addresses import host_prefix, overlap, values

GARBAGE = "garbage"  # of which BIRD cannot make sense
ENDS = {TUNNEL: {TUNNEL}, SRV6: {SRV6, SRV6_IN}, WIREGUARD: {WIREGUARD}}  # the interfaces of each device


class FakeNode:
    """``written``: all operations that changed something, in order.

    ``closed``: interfaces that do not forward; the carrier's begin so on a node on which any does. ``private_key``: of
    the node's WireGuard; without one, the kernel has none.
    """

    def __init__(self, underlay: Underlay | None, closed: Iterable[str] = (), private_key: bytes = b"") -> None:
        self.underlay = underlay
        self.closed = set(closed)
        self.devices: dict[str, Device] = {}
        self.entries: set[Entry] = set()
        self.gateways: set[str] = set()  # addresses that networks of the node have, with their prefix lengths
        self.drops = False
        self.gate: tuple[Passage, ...] = ()
        self.nodes: frozenset[str] = frozenset()
        self.written: list[Op] = []
        self.private_key = private_key
        self._used_key = b""  # by the interface
        self._forced = bool(self.closed)
        self._places: dict[tuple[str, ...], Entry] = {}  # the entries, while operations are carried out
        self._changes = 0  # of entries

    def observe(self) -> Facts:
        closed = frozenset(self.closed)
        devices: dict[str, Device | None] = dict(self.devices)
        if WIREGUARD in devices and self._used_key != self.private_key:
            devices[WIREGUARD] = None
        public_key = b64encode(sha256(self.private_key).digest()).decode() if devices.get(WIREGUARD) else ""
        return Facts(self.underlay, devices, frozenset(self.entries), closed, self.drops,
                     tuple(map(str, self.gate)), self.nodes if self.devices else None,
                     frozenset(device.interface for device in devices.values() if device), public_key)

    def apply(self, operations: Iterable[Op]) -> list[CniError]:
        todo = list(operations)
        self._places = {place(entry): entry for entry in self.entries} if todo else {}
        return [error for operation in todo if (error := self._apply(operation))]

    def _apply(self, operation: Op) -> CniError | None:
        before = self._state()
        refusal = self._refusal(operation)
        if refusal:
            return CniError(KERNEL_REFUSED, f"cannot {operation}", refusal)
        if before != self._state():
            self.written.append(operation)
        return None

    def _state(self) -> object:
        return self._changes, dict(self.devices), set(self.closed), self.gate, self.nodes, set(self.gateways)

    def _refusal(self, operation: Op) -> str:
        if isinstance(operation, Forward):
            self.closed.discard(operation.ifname)
            return ""
        if isinstance(operation, SetGate):
            self.gate = operation.passages
            return ""
        if isinstance(operation, SetNodes):
            self.nodes = operation.addresses if self.devices else frozenset()
            return ""
        if isinstance(operation, SetTable):
            self.devices[operation.device.ifname], self.nodes = operation.device, operation.nodes
            return ""
        if isinstance(operation, Vacate):
            self.gateways -= {address for address in self.gateways
                              if overlap(host_prefix(address), operation.prefix)}
            return ""
        if isinstance(operation, RemoveDevice):
            self._remove_device(operation.ifname)
            return ""
        if isinstance(operation.what, Tunnel | Pair | Encrypted):
            return self._add_device(operation.what)
        return self._set_entry(operation, operation.what)

    def _add_device(self, device: Device) -> str:
        if device.ifname in self.devices:
            return "File exists"
        if isinstance(device, Encrypted):
            if not self.private_key:
                return "Operation not supported; the kernel has no WireGuard"
            self._used_key = self.private_key
        self.devices[device.ifname] = device
        self.closed |= ENDS[device.ifname] if self._forced else set()
        return ""

    def _remove_device(self, ifname: str) -> None:
        self.devices.pop(ifname, None)
        self.nodes = frozenset()
        self.closed -= ENDS[ifname]
        for entry in [known for known in self.entries if interface_of(known) in ENDS[ifname]]:
            self._take(entry)

    def _set_entry(self, operation: Add | Remove, entry: Entry) -> str:
        known = self._places.get(place(entry))
        if isinstance(operation, Add):
            refusal = self._missing(entry) or ("File exists" if known and _is_exclusive(entry) else "")
            if refusal or entry == known:
                return refusal
        if known:
            self._take(known)
        if isinstance(operation, Add):
            if isinstance(entry, Peer):
                self._move_blocks(entry)
            self._places[place(entry)] = entry
            self.entries.add(entry)
            self._changes += 1
        return ""

    def _move_blocks(self, peer: Peer) -> None:
        """A block is of one peer: the others lose it."""
        for other in [entry for entry in self.entries if isinstance(entry, Peer) and {*entry.blocks} & {*peer.blocks}]:
            self._take(other)
            left = replace(other, blocks=tuple(block for block in other.blocks if block not in peer.blocks))
            self._places[place(left)] = left
            self.entries.add(left)

    def _take(self, entry: Entry) -> None:
        del self._places[place(entry)]
        self.entries.discard(entry)
        self._changes += 1

    def _missing(self, entry: Entry) -> str:
        name = interface_of(entry)
        if not name or any(name in ENDS[known] for known in self.devices):
            return ""
        if self.underlay is None or name != self.underlay.ifname:
            return "No such device"
        return "" if self.underlay.up else "Network is down"


def _is_exclusive(entry: Entry) -> bool:
    return isinstance(entry, Route | SegmentRoute | Rule | Address)


class FakeLeases:
    """Leases in this process. ``addresses``: those that containers have. ``there``: whether there is a store for them.
    ``broken``: why nobody can count them.
    """

    def __init__(
        self, pools: Iterable[Pool], situation: Callable[[Sequence[str], Used], object] = lambda own, used: used,
    ) -> None:
        self.addresses: set[str] = set()
        self.there = True
        self.broken = ""
        self._pools = tuple(pools)
        self._situation = situation
        self._own: Sequence[str] = ()
        self._told: object = None

    def used(self) -> Used | None:
        if self.broken:
            raise CniError(IO_FAILURE, self.broken)
        return self._count() if self.there else None

    def look(self) -> Used | None:
        return self.used()

    def attend(self, own: Sequence[str]) -> None:
        self._own, self._told = own, self._situation(own, self._count())

    def drain(self) -> bool:
        return not self.there or self._situation(self._own, self._count()) != self._told

    def _count(self) -> Used:
        found = (blocks.containing(pool, value) for pool in self._pools
                 for value in values(self.addresses, pool.family))
        return Counter(block for block in found if block is not None)


class FakeBird:
    """BIRD in this process.

    ``runs``: whether it does. ``includes``: its own configuration has the agent's file. ``broken``: what is wrong with
    its own configuration. ``written``: what was done to it, in order.
    """

    def __init__(self) -> None:
        self.runs = self.includes = self.bfd = True
        self.broken = ""
        self.kernels = {"master4", "master6"}
        self.file: str | None = None
        self.written: list[str] = []
        self._loaded: str | None = None

    def start(self) -> None:
        self.runs, self._loaded = True, self.file

    def stop(self) -> None:
        self.runs = False

    def running(self) -> Running | None:
        tag = tag_of(self._loaded or "") if self.includes else ""
        return Running(tag, frozenset(self.kernels), self.bfd) if self.runs else None

    def read(self) -> str | None:
        return self.file

    def check(self, text: str) -> None:
        if GARBAGE in text:
            raise CniError(INVALID_CONFIG, "BIRD refuses what the file would be, so it stays as it is", GARBAGE)

    def replace(self, text: str) -> None:
        self.written.append("replace")
        self.file = text

    def reload(self) -> bool:
        if self.broken or GARBAGE in (self.file or ""):
            raise CniError(INVALID_CONFIG, "BIRD refuses its configuration, and goes on with the one before",
                           self.broken or GARBAGE)
        self.written.append("reload")
        self._loaded = self.file
        return True
