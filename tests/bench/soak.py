"""ADD and DEL over and over, straight to an engine: ``soak.py LIBRARY``, run on the engine's node by ``inside``.

Without executables, whose start is all that a soak would otherwise measure. Prints the engine's size as it goes.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [sys.argv[1], str(Path(__file__).resolve().parents[2])]

from tests.bench.node import Size, settle, size  # noqa: E402
from tests.client import Client  # noqa: E402

PARTS = 10
RUN_DIR = "/run/cni-v6"


def work(client: Client, netns: str, count: int, first: int) -> None:
    """Attach and detach one container after another in a namespace."""
    for number in range(first, first + count):
        name = f"{Path(netns).name}-{number}"
        client.call("ADD", name, netns)
        client.call("DEL", name, netns)


def main() -> None:
    asked = json.load(sys.stdin)
    inode = os.stat("/proc/self/ns/net").st_ino
    client, pods = Client(f"{RUN_DIR}/engine-{inode}.sock", inode, asked["config"]), asked["pods"]
    sizes: list[Size] = []
    each = max(1, asked["count"] // (PARTS * len(pods)))
    with ThreadPoolExecutor(len(pods)) as pool:
        for part in range(PARTS):
            for done in [pool.submit(work, client, netns, each, part * each) for netns in pods]:
                done.result()
            settle()
            sizes.append(size(asked["engine"]))
    print(json.dumps({"sizes": [asdict(each) for each in sizes], "count": each * PARTS * len(pods)}))


if __name__ == "__main__":
    main()
