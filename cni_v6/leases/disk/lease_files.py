"""The lease files: one for each leased address, in the reference plugin's format, and one for each delegated prefix."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import closing

from cni_v6.allocation import ranges
from cni_v6.allocation.ranges import RangeSet
from cni_v6.errors import CniError
from cni_v6.leases import records
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk.directory import Folder
from cni_v6.net.addresses import from_text, to_text
from cni_v6.protocol.names import Owner

NEW = ".new"
LAST = "last_reserved_ip."
PREFIXES = "prefixes"
REHEARSED = 4 * 4096  # bytes: record, lease file, and the allocator's files take a page each
PATIENCE = 1024  # candidates to look up one by one before all names are read; the folder may have a million


class LeaseFiles:
    """The lease files of one network.

    :param root: the network's folder.
    :param aside: the folder in which a file is written before it gets its name.
    """

    def __init__(self, root: Folder, aside: Folder) -> None:
        self._root = root
        self._aside = aside

    def content(self, address: str) -> bytes | None:
        """The content of an address's file; None if the address is free.

        Anything else than a regular file under that name holds the address too (``records.UNREADABLE``).
        """
        try:
            return self._root.read(address)
        except CniError:
            if self._root.is_plain(address):
                raise
            return records.UNREADABLE

    def holder(self, address: str) -> str | None:
        """See ``leases.store.Transaction``."""
        content = self.content(address)
        return None if content is None else records.lease_text(content)

    def refuse_taken(self, addresses: Iterable[str]) -> None:
        """
        :raises CniError: ADDRESS_UNAVAILABLE naming the holder of the first address that is taken.
        """
        for address in addresses:
            holder = self.holder(address)
            if holder is not None:
                raise records.unavailable(address, holder)

    def held(self, record: Attachment) -> tuple[str, ...]:
        """The record's addresses whose files name its owner. A DEL of the reference plugin may have freed others."""
        return tuple(address for address in record.addresses if self._holds(record.owner, address))

    def _holds(self, owner: Owner, address: str) -> bool:
        content = self.content(address)
        return content is not None and records.is_lease_of(owner, content)

    def untouched(self, record: Attachment, address: str) -> bool:
        """Whether an address's file is still the one that was written for the record."""
        status = self._root.stat(address)
        return status is not None and status.st_mtime_ns == records.lease_time(record)

    def free(self, family: int, chosen: Collection[str]) -> FirstFree:
        """A finder of free addresses.

        :param chosen: addresses to exclude, which are about to be leased.
        """
        return FirstFree(self._root, family, chosen)

    def give(self, attachment: Attachment, leased: list[str]) -> None:
        """Create the files of an attachment's addresses and prefixes.

        :param leased: gets each address as its file appears, so that a failure can be undone.
        """
        owner = attachment.owner
        self._aside.create(NEW, records.lease_content(owner), mtime=records.lease_time(attachment))
        for address in attachment.addresses:
            if not self._aside.link(NEW, self._root, address):
                raise records.unavailable(address, self.holder(address) or "")
            leased.append(address)
        self._aside.remove(NEW)
        if attachment.prefixes:
            with closing(self._root.child(PREFIXES)) as folder:
                for prefix in attachment.prefixes:
                    folder.create(records.prefix_name(prefix), records.prefix_content(owner))

    def last(self, index: int, family: int) -> int | None:
        """The address last handed out from a set; None if it is not recorded."""
        content = self._root.read_to_edit(f"{LAST}{index}") or b""
        try:
            last_family, value = from_text(content.decode().strip())
        except ValueError:
            return None
        return value if last_family == family else None

    def continue_from(self, index: int, address: str) -> bool:
        """Record the address last handed out from a set; whether a name was added to the folder for it."""
        content, name = address.encode(), f"{LAST}{index}"
        if self._root.overwrite(name, content):
            return False
        self._aside.create(NEW, content)
        self._aside.move(NEW, self._root, name)
        return True

    def rehearse(self) -> None:
        """See ``leases.store.Transaction``."""
        try:
            self._aside.create(NEW, bytes(REHEARSED))
        finally:
            self._aside.remove(NEW)

    def take_prefixes(self, record: Attachment) -> None:
        """Remove the files of the record's prefixes."""
        if record.prefixes:
            with closing(self._root.child(PREFIXES)) as folder:
                for prefix in record.prefixes:
                    folder.remove(records.prefix_name(prefix))

    def delegated(self, address: str) -> str | None:
        """See ``leases.store.Transaction``."""
        if not self._root.exists(PREFIXES):
            return None
        with closing(self._root.child(PREFIXES)) as folder:
            contents = (folder.read(records.prefix_name(prefix)) for prefix in records.around(address))
            return next((records.prefix_holder(content) for content in contents if content is not None), None)


class FirstFree:
    """Finds the first candidate without a lease file. After ``PATIENCE`` taken ones it reads all names, once."""

    def __init__(self, root: Folder, family: int, chosen: Collection[str]) -> None:
        self._root = root
        self._family = family
        self._chosen = chosen
        self._names: set[str] | None = None

    def names(self) -> set[str]:
        """All names in the folder."""
        if self._names is None:
            self._names = set(self._root.names())
        return self._names

    def taken(self, addresses: RangeSet) -> int:
        """Number of leased addresses of a set."""
        if ranges.size(addresses) > PATIENCE:
            return ranges.among(addresses, self.names())
        texts = (to_text(self._family, value) for value in ranges.candidates(addresses, None, False))
        return sum(map(self._root.exists, texts))

    def __call__(self, order: Iterator[int]) -> int | None:
        for count, value in enumerate(order):
            text = to_text(self._family, value)
            known = self.names() if count >= PATIENCE else self._names
            taken = self._root.exists(text) if known is None else text in known
            if not taken and text not in self._chosen:
                return value
        return None
