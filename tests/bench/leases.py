"""What a reservation and a release cost with ever more leases in the store: ``python -m tests.bench.leases [folder]``.

Run by hand; the folder decides on which file system. Ours only, in this process: no interpreter start, no kernel.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable

from cni_v6.store import DiskLeases
from tests.stores import BOOT, LARGE, NETWORK, add, delete, pool

STEPS = (0, 1_000, 10_000, 100_000)
SAMPLES = 500
IPV4 = pool("10.0.0.0/8")


def timed(step: Callable[[], object]) -> float:
    """Microseconds that a step takes."""
    begin = time.perf_counter()
    step()
    return (time.perf_counter() - begin) * 1e6


def main(folder: str | None) -> None:
    """Print a line for each number of leases."""
    with tempfile.TemporaryDirectory(dir=folder) as data:
        leases, there = DiskLeases(NETWORK, data, boot=BOOT), 0
        print("microseconds, an address of each family")
        print(f"{'leases':>8} {'reserve p50':>12} {'p95':>6} {'release p50':>12} {'p95':>6}")
        for count in STEPS:
            for number in range(there, count):
                add(leases, f"stays{number}", IPV4, LARGE)
            there = count
            reserve, release = [], []
            for number in range(SAMPLES):
                reserve.append(timed(lambda name=f"c{number}": add(leases, name, IPV4, LARGE)))  # type: ignore[misc]
                release.append(timed(lambda name=f"c{number}": delete(leases, name)))  # type: ignore[misc]
            print(f"{count:>8} {_cells(reserve)} {_cells(release)}", flush=True)


def _cells(samples: list[float]) -> str:
    return f"{statistics.median(samples):>12.0f} {statistics.quantiles(samples, n=20)[-1]:>6.0f}"


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
