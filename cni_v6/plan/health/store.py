"""The lease stores: space, locks, damaged records, leaked attachments, addresses that run out. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cni_v6.planning.prefix_plan import YEAR
from cni_v6.planning.usage import Usage
from cni_v6.plan.health.finding import AMBER, GC, GREEN, RED, RELOAD, Finding, share

LEAST_BYTES, LOW_BYTES = 1 << 20, 64 << 20
LEAST_INODES, LOW_INODES = 64, 1024
SOON = 30 * 86400.0  # seconds
NEARLY = 90  # percent of a pool
MOST = 3  # names in one message


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system of a data folder; ``inodes`` -1 where it counts none."""

    data_dir: str
    free: int
    inodes: int
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """A lock of a network that was not free within the time: the process, 0 if it is unknown; whether it is stopped."""

    network: str
    path: str
    pid: int
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Pool:
    """A set of addresses, as text, and its use. ``waiting``: released addresses that can be given again."""

    network: str
    addresses: str
    usage: Usage
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """``damaged`` and ``blocked``: owners as text; ``stale``: with the reason; ``lost``: on the node without record."""

    disks: tuple[Disk, ...] = ()
    locks: tuple[Held, ...] = ()
    damaged: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    pools: tuple[Pool, ...] = ()


def findings(facts: StoreFacts) -> Iterator[Finding]:
    """All of them, green ones too."""
    for check, found, good in (
        ("store", _disks(facts.disks), "there is room for leases"),
        ("locks", _locks(facts.locks), "nobody holds one for long"),
        ("records", _records(facts), "every attachment has its record, and none is damaged"),
        ("leaks", _leaks(facts.stale), "no attachment of a container that has ended"),
        ("addresses", _pools(facts.pools), "no pool runs dry"),
    ):
        problems = list(found)
        yield from problems or [Finding(GREEN, check, good)]


def some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST:,} more" if len(names) > MOST else ""
    return ", ".join(names[:MOST]) + more


def _disks(disks: Sequence[Disk]) -> Iterator[Finding]:
    for disk in disks:
        why = f"an ADD writes its leases to {disk.data_dir}"
        if disk.read_only:
            yield Finding(RED, "store", f"the file system of {disk.data_dir} is read-only", why,
                          "mount -o remount,rw; dmesg says why it is read-only")
        if disk.free < LOW_BYTES:
            level = RED if disk.free < LEAST_BYTES else AMBER
            left = f"{disk.free >> 10:,} KiB are free on the file system of {disk.data_dir}"
            yield Finding(level, "store", left, why, "free some space there")
        if 0 <= disk.inodes < LOW_INODES:
            level = RED if disk.inodes < LEAST_INODES else AMBER
            yield Finding(level, "store", f"{disk.inodes:,} inodes are free on the file system of {disk.data_dir}", why,
                          "remove files there, or make a file system with more inodes")


def _locks(locks: Sequence[Held]) -> Iterator[Finding]:
    for held in locks:
        who = f"process {held.pid}" if held.pid else "a process that /proc/locks does not name"
        state = ", which is stopped," if held.stopped else ""
        remedy = f"kill -CONT {held.pid}" if held.stopped else f"fuser -v {held.path}; end it if it hangs"
        yield Finding(RED, "locks", f"{who}{state} holds the lock of network {held.network}",
                      "ADD and DEL of this network wait for it, and fail after 30 s", remedy)


def _records(facts: StoreFacts) -> Iterator[Finding]:
    if facts.damaged:
        yield Finding(AMBER, "records", f"damaged: {some(facts.damaged)}",
                      "the firewall knows these containers until its tables are loaded again",
                      "cni-v6ctl reload makes the records anew; look at the disk's health (dmesg)", RELOAD)
    if facts.blocked:
        yield Finding(RED, "records", f"blocked: {some(facts.blocked)}",
                      "their records were damaged, and nothing says what they may do", "run DEL and ADD for them")
    if facts.lost:
        yield Finding(RED, "records", f"on the node, and without a record: {some(facts.lost)}",
                      "their addresses can be given again, and once the firewall is flushed nobody knows what they may",
                      "call STATUS of their network, or its next ADD: it makes the records anew")


def _leaks(stale: Sequence[str]) -> Iterator[Finding]:
    if stale:
        yield Finding(AMBER, "leaks", f"{len(stale):,} ended without a DEL: {some(stale)}",
                      "they hold their addresses", "cni-v6ctl gc", GC)


def _pools(pools: Sequence[Pool]) -> Iterator[Finding]:
    for pool in pools:
        use = pool.usage
        seconds = float(use.years * YEAR) if use.years is not None and use.once else None
        taken = use.size - use.left
        if not use.left:
            yield Finding(RED, "addresses", f"{pool.network} has no address left of {pool.addresses}",
                          "an ADD fails with code 101", "cni-v6ctl gc, or add a range")
        elif share(taken, use.size) >= NEARLY:
            yield Finding(AMBER, "addresses", f"{pool.network} has {use.left:,} of {use.size:,} addresses left",
                          f"soon an ADD fails with code 101: {pool.addresses}", "cni-v6ctl gc, or add a range")
        elif seconds is not None and seconds < SOON:
            yield Finding(AMBER, "addresses", f"{pool.network}: {pool.addresses} lasts {seconds / 86400:.0f} days more",
                          "it gives no address twice, and is used up at the present rate",
                          "a larger range, or \"reuse\": \"after\"")
