"""The queue of released addresses that may be reused: its protocol, and an implementation in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from cni_v6.allocation.ranges import RangeSet, origin
from cni_v6.net.addresses import from_text
from cni_v6.values import dataclass


@dataclass(frozen=True, slots=True)
class Released:
    """A released address in canonical form.

    ``time``: when it was released, in seconds since the epoch. ``mark``: a digest of its last holder's identity
    (``allocator.mark``); "" if the order is not stable.
    """

    address: str
    time: float
    mark: str = ""


class Queue(Protocol):
    """Released addresses of one family in the order of release. An address is in the queue once, and has no holder."""

    def __len__(self) -> int:
        """The number of entries; approximate after a power failure."""
        ...

    def __iter__(self) -> Iterator[Released]:
        """The entries, the oldest first. Entries are read lazily."""
        ...

    def find(self, address: str) -> Released | None:
        """The entry of an address. The time is linear in the length, so use it only off the front of the queue."""
        ...

    def append(self, entry: Released) -> None:
        """
        :raises CniError: STORE_FAILED.
        """
        ...

    def remove(self, entry: Released) -> None:
        """Remove an entry that ``__iter__`` or ``find`` returned. Do not call it while iterating.

        :raises CniError: STORE_FAILED.
        """
        ...


def count(queue: Queue, ranges: RangeSet) -> int:
    """How many entries are addresses of a set."""
    return sum(origin(ranges, *from_text(entry.address)) is not None for entry in queue)


class MemoryQueue:
    """See ``Queue``."""

    def __init__(self) -> None:
        self._entries: dict[str, Released] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Released]:
        yield from list(self._entries.values())

    def find(self, address: str) -> Released | None:
        return self._entries.get(address)

    def append(self, entry: Released) -> None:
        self._entries[entry.address] = entry

    def remove(self, entry: Released) -> None:
        self._entries.pop(entry.address, None)
