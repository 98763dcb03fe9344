"""What a run leaves behind: ``latest.json``, ``README.md`` with the table, and the plots; and on which machine."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from itertools import starmap
from pathlib import Path

from tests.bench.figures import Findings, as_markdown, matrix
from tests.bench.peers import NETAVARK, Netavark, Plugins
from tests.bench.start import interpreter

PAGE = """# Benchmark

`make bench` measures cni-v6 side by side with the reference plugins `bridge` and `host-local`: both dual-stack, each on
an empty node (network namespace) of its own, call by call in turns within one run. A time is that of the executable
from exec to exit, environment and input given as a runtime gives them. **The ratios carry the message**; absolute times
are not to be compared between runs or machines.

{machine}

{table}

{ways}{plots}
## How to read it

- *ratio* is cni-v6 divided by the peer; the peer is the reference plugin unless the table names another. Goals of calls
  a second are lower limits.
- cni-v6 is called through the courier, as `make install` puts it where there is a C compiler; *through Python* are the
  same calls through the Python executables.
- cni-v6 runs with its engine warm, the state of every call but the first of a node, unless the row says otherwise.
- cni-v6 plays open and unguarded, as the reference does by default, but in the rows that say otherwise: *ipMasq*,
  *published ports*, *closed, guarded, masqueraded* and *everything on* have all of its firewall.
- After each DEL, on both sides, the next measurement waits until the kernel is through with it: cni-v6 answers earlier
  than the kernel is done, and neither side is to pay for the other's.
- The lease stores of both are in memory (tmpfs), so no disk blurs the picture.
- *CPU time* is that of the processes of a call (rusage) and, for cni-v6, of the engine.
- *IPAM alone* is on folders filled as host-local fills them, half of the leases of each family.
- *library* is the store and what the IPAM plugin does with it, called directly: no executable, no engine, no kernel.
  The million leases are written at once, file for file what as many ADDs would have left, half of each family.
- *library, so many ADD and DEL* is containers that come and go, 100 at a time. No address was given twice.
- *GC*: the reference plugins of this version have no GC, so a runtime has to call DEL for each.
- *netavark* has no IPAM: podman chooses the addresses. *Without firewall* is its internal network. *With firewall* is
  one with masquerade by iptables; ours is closed, guarded and masqueraded then.
- *The way of a packet*: all are up at once, each on a node of its own, and are measured in rotated order; medians. A
  request is one byte by UDP, its response another. *CPU time of a GB* is that of both ends and of the kernel between
  them. *Outside* is a host beyond the node, which routes to it; of a macvlan it is a host on the same link. *Without
  firewall* is `"ingress": "open"` and `"guard": false`. Loopback is within one namespace: the limit.
- *ADD inside the engine* has the changes of one ADD recorded as bytes and sends them again on open sockets.

Run it yourself: `make bench`; `make bench ARGS=--quick` for a first look (under a minute, writes to
`build/benchmarks`); `make bench PEER_BIN=/opt/cni/bin` against another build of the peer; `make bench ARGS=--soak` for
100,000 ADD and DEL with an engine, a million in each churn of the library and an hour of faults of the node;
`make bench ARGS="--only churn --soak --order sequential"` for one of those. Figures of the last run:
[latest.json](latest.json).
"""

WAYS = """## The way of a packet

{tables}
"""


def machine(library: Path, shim: Plugins, peer: Plugins) -> dict[str, str]:
    """What the figures depend on, and nothing that tells whose machine it is.

    :param shim: ours through the Python executables.
    """
    kernel = re.match(r"\d+\.\d+", platform.release())
    found = {
        "cni-v6": _version(library),
        "processors": str(os.cpu_count()),
        "architecture": platform.machine(),
        "kernel": kernel.group() if kernel else "unknown",
        "python": _python(shim),
        "load at the start": f"{os.getloadavg()[0]:.1f}",  # a busy machine blurs everything below
        "reference": _peer_version(peer),
    }
    if NETAVARK.exists():
        found["netavark"] = Netavark().about().removeprefix("netavark ")
    return found


def write(found: Findings, facts: Mapping[str, str], folder: Path, pictures: Sequence[str]) -> None:
    """Write the figures and the page."""
    (folder / "latest.json").write_text(as_json(found, facts), encoding="utf-8")
    (folder / "README.md").write_text(page(found, facts, pictures), encoding="utf-8")


def as_json(found: Findings, facts: Mapping[str, str]) -> str:
    """Everything that was found; a curve is a line of its own, so that two runs can be compared."""
    rows = ",\n  ".join(json.dumps(row.to_json()) for row in found.rows)
    plots = ",\n  ".join(f"{json.dumps(name)}: {_lines(lines)}" for name, lines in found.curves.items())
    ways = ",\n  ".join(f"{json.dumps(name)}: {json.dumps(figures)}" for name, figures in found.ways.items())
    return (
        f'{{\n "machine": {json.dumps(facts)},\n "failures": {json.dumps(found.failures)},\n'
        f' "rows": [\n  {rows}\n ],\n "ways": {{\n  {ways}\n }},\n "curves": {{\n  {plots}\n }}\n}}\n'
    )


def _lines(lines: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    return "{" + ",\n   ".join(f"{json.dumps(name)}: {json.dumps(points)}" for name, points in lines.items()) + "}"


def page(found: Findings, facts: Mapping[str, str], pictures: Sequence[str]) -> str:
    """The page of the documentation, with the pictures beside it."""
    words = "; ".join(f"{key} {value}" for key, value in facts.items())
    plots = "".join(f"![{name.removesuffix('.svg')}]({name})\n\n" for name in pictures)
    ways = WAYS.format(tables="\n\n".join(starmap(matrix, found.ways.items()))) if found.ways else ""
    return PAGE.format(machine=f"Machine: {words}.", table=as_markdown(found.rows), ways=ways, plots=plots)


def _version(library: Path) -> str:
    text = (library / "cni_v6" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'__version__ = "([^"]+)"', text)
    return found.group(1) if found else "unknown"


def _python(shim: Plugins) -> str:
    """The version of the interpreter that runs the executables."""
    argv = [*interpreter(shim.folder / shim.bridge), "-c", "import platform; print(platform.python_version())"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def _peer_version(peer: Plugins) -> str:
    """What the plugin says, or, where its build was not told, what Debian calls the package."""
    said = peer.about().rpartition(" ")[2]
    if said not in ("unknown", peer.bridge):
        return said
    query = ["dpkg-query", "--search", str(peer.folder / peer.bridge)]
    owner = subprocess.run(query, capture_output=True, text=True, check=False).stdout.partition(":")[0]
    if not owner:
        return "unknown"
    show = ["dpkg-query", "--show", "--showformat", "${Version}", owner]
    return f"Debian {subprocess.run(show, capture_output=True, text=True, check=True).stdout}"
