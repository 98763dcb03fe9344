"""Containers that come and go on one set, as fast as the library can: ``turnover.py LIBRARY``, run by ``scale``.

No executable, no engine, no kernel. Prints what an ADD with its DEL takes as time goes on, and whether an address came
twice.
"""

from __future__ import annotations

import json
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [sys.argv[1], str(Path(__file__).resolve().parents[2])]

from cni_v6.allocation.policy import AllocationPolicy  # noqa: E402
from cni_v6.allocation.ranges import RangeSet
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk.store import DiskLeases  # noqa: E402
from cni_v6.leases.store import Leases  # noqa: E402
from cni_v6.net.addresses import from_text  # noqa: E402
from tests.bench.figures import median  # noqa: E402
from tests.stores import BOOT, owner, pool  # noqa: E402

ALIVE = 100  # containers at a time: each ADD is followed by the DEL of the one that has been there longest
BLOCKS = 100  # at most, of a run; a plot has a point for each
BLOCK = 10_000  # at most
HOST_BITS = (1 << 64) - 1


def turn_over(
    leases: Leases, addresses: RangeSet, policy: AllocationPolicy, count: int
) -> tuple[array[int], array[int]]:
    """So many ADDs, each with a DEL: nanoseconds of each pair, and the addresses' host parts, 16 bytes in all."""
    taken, given = array("Q"), array("Q")
    ways = (policy.reuse_mode(addresses),)
    for number in range(count):
        begin = time.perf_counter_ns()
        with leases.transaction() as work:
            address = work.choose(0, addresses, policy)
            work.put(Attachment(owner(f"c{number}"), (address,), f"veth{number}", (4, 17), time.time(), BOOT,
                                reuse=ways))
        if number >= ALIVE:
            with leases.transaction() as work:
                work.drop(owner(f"c{number - ALIVE}"))
        taken.append(time.perf_counter_ns() - begin)
        given.append(from_text(address)[1] & HOST_BITS)
    return taken, given


def repeated(given: Sequence[int]) -> int:
    """How many of these are there that were there before."""
    ordered = array("Q", sorted(given))
    return sum(one == other for one, other in zip(ordered, ordered[1:]))


def blocks(taken: Sequence[int]) -> Iterator[tuple[int, float]]:
    """(how many pairs there were by then, median of a block in microseconds)."""
    size = min(BLOCK, -(-len(taken) // BLOCKS))
    for end in range(size, len(taken) + 1, size):
        yield end, median(taken[end - size:end]) / 1e3


def main() -> None:
    asked = json.load(sys.stdin)
    leases = DiskLeases(asked["network"], asked["folder"], boot=BOOT)
    taken, given = turn_over(leases, pool(asked["subnet"]), AllocationPolicy(order=asked["order"]), asked["count"])
    tenth = max(1, len(taken) // 10)
    print(json.dumps({
        "first": median(taken[:tenth]) / 1e3, "last": median(taken[-tenth:]) / 1e3, "seconds": sum(taken) / 1e9,
        "repeated": repeated(given), "curve": list(blocks(taken)),
    }))


if __name__ == "__main__":
    main()
