"""GC of stale attachments; the reference plugins of this version have none, so theirs is a DEL for each."""

from __future__ import annotations

import time

from tests.bench.figures import Findings, Goal, Row
from tests.bench.node import Call, Refused
from tests.bench.setting import STAGES, Setting, Side, match

IFNAMES = 100  # attachments of a container: a namespace holds as many interfaces as it is asked to
BLOCK = 50  # of the peer's DELs, between two looks at the clock
PATIENCE_SECONDS = 45.0
GC_VERSION = "1.1.0"


def garbage(setting: Setting, found: Findings) -> None:
    """Containers that the runtime has forgotten: ours gets one GC, the peer a DEL for each, one after the other."""
    count = setting.sizes.stale
    with match(setting, -(-count // IFNAMES)) as (ours, peer):
        for side in (ours, peer):
            side.run([_call(side, "ADD", number) for number in range(count)], STAGES[0])
        config = {**ours.plugins.config(), "cniVersion": GC_VERSION, "cni.dev/valid-attachments": []}
        call = ours.plugins.call("GC", config, container="", netns="")
        taken = ours.run([call]).seconds
        if left := ours.node.ports():
            raise Refused(f"{left} interfaces are there after GC")
        theirs, measured = _delete_all(peer, count)
    remark = "" if measured == count else f"peer: {measured:,} measured, scaled"
    figure = f"GC of {count:,} stale attachments, against as many DELs"
    found.rows.append(Row(figure, "s", taken, theirs / measured * count, Goal(0.03), remark=remark))


def _delete_all(side: Side, count: int) -> tuple[float, int]:
    """Seconds of the DELs, and how many there were: all, or as many as patience allows."""
    begin, seconds, done = time.monotonic(), 0.0, 0
    while done < count and time.monotonic() - begin < PATIENCE_SECONDS:
        block = range(done, min(done + BLOCK, count))
        seconds += side.run([_call(side, "DEL", number) for number in block]).seconds
        done += len(block)
    return seconds, done


def _call(side: Side, command: str, number: int) -> Call:
    config = {**side.plugins.config()}
    config["ipam"] = {**config["ipam"], "routes": []}  # one default route a container, and this one has many interfaces
    return side.plugins.call(
        command, config, container=f"c{number // IFNAMES}", netns=side.node.pod(number // IFNAMES),
        ifname=f"eth{number % IFNAMES}",
    )
