"""cni-v6 side by side with the reference plugins. ``make bench`` runs it; see docs/benchmarks/README.md."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.bench import (
    attach,
    carriers,
    cluster,
    collect,
    density,
    firewall,
    flowtable,
    guard,
    inside,
    ipam,
    node,
    paths,
    peers,
    plots,
    pods,
    report,
    routed,
    scale,
    start,
)
from tests.bench.figures import Findings, as_text, matrix
from tests.bench.setting import FULL, ORDERS, QUICK, Setting

ROOT = Path(__file__).resolve().parents[2]
DOCS, BUILD = ROOT / "docs" / "benchmarks", ROOT / "build" / "benchmarks"
LONG_SOAK = 100_000
LONG_CHURN = 1_000_000
LONG_CHAOS = 60  # minutes

SCENARIOS: dict[str, Callable[[Setting, Findings], None]] = {
    "sequential": attach.sequential,
    "bursts": attach.bursts,
    "masquerade": firewall.masquerade,
    "masquerade-bursts": firewall.bursts,
    "ports": firewall.ports,
    "price": firewall.price,
    "many": firewall.many,
    "mixed": attach.mixed,
    "routed": routed.sequential,
    "paths": paths.paths,
    "density": density.density,
    "leases": ipam.leases,
    "library": scale.library,
    "memory": scale.memory,
    "churn": scale.churn,
    "garbage": collect.garbage,
    "cold": attach.cold,
    "boot": pods.boot,
    "starts": pods.starts,
    "bridges": pods.bridges,
    "newest": pods.newest,
    "netavark": firewall.netavark,
    "shim": start.shim,
    "python": start.python,
    "alone": start.alone,
    "own": inside.own,
    "soak": inside.soak,
    "chaos": inside.chaos,
}
# What decided something, and is not measured again each time: only where it is named.
ASKED: dict[str, Callable[[Setting, Findings], None]] = {
    "carriers": carriers.carriers, "cluster": cluster.cluster, "flowtable": flowtable.flowtable, "guard": guard.parts,
    "own-parts": inside.parts,
}


def main() -> int:
    """Run the scenarios; print the table; write it down."""
    options = _options()
    if not node.in_sandbox():
        sys.exit("refused: this changes the network of the node it runs on. Run it as:  make bench")
    sizes = QUICK if options.quick else FULL
    sizes = replace(sizes, soak=LONG_SOAK, churn=LONG_CHURN, chaos=LONG_CHAOS) if options.soak else sizes
    found = Findings()
    with _plugins(options.bin) as (folder, library):
        orders = tuple(options.order or ORDERS)
        ours = peers.ours(folder)
        shim = peers.by_python(ours, library)
        setting = Setting(ours, shim, peers.reference(options.peer), library, sizes, orders, peers.newest())
        facts = report.machine(library, setting.shim, setting.peer)
        print("; ".join(f"{key} {value}" for key, value in facts.items()), flush=True)
        for name in options.only or SCENARIOS:
            _run(name, setting, found)
    print("\n" + as_text(found.rows))
    for title, figures in found.ways.items():
        print("\n" + matrix(title, figures))
    _write(found, facts, options)
    for failure in found.failures:
        print(f"FAILED  {failure}")
    return 1 if found.failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--quick", action="store_true", help="few samples: under a minute, for development")
    parser.add_argument("--soak", action="store_true", help=f"{LONG_SOAK:,} ADD and DEL in the soak, {LONG_CHURN:,} in "
                        f"each churn, {LONG_CHAOS} minutes of faults of a node: two hours or more")
    parser.add_argument("--order", action="append", choices=ORDERS, help="of addresses, in the churn; without: each")
    parser.add_argument("--only", action="append", choices=SCENARIOS | ASKED, metavar="SCENARIO",
                        help=f"{', '.join(SCENARIOS)}; only where named: {', '.join(ASKED)}")
    parser.add_argument("--bin", type=Path, help="folder of the executables; without: this checkout's, installed aside")
    parser.add_argument("--peer", type=Path, default=Path("/usr/lib/cni"), help="folder of the reference plugins")
    parser.add_argument("--out", type=Path, help="folder for the results")
    return parser.parse_args()


@contextmanager
def _plugins(folder: Path | None) -> Iterator[tuple[Path, Path]]:
    """The folder of our executables, and that of the package behind them.

    Installed as a user has them: the checkout's own executables look for their package first, which costs a little.
    """
    if folder:
        yield folder.resolve(), folder.resolve().parent
        return
    with tempfile.TemporaryDirectory(prefix="cni-v6-bench-") as place:
        os.chmod(place, 0o755)
        env = {**os.environ, "PREFIX": f"{place}/usr", "CNI_BIN_DIR": f"{place}/bin", "DESTDIR": "", "COURIER": "need"}
        subprocess.run([ROOT / "tools" / "install"], env=env, check=True, stdout=subprocess.DEVNULL)
        yield Path(place, "bin"), Path(place, "usr", "lib", "cni-v6")


def _run(name: str, setting: Setting, found: Findings) -> None:
    begin = time.monotonic()
    print(f"{name} ... ", end="", flush=True)
    try:
        (SCENARIOS | ASKED)[name](setting, found)
        print(f"{time.monotonic() - begin:.0f} s", flush=True)
    except node.Refused as refused:
        found.failures.append(f"{name}: {refused}")
        print("failed", flush=True)


def _write(found: Findings, facts: dict[str, str], options: argparse.Namespace) -> None:
    """A whole run goes to the documentation, a part of one or a quick one aside."""
    folder = options.out or (BUILD if options.quick or options.only else DOCS)
    folder.mkdir(parents=True, exist_ok=True)
    report.write(found, facts, folder, plots.draw(found.curves, folder))
    print(f"\nwritten: {folder}")


if __name__ == "__main__":
    sys.exit(main())
