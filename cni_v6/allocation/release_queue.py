"""Addresses that were released and may be given again: the protocol of their queue, and the one without a disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Released:
    """An address, canonical, and when it was released, in seconds since the epoch.

    ``mark``: whose it was, a digest that knows its own again (``allocator.mark``); "" where that does not matter.
    """

    address: str
    time: float
    mark: str = ""


class Queue(Protocol):
    """Released addresses of one family, each at most once and only while nobody holds it, in the order of release."""

    def __len__(self) -> int:
        """How many there are, or about as many after a power failure."""
        ...

    def __iter__(self) -> Iterator[Released]:
        """The oldest first; whoever stops early has not paid for the rest."""
        ...

    def find(self, address: str) -> Released | None:
        """Linear in the length, though fast: for addresses that did not come from the front."""
        ...

    def append(self, one: Released) -> None:
        """
        :raises CniError: STORE_FAILED.
        """
        ...

    def remove(self, one: Released) -> None:
        """Take out what ``__iter__`` or ``find`` gave; not while iterating.

        :raises CniError: STORE_FAILED.
        """
        ...


class MemoryQueue:
    """See ``Queue``."""

    def __init__(self) -> None:
        self._all: dict[str, Released] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Released]:
        yield from list(self._all.values())

    def find(self, address: str) -> Released | None:
        return self._all.get(address)

    def append(self, one: Released) -> None:
        self._all[one.address] = one

    def remove(self, one: Released) -> None:
        self._all.pop(one.address, None)
