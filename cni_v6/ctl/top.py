"""``cni-v6ctl top``: calls, latencies, pools and drops of the last seconds, renewed on the screen."""

from __future__ import annotations

import argparse
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import log2
from pathlib import Path
from typing import Any

from cni_v6.attachments.context import Context
from cni_v6.ctl import conf_dir, metrics, screen
from cni_v6.ctl.output import Output, listed, mapped, number, object_of, or_null, text
from cni_v6.ctl.screen import plain
from cni_v6.ctl.waiting import check_seconds
from cni_v6.engine.exposition import METRICS, SUFFIXES, Sample, parse
from cni_v6.engine.handle import real_context
from cni_v6.errors import INVALID_CONFIG, CniError

HOME, BELOW = "\x1b[H", "\x1b[J"  # ECMA-48: CUP to the first column of the first line; ED to the end of the screen
MOST = 20  # rows of a table

Key = tuple[str, tuple[str, ...], str]  # name and suffix, labels, upper bound
Values = Mapping[Key, float]

STARTED: Key = ("cni_v6_engine_start_time_seconds", (), "")
OF_ENGINE = {name + suffix for name, metric in METRICS.items() if metric.of_engine for suffix in ("", *SUFFIXES)}

OUTPUTS = {"top": Output(object_of({
    "engineSeconds": or_null(number("since the engine's start; null without an engine")),
    "calls": listed(object_of({
        "command": text("of CNI; empty if it is none"), "count": number("of calls"), "errors": number("of those"),
        "perSecond": number("calls"), "p50": or_null(number("seconds; null without calls")),
        "p95": or_null(number("seconds; null without calls")),
    }), "by command"),
    "pools": listed(object_of({
        "network": text("the name in its configuration"), "pool": text("a set of ranges"),
        "addresses": number("how many it has"), "leased": number("that containers have"),
        "waiting": number("that were released, and are not given again yet"), "left": number("that can be given"),
    }), "the sets of ranges"),
    "attachments": mapped(number("on record"), "by network"),
    "drops": listed(object_of({
        "chain": text("of the firewall's tables"), "reason": text("in words"), "packets": number("dropped"),
    }), "by chain"),
}))}


def register(commands: Any) -> None:
    parser = commands.add_parser("top", help="show calls, latencies, pools and drops as they change; Enter ends it")
    parser.add_argument("--once", action="store_true", help="print since the engine's start once, for scripts")
    parser.add_argument("--json", action="store_true", help="with --once: one JSON object")
    parser.add_argument(
        "--interval", type=float, default=2.0, metavar="SECONDS", help="between two looks (default: %(default)s)"
    )
    parser.add_argument("--conf-dir", type=Path, default=conf_dir.CONF_DIR, metavar="DIR",
                        help="of the networks, without an engine (default: %(default)s)")
    parser.set_defaults(run=run, root=True)


def run(chosen: argparse.Namespace, make_node: Callable[[], Context] = real_context) -> int:
    if chosen.json and not chosen.once:
        raise CniError(INVALID_CONFIG, "--json needs --once", "cni-v6ctl metrics --json has all that it is made of")
    check_seconds("--interval", chosen.interval)
    read = _reader(chosen.conf_dir, make_node)
    if chosen.once:
        view = View({}, read(), None)
        if chosen.json:
            OUTPUTS["top"].show(view.document())
        else:
            print("\n".join(view.lines()))
        return 0
    before, began = read(), time.monotonic()
    view = View({}, before, None)
    while True:  # until it is interrupted, or told to end
        rows = shutil.get_terminal_size().lines - 1
        text = "\n".join(line.ljust(screen.WIDTH) for line in list(view.lines())[:rows])
        print(f"{HOME}{text}\n{BELOW}" if sys.stdout.isatty() else text, flush=True)
        if _is_told_to_end(chosen.interval):
            return 0
        now, moment = read(), time.monotonic()
        view, before, began = View(before, now, moment - began), now, moment


def _is_told_to_end(seconds: float) -> bool:
    """Whether somebody presses Enter within this time."""
    terminal = [sys.stdin] if sys.stdin and sys.stdin.isatty() else []
    return bool(select.select(terminal, [], [], seconds)[0])


def _reader(folder: Path, make_node: Callable[[], Context]) -> Callable[[], Values]:
    def read() -> Values:
        text, _ = metrics.read(folder, make_node)
        return {_key(sample): sample.value for sample in parse(text)}

    return read


def _key(sample: Sample) -> Key:
    return sample.name + sample.suffix, sample.labels, sample.le


