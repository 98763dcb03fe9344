"""The allocator's state of a network as files in ``cursors/``. Used while the network's lock is held.

| file | content |
|---|---|
| ``spent``, ``spent4`` | used and reserved addresses of sets without reuse; synced (``allocation_json.encode_spent``) |
| ``open``, ``open4`` | the rest of the reserved addresses; valid in this boot |
| ``round``, ``round4`` | addresses that sequential sets with reuse have handed out in this round |
| ``released``, ``released4`` | released addresses that may be reused, the oldest first (``release_queue_file``) |
| ``secret`` | the secret key of stable addresses, if the configuration names none; synced |

Names without a digit are for IPv6, names with a 4 for IPv4.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress

from cni_v6.allocation import allocator
from cni_v6.allocation.allocator import AllocatorState
from cni_v6.allocation.policy import AFTER, NEVER
from cni_v6.allocation.used import UsedAddresses
from cni_v6.errors import STORE_FAILED, CniError
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk import allocation_json
from cni_v6.leases.disk.directory import Folder, identity
from cni_v6.leases.disk.release_queue_file import QueueFile
from cni_v6.net.addresses import from_text
from cni_v6.net.intervals import Span
from cni_v6.values import dataclass

FOLDER = "cursors"
NEW = ".new"
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class _Saved:
    """The contents of a family's files."""

    used: UsedAddresses
    round: tuple[Span, ...]


class AllocatorFiles:
    """The state of both families. Files are opened when they are needed: most releases need none.

    :param boot: this boot's id.
    :param now: returns seconds since the epoch.
    """

    def __init__(self, root: Folder, *, boot: str, now: Callable[[], float]) -> None:
        self._root = root
        self._boot = boot
        self._now = now
        self._folder: Folder | None = None
        self._states: dict[int, tuple[AllocatorState, QueueFile]] = {}
        self._saved: dict[int, _Saved] = {}
        self._identities: dict[int, int] = {}  # of the ``spent`` files: a copy in a file's place has another one

    def close(self) -> None:
        """Close the descriptors."""
        for _, queue in self._states.values():
            queue.close()
        if self._folder:
            self._folder.close()

    def of(self, family: int) -> AllocatorState:
        """The state of a family. Call ``save`` after a change.

        :raises CniError: STORE_FAILED.
        """
        if family not in self._states:
            used = self._read_used(family)
            content = self._cursors().read_to_edit(_name("round", family))
            in_round = allocation_json.decode_round(content, family) if content else ()
            queue = QueueFile(self._cursors(), _name("released", family), NEW)
            self._saved[family] = _Saved(used, in_round)
            self._states[family] = AllocatorState(used, in_round, queue), queue
        return self._states[family][0]

    def save(self, family: int, now: float) -> None:
        """Write what has changed. When this returns, the addresses of sets without reuse are on the disk.

        :param now: seconds since the epoch.
        """
        state, saved = self._states[family][0], self._saved[family]
        if state.used.durable() != saved.used.durable():
            state.used = state.used.written(now)
            folder = self._cursors()
            folder.create(NEW, allocation_json.encode_spent(state.used, family), sync=True)
            folder.move(NEW, folder, _name("spent", family))
            folder.flush()
            self._identities[family] = self._identity(family)
        if state.used != saved.used:
            content = allocation_json.encode_open(state.used, family, self._boot, self._identities.get(family, 0))
            self._overwrite(_name("open", family), content)
        if state.round != saved.round:
            self._overwrite(_name("round", family), allocation_json.encode_round(state.round, family))
        state.change_queue()
        self._saved[family] = _Saved(state.used, state.round)

    def _reuse_modes(self, record: Attachment) -> Iterator[tuple[str, str]]:
        """Each address of a record with its reuse mode. Without one in the record, a used address is never reused."""
        for text in record.addresses:
            family, value = from_text(text)
            yield text, record.reuse_mode(text) or (NEVER if self.of(family).used.has(value) else AFTER)

    def mark_used(self, attachment: Attachment, chosen: Collection[str], now: float) -> None:
        """Mark requested addresses of sets without reuse as used. ``choose`` has marked the chosen ones already.

        :param chosen: addresses that the allocator chose.
        """
        for text, mode in self._reuse_modes(attachment):
            if mode == NEVER and text not in chosen:
                family, value = from_text(text)
                allocator.mark_used(self.of(family), value)
                self.save(family, now)

    def mark_held(self, attachment: Attachment, chosen: Mapping[str, bool], now: float) -> None:
        """Note that the addresses of sets with reuse have a holder.

        :param chosen: the chosen addresses, and whether each was in the queue. A requested address may be in it.
        """
        for text, mode in self._reuse_modes(attachment):
            if mode != NEVER:
                family, value = from_text(text)
                allocator.mark_held(
                    self.of(family), family, value, waiting=chosen.get(text, True), in_round=mode == AFTER
                )
                self.save(family, now)

    def release(
        self, record: Attachment, addresses: Collection[str], now: float, *,
        is_held: Callable[[str], bool] | None = None,
    ) -> None:
        """Put those addresses of a record whose sets reuse them into the queue.

        :param is_held: tests whether an address has another holder by now. If it is given, addresses with a holder and
            addresses in the queue are skipped. None: neither is possible.
        """
        for text, mode in self._reuse_modes(record) if addresses else ():
            if mode == NEVER or text not in addresses:
                continue
            family, value = from_text(text)
            state = self.of(family)
            if is_held and (is_held(text) or state.queue.find(text)):
                continue
            allocator.release(state, family, value, now=now, identity=record.identity, in_round=mode == AFTER)
            self.save(family, now)

    def recover(self, leased: Iterable[str], now: float) -> None:
        """Recover addresses whose queue entries a power failure has lost (``allocator.recover``).

        :param leased: names in the network's folder, addresses among them.
        """
        names = list(leased)
        for family in (4, 6):
            with suppress(CniError):  # damaged state must fail only the calls that need this family
                state = self.of(family)
                if state.round:
                    allocator.recover(state, family, names, now)
                    self.save(family, now)

    def secret(self) -> bytes:
        """This network's secret key, created by the first call."""
        folder = self._cursors()
        content = folder.read("secret")
        if content:
            return content
        secret = os.urandom(SECRET_BYTES).hex().encode()
        folder.create(NEW, secret, sync=True)
        folder.move(NEW, folder, "secret")
        folder.flush()
        return secret

    def _cursors(self) -> Folder:
        if self._folder is None:
            self._folder = self._root.child(FOLDER)
        return self._folder

    def _read_used(self, family: int) -> UsedAddresses:
        folder, name = self._cursors(), _name("spent", family)
        found = folder.read_identified(name)
        if found is None:
            return UsedAddresses()
        content, self._identities[family] = found
        opened = folder.read_to_edit(_name("open", family)) or b""
        try:
            file = self._identities[family]
            return allocation_json.decode(content, opened, family, self._boot, file, self._now())
        except ValueError as error:
            raise CniError(STORE_FAILED, f"lease store: {folder.path}/{name} is damaged",
                           "restore it; without it addresses of large sets can be handed out again") from error

    def _identity(self, family: int) -> int:
        status = self._cursors().stat(_name("spent", family))
        return identity(status) if status else 0

    def _overwrite(self, name: str, content: bytes) -> None:
        folder = self._cursors()
        if not folder.overwrite(name, content):
            folder.create(NEW, content)
            folder.move(NEW, folder, name)


def _name(name: str, family: int) -> str:
    return name if family == 6 else f"{name}{family}"
