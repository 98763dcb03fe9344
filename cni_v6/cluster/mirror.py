"""A copy of a store's objects, kept up to date by a watch: what the agent reads instead of asking the server each time.

One thread hears of changes and writes the copy; another one reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Condition

from cni_v6.errors import DECODING_FAILURE, CniError

MOST_CHARACTERS = 1 << 26  # of all keys and texts: more than 100,000 nodes have


class Forgotten(Exception):
    """The server does not tell any more what has changed since a revision."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An object: its text, and the revision of its last change. Bytes that are not UTF-8 are replaced in the text."""

    text: str
    revision: int


@dataclass(frozen=True, slots=True)
class Event:
    """An object has this text since a revision; None: it was deleted."""

    key: str
    text: str | None
    revision: int


class Mirror:
    """The objects at one revision of the store. Until the first ``replace`` and after ``forget`` there are none."""

    def __init__(self) -> None:
        self._objects: dict[str, Kept] = {}
        self._length = 0  # of their keys and texts, in characters
        self._revision: int | None = None
        self._following = False
        self._ended = False
        self._changed = Condition()

    def replace(self, objects: Mapping[str, Kept], revision: int) -> None:
        """All objects, as they were at a revision. An older answer than what is known changes nothing."""
        with self._changed:
            if self._revision is None or revision >= self._revision:
                self._objects, self._revision = dict(objects), revision
                self._length = sum(len(key) + len(kept.text) for key, kept in objects.items())
                self._changed.notify_all()

    def apply(self, events: Sequence[Event], revision: int) -> bool:
        """What a watch tells of, in order, and the revision up to which that is all; whether any of it is new.

        A read from the server may have been faster: what is known already is left out.

        :raises CniError: DECODING_FAILURE: nobody needs so much.
        """
        with self._changed:
            if self._revision is None or revision <= self._revision:
                return False
            new = False
            for event in events:
                if event.revision > self._revision:
                    new = self._set(event) or new
            if self._length > MOST_CHARACTERS:
                raise CniError(DECODING_FAILURE, f"the store has more than {MOST_CHARACTERS} characters")
            self._revision = revision
            self._changed.notify_all()
            return new

    def _set(self, event: Event) -> bool:
        before = self._objects.pop(event.key, None)
        if before:
            self._length -= len(event.key) + len(before.text)
        if event.text is not None:
            self._objects[event.key] = Kept(event.text, event.revision)
            self._length += len(event.key) + len(event.text)
        return event.text != (before.text if before else None)

    def follow(self, following: bool) -> None:
        """Whether a watch goes on from the revision of the copy."""
        with self._changed:
            self._following = following
            self._changed.notify_all()

    def forget(self) -> None:
        """The store does not tell any more what has changed since: all objects must be read again."""
        with self._changed:
            self._objects, self._length, self._revision, self._following = {}, 0, None, False

    def end(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def start(self) -> int | None:
        """Wait until there are objects; their revision, None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._revision is not None)
            return None if self._ended else self._revision

    def read(self, least: int, seconds: float) -> dict[str, Kept] | None:
        """The objects at a revision or later; None if no watch goes on or it does not come so far in time."""
        with self._changed:
            self._changed.wait_for(lambda: not self._following or self._reaches(least), seconds)
            return dict(self._objects) if self._following and self._reaches(least) else None

    def _reaches(self, least: int) -> bool:
        return self._revision is not None and self._revision >= least
