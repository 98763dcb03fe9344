"""The allocator's state of a network as files in ``cursors/``, for as long as the lock is held.

| file | content |
|---|---|
| ``spent``, ``spent4`` | what IPv6 and IPv4 sets gave for good or reserved; synced (``allocation_json.encode_spent``) |
| ``open``, ``open4`` | how much of what they reserved is left, in this boot |
| ``round``, ``round4`` | what sets that go round have given in this round |
| ``released``, ``released4`` | addresses that were released and are given again, oldest first (``releasedfile``) |
| ``secret`` | what stable addresses are derived with, where the configuration names none; synced |
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from cni_v6.allocation import allocator
from cni_v6.allocation.allocator import AllocatorState
from cni_v6.allocation.policy import AFTER, NEVER
from cni_v6.allocation.used import UsedAddresses
from cni_v6.errors import STORE_FAILED, CniError
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk import allocation_json
from cni_v6.leases.disk.directory import Folder
from cni_v6.leases.disk.release_queue_file import QueueFile
from cni_v6.net.addresses import from_text
from cni_v6.net.intervals import Span

FOLDER = "cursors"
NEW = ".new"
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class _Saved:
    """What the files of a family say."""

    spent: UsedAddresses
    round: tuple[Span, ...]


class AllocatorFiles:
    """Opened at the first question: to free an address that is given once asks none.

    :param boot: this boot's id.
    :param now: seconds since the epoch.
    """

    def __init__(self, root: Folder, *, boot: str, now: Callable[[], float]) -> None:
        self._root = root
        self._boot = boot
        self._now = now
        self._folder: Folder | None = None
        self._books: dict[int, tuple[AllocatorState, QueueFile]] = {}
        self._saved: dict[int, _Saved] = {}
        self._files: dict[int, int] = {}  # the inodes of what is spent: a copy put in a file's place has another

    def close(self) -> None:
        """Give the descriptors back."""
        for _, queue in self._books.values():
            queue.close()
        if self._folder:
            self._folder.close()

    def of(self, family: int) -> AllocatorState:
        """What is kept of a family's addresses; ``save`` once it was changed.

        :raises CniError: STORE_FAILED.
        """
        if family not in self._books:
            spent = self._spent(family)
            content = self._cursors().read(_name("round", family))
            given = allocation_json.decode_round(content, family) if content else ()
            queue = QueueFile(self._cursors(), _name("released", family), NEW)
            self._saved[family] = _Saved(spent, given)
            self._books[family] = AllocatorState(spent, given, queue), queue
        return self._books[family][0]

    def save(self, family: int, now: float) -> None:
        """Write what has changed; what was given for good is on the disk when this returns.

        :param now: seconds since the epoch.
        """
        books, saved = self._books[family][0], self._saved[family]
        if books.spent.durable() != saved.spent.durable():
            books.spent = books.spent.written(now)
            folder = self._cursors()
            folder.create(NEW, allocation_json.encode_spent(books.spent, family), sync=True)
            folder.move(NEW, folder, _name("spent", family))
            folder.flush()
            self._files[family] = self._inode(family)
        if books.spent != saved.spent:
            content = allocation_json.encode_open(books.spent, family, self._boot, self._files.get(family, 0))
            self._overwrite(_name("open", family), content)
        if books.round != saved.round:
            self._overwrite(_name("round", family), allocation_json.encode_round(books.round, family))
        books.change_queue()
        self._saved[family] = _Saved(books.spent, books.round)

    def ways(self, record: Attachment) -> Iterator[tuple[str, str]]:
        """Each address with how its set gives it again. Where the record does not know, what is spent is given once."""
        for text in record.addresses:
            family, value = from_text(text)
            yield text, record.reuse_mode(text) or (NEVER if self.of(family).spent.has(value) else AFTER)

    def spend(self, attachment: Attachment, chosen: Collection[str], now: float) -> None:
        """Those of its addresses that were asked for, not chosen, of sets that give none twice."""
        for text, way in self.ways(attachment):
            if way == NEVER and text not in chosen:
                family, value = from_text(text)
                allocator.spend(self.of(family), value)
                self.save(family, now)

    def enter(self, attachment: Attachment, chosen: Mapping[str, bool], now: float) -> None:
        """Those of its addresses that are given again are somebody's.

        :param chosen: whether they wait in the queue; of those that were asked for, nobody knows.
        """
        for text, way in self.ways(attachment):
            if way != NEVER:
                family, value = from_text(text)
                allocator.enter(self.of(family), family, value, waiting=chosen.get(text, True), in_round=way == AFTER)
                self.save(family, now)

    def give_back(
        self, record: Attachment, addresses: Collection[str], now: float, *,
        unsure: Callable[[str], bool] | None = None,
    ) -> None:
        """Account for those of a record's addresses that are given again.

        :param unsure: they may have been accounted for, or are another's by now, which this tells; None: neither.
        """
        for text, way in self.ways(record) if addresses else ():
            if way == NEVER or text not in addresses:
                continue
            family, value = from_text(text)
            books = self.of(family)
            if unsure and (unsure(text) or books.queue.find(text)):
                continue
            allocator.give_back(books, family, value, now=now, identity=record.identity, in_round=way == AFTER)
            self.save(family, now)

    def recover(self, leased: Iterable[str], now: float) -> None:
        """Addresses of this round that are neither held nor waiting, since a power failure took the end of the queue:
        they wait from now on; where there are very many, they are left to the round as if it had not had them.

        :param leased: names of the network's folder, addresses among them.
        """
        names = list(leased)
        for family in (4, 6):
            with suppress(CniError):  # what is damaged keeps those from working who ask for it, and nobody else
                books = self.of(family)
                if books.round:
                    allocator.recover(books, family, names, now)
                    self.save(family, now)

    def secret(self) -> bytes:
        """This network's own, made at the first call."""
        folder = self._cursors()
        found = folder.read("secret")
        if found:
            return found
        secret = os.urandom(SECRET_BYTES).hex().encode()
        folder.create(NEW, secret, sync=True)
        folder.move(NEW, folder, "secret")
        folder.flush()
        return secret

    def _cursors(self) -> Folder:
        if self._folder is None:
            self._folder = self._root.child(FOLDER)
        return self._folder

    def _spent(self, family: int) -> UsedAddresses:
        folder, name = self._cursors(), _name("spent", family)
        content = folder.read(name)
        if content is None:
            return UsedAddresses()
        self._files[family] = self._inode(family)
        opened = folder.read(_name("open", family)) or b""
        try:
            return allocation_json.decode(content, opened, family, self._boot, self._files[family], self._now())
        except ValueError as error:
            raise CniError(STORE_FAILED, f"lease store: {folder.path}/{name} is damaged",
                           "restore it; without it addresses of large sets can be handed out again") from error

    def _inode(self, family: int) -> int:
        found = self._cursors().stat(_name("spent", family))
        return found.st_ino if found else 0

    def _overwrite(self, name: str, content: bytes) -> None:
        folder = self._cursors()
        if not folder.overwrite(name, content):
            folder.create(NEW, content)
            folder.move(NEW, folder, name)


def _name(name: str, family: int) -> str:
    return name if family == 6 else f"{name}{family}"