class View:
    """What has changed between two looks, and what is there at the second.

    :param seconds: between them; None if the first one is the engine's start.
    """

    def __init__(self, before: Values, now: Values, seconds: float | None) -> None:
        self._now = now
        started = now.get(STARTED)
        self._age = time.time() - started if started else None
        self._seconds = seconds or self._age
        restarted = before.get(STARTED) != started
        self._grown = {key: _growth(0 if restarted and key[0] in OF_ENGINE else before.get(key, 0), value)
                       for key, value in now.items()}

    def document(self) -> dict[str, object]:
        return {
            "engineSeconds": round(self._age, 3) if self._age else None,
            "calls": [
                {"command": command, "count": count, "errors": errors, "perSecond": rate, "p50": p50, "p95": p95}
                for command, count, errors, rate, p50, p95 in self._calls()
            ],
            "pools": [
                {"network": network, "pool": pool, "addresses": size, "leased": leased, "waiting": waiting,
                 "left": left} for network, pool, size, leased, waiting, left in self._pools()
            ],
            "attachments": {labels[0]: value for labels, value in self._of("cni_v6_attachments")},
            "drops": [{"chain": chain, "reason": reason, "packets": self._grown["cni_v6_dropped_packets_total", (
                chain, reason), ""]} for (chain, reason), _ in self._of("cni_v6_dropped_packets_total")],
        }

    def lines(self) -> Iterator[str]:
        """The screen."""
        yield self._head()
        rows = [(command or "-", f"{count:,.0f}", f"{errors:,.0f}", f"{rate:,.1f}/s", _time(p50), _time(p95))
                for command, count, errors, rate, p50, p95 in self._calls()]
        yield from _table(("COMMAND", "CALLS", "ERRORS", "RATE", "P50", "P95"), rows)
        pools = [(network, f"{leased:,.0f}", f"{waiting:,.0f}", _large(left), _large(size), pool.partition(" (")[0])
                 for network, pool, size, leased, waiting, left in self._pools()]
        yield from _table(("NETWORK", "LEASED", "WAITING", "LEFT", "SIZE", "POOL"), pools)
        drops = [(f"{value:,.0f}", chain, reason) for (chain, reason), _ in self._of("cni_v6_dropped_packets_total")
                 if (value := self._grown["cni_v6_dropped_packets_total", (chain, reason), ""])]
        yield from _table(("DROPPED", "CHAIN", "REASON"), drops)

    def _head(self) -> str:
        held = sum(value for _, value in self._of("cni_v6_attachments"))
        words = [screen.counted(int(held), "attachment")]
        if self._age is None:
            return f"no engine; {words[0]}"
        busy, most = (self._now.get((f"cni_v6_engine_workers_{name}", (), ""), 0) for name in ("busy", "max"))
        memory = self._now.get(("cni_v6_engine_resident_memory_bytes", (), ""), 0)
        words += [f"{busy:.0f} of {most:.0f} workers busy", f"{memory / (1 << 20):.0f} MiB"]
        return f"engine {screen.age(self._age)}; {'; '.join(words)}"

    def _calls(self) -> Iterator[tuple[str, float, float, float, float | None, float | None]]:
        """By command: number, errors, number per second, median and 95th percentile of the time in seconds."""
        for (command,), _ in self._of("cni_v6_call_duration_seconds_count"):
            count = self._grown["cni_v6_call_duration_seconds_count", (command,), ""]
            calls = [(labels, self._grown["cni_v6_calls_total", labels, ""])
                     for labels, _ in self._of("cni_v6_calls_total") if labels[1] == command]
            errors = sum(value for labels, value in calls if labels[3] != "0")
            buckets = [(float(bound), value) for (name, labels, bound), value in self._grown.items()
                       if name == "cni_v6_call_duration_seconds_bucket" and labels == (command,)]
            rate = count / self._seconds if self._seconds else 0.0
            yield command, count, errors, rate, quantile(buckets, 0.5), quantile(buckets, 0.95)

    def _pools(self) -> Iterator[tuple[str, str, float, float, float, float]]:
        for labels, size in self._of("cni_v6_pool_addresses"):
            rest = (self._now.get((f"cni_v6_pool_{name}", labels, ""), 0) for name in ("leased", "waiting", "left"))
            leased, waiting, left = rest
            yield labels[0], labels[1], size, leased, waiting, left

    def _of(self, name: str) -> list[tuple[tuple[str, ...], float]]:
        return [(labels, value) for (known, labels, _), value in self._now.items() if known == name]


def _growth(before: float, now: float) -> float:
    """How much a counter has grown; if it is smaller now, it was set to 0 in between."""
    return now - before if now >= before else now


def quantile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """A quantile of a histogram, linear within its bucket, as histogram_quantile of PromQL; None without values.

    :param buckets: upper bounds, the last one infinite, and the number of values up to each.
    """
    ordered = sorted(buckets)
    if not ordered or not ordered[-1][1]:
        return None
    rank, low, under = share * ordered[-1][1], 0.0, 0.0
    for bound, count in ordered:
        if count >= rank and count > under:
            return low if bound == float("inf") else low + (bound - low) * (rank - under) / (count - under)
        low, under = bound, count
    return low


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    if rows:
        yield ""
        yield from screen.fitting(head, [tuple(map(plain, row)) for row in rows[:MOST]])


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _large(count: float) -> str:
    """A number of addresses; of more than a million, as a power of two."""
    return f"{count:,.0f}" if count < 1_000_000 else f"2^{log2(count):.0f}"
