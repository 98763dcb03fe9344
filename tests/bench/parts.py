"""Where the engine's own time for an ADD goes: ``parts.py LIBRARY``, run on a node by ``inside``.

Functions that stand for a part are wrapped in this process, and CPU time is added up: a part's is that of its functions
without the parts that they call. Prints milliseconds, the lower quartile of many ADDs: others on the machine only add.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from statistics import quantiles
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [sys.argv[1], str(Path(__file__).resolve().parents[2])]

from cni_v6.attachments import allocate  # noqa: E402
from cni_v6.engine import handle  # noqa: E402
from cni_v6.kernel import observe, open_namespaces  # noqa: E402
from cni_v6.kernel.linux import LinuxKernel  # noqa: E402
from cni_v6.kernel.netlink.socket import NetlinkSocket  # noqa: E402
from cni_v6.leases.disk.store import DiskLeases  # noqa: E402
from cni_v6.leases.disk.transaction import DiskTransaction  # noqa: E402
from cni_v6.plugins.bridge import Bridge  # noqa: E402
from cni_v6.protocol import invocation  # noqa: E402
from tests.bench.raw import Comparison  # noqa: E402

REST = "the frame, and what is in no other part"
PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "the kernel's work in the datagrams": ((NetlinkSocket, "_send"),),
    "answers received and taken apart": ((NetlinkSocket, "request"), (NetlinkSocket, "dump")),
    "the store's files": (
        (DiskLeases, "_locked"), *((DiskTransaction, name) for name in (
            "catch_up", "get", "memo", "choose", "put", "seal"))),
    "addresses and the record, without the files": ((allocate, "allocate"),),
    "questions and their answers as values": ((LinuxKernel, "observe"),),
    "operations as messages": ((LinuxKernel, "apply"),),
    "sysctls read and written": ((LinuxKernel, "_write"), (observe, "_sysctls")),
    "the container's namespace opened and closed": ((open_namespaces, "open_namespace"), (LinuxKernel, "close")),
    "the plan": tuple((Bridge, name) for name in ("load", "questions", "check_free", "network", "plan_add")),
    "JSON to the call, and the answer to JSON": ((invocation, "parse"), (handle, "to_json"), (handle, "_encode")),
}


class Clock:
    """CPU seconds of the parts of what this thread does."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose time counts for a part."""

        @wraps(function)
        def call(*words: Any, **keys: Any) -> Any:
            begin = time.thread_time()
            self._inner.append(0.0)
            try:
                return function(*words, **keys)
            finally:
                taken = time.thread_time() - begin
                self.spent[part] += taken - self._inner.pop()
                self._inner[-1] += taken

        return call


def main() -> None:
    asked = json.load(sys.stdin)
    comparison, clock = Comparison(asked["config"]), Clock()
    for part, functions in PARTS.items():
        for owner, name in functions:
            setattr(owner, name, clock.timed(part, getattr(owner, name)))
    samples: dict[str, list[float]] = {}
    for number, netns in enumerate(asked["pods"]):
        clock.spent.clear()
        clock.timed(REST, comparison.add)(netns)
        if number > 1:  # the bridge, and everything that is imported late
            for part in (*PARTS, REST):
                samples.setdefault(part, []).append(clock.spent[part] * 1e3)
        comparison.delete(netns)
    print(json.dumps({part: quantiles(taken)[0] for part, taken in samples.items()}))


if __name__ == "__main__":
    main()
