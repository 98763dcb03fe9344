"""A network's folder with as many leases as asked for, written at once: file for file what the store would write.

A million ADDs would take a quarter of an hour. All is written within one transaction of the store, under its lock, so
that the store takes it for its own and walks nothing; whether it does, and whether it reads back what was meant, is
asked of a sample.
"""

from __future__ import annotations

import os
from pathlib import Path

from cni_v6.allocation.policy import AFTER, DEFAULT
from cni_v6.leases import records
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk import allocation_json
from cni_v6.leases.disk.allocation_files import FOLDER
from cni_v6.leases.disk.known_records import KnownRecords
from cni_v6.leases.disk.directory import FILE_MODE
from cni_v6.leases.disk.store import ATTACHMENTS, DiskLeases
from cni_v6.leases.disk.lease_files import LAST
from cni_v6.leases.store import Transaction
from cni_v6.net.addresses import from_text, to_text
from cni_v6.protocol.names import Owner
from tests.killed_processes import listings
from tests.stores import pool

SUBNETS = ("10.0.0.0/8", "fd00:88::/64")
SETS = tuple(map(pool, SUBNETS))
WAYS = tuple(map(DEFAULT.reuse_mode, SETS))
SAMPLE = 100
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL

Files = dict[str, tuple[bytes, int, int, int]]  # name below the network's folder -> content, mode, links, mtime


class Filled:
    """A network whose attachments are ``attachment(0)`` and so on, an address of each family.

    :param boot: this boot's id, as whoever uses the folder has it.
    """

    def __init__(self, network: str, data_dir: str, boot: str) -> None:
        self.leases = DiskLeases(network, data_dir, boot=boot, known=KnownRecords())
        self.folder = Path(data_dir, network)
        self._network = network
        self._boot = boot

    def attachment(self, number: int) -> Attachment:
        addresses = tuple(to_text(each.family, each.ranges[0].first + 1 + number) for each in SETS)
        owner = Owner(self._network, f"stays{number}", "eth0")
        return Attachment(owner, addresses, f"veth{number}", (4, 4026531840 + number), 1.7e9 + number / 8, self._boot,
                          reuse=WAYS)

    def fill(self, leases: int) -> None:
        """Write so many leases, half of each family, into a network that has none yet.

        :raises RuntimeError: what was written is not what the store would have.
        """
        count = leases // 2
        with self.leases.transaction() as work:
            if count:
                self._compare(work)
            for number in range(1, count):
                self._write(self.attachment(number))
        if count:
            self._move_cursors(count)
        with self.leases.transaction() as work:  # the store's own account of what is spent follows
            for index, each in enumerate(SETS):
                expected = from_text(self.attachment(count).addresses[index])
                if from_text(work.choose(index, each)) != expected:
                    raise RuntimeError(f"set {index} does not go on behind its {count:,} leases")
        self.check(count)

    def check(self, count: int) -> None:
        """A sample, read through the store, is what was meant, and no folder is walked for it."""
        numbers = range(0, count, max(1, count // SAMPLE))
        if walked := listings(lambda: self._read_back(numbers)):
            raise RuntimeError(f"{walked} folders were read to find what was written")

    def _read_back(self, numbers: range) -> None:
        with self.leases.transaction() as work:
            for meant in map(self.attachment, numbers):
                if work.get(meant.owner) != meant:
                    raise RuntimeError(f"not as written: {work.get(meant.owner)}")
                holders = {work.holder(address) for address in meant.addresses}
                if holders != {f"{meant.owner.container_id} {meant.owner.ifname}"}:
                    raise RuntimeError(f"{meant.addresses} are held by {holders}")

    def _move_cursors(self, count: int) -> None:
        """What was handed out last, and what the set that goes round has handed out."""
        last = self.attachment(count - 1).addresses
        for index, (address, way) in enumerate(zip(last, WAYS)):
            (self.folder / f"{LAST}{index}").write_text(address, encoding="ascii")
            if way == AFTER:
                family, value = from_text(address)
                content = allocation_json.encode_round(((value - count + 1, value),), family)
                (self.folder / FOLDER / ("round" if family == 6 else f"round{family}")).write_bytes(content)

    def _compare(self, work: Transaction) -> None:
        """The first attachment, made by the store as by an ADD, and then as all the others."""
        first = self.attachment(0)
        chosen = tuple(work.choose(index, each) for index, each in enumerate(SETS))
        if chosen != first.addresses:
            raise RuntimeError(f"{chosen} are the first addresses, not {first.addresses}")
        work.put(first)
        theirs = self._files(first)
        work.drop(first.owner)
        self._write(first)
        if self._files(first) != theirs:
            raise RuntimeError(f"{self._files(first)} in the place of {theirs}")

    def _files(self, attachment: Attachment) -> Files:
        found = {}
        for name in (*attachment.addresses, self._record(attachment)):
            path = self.folder / name
            status = path.stat()
            time = 0 if name.startswith(ATTACHMENTS) else status.st_mtime_ns  # the record's own says nothing
            found[name] = path.read_bytes(), status.st_mode, status.st_nlink, time
        return found

    def _write(self, attachment: Attachment) -> None:
        """The store writes aside, then links or renames; what is there in the end is the same."""
        first, *others = (f"{self.folder}/{address}" for address in attachment.addresses)
        _create(first, records.lease_content(attachment.owner))
        os.utime(first, ns=(time := records.lease_time(attachment), time))
        for other in others:
            os.link(first, other)
        _create(f"{self.folder}/{self._record(attachment)}", records.encode(attachment))

    def _record(self, attachment: Attachment) -> str:
        return f"{ATTACHMENTS}/{records.record_name(attachment.owner.container_id, attachment.owner.ifname)}"


def _create(path: str, content: bytes) -> None:
    file = os.open(path, NEW_FILE, FILE_MODE)
    os.write(file, content)
    os.close(file)
