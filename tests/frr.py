"""An FRR of the test's own: zebra, bfdd and bgpd, which vtysh tells a sample of ours, as Debian's service does."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.sandbox import COMMANDS, ROOT, need

PATIENCE = 30.0
SAMPLE = ROOT / "conf/cluster/frr/tor.conf"
# Its folders are its own, and its processes end with the first one. Each daemon is ready when its parent ends.
RUN = """
mount -t tmpfs none /run
mount -t tmpfs none /var/tmp
mkdir /run/frr
chown frr:frr /run/frr
for daemon in zebra bfdd bgpd; do /usr/lib/frr/$daemon -d -f /dev/null; done
vtysh -f "$0"
echo ready
exec sleep infinity
"""


def need_frr() -> None:
    need(os.path.exists("/usr/lib/frr/bgpd"), "needs FRR (Debian: frr)")


def check(config: Path) -> str:
    """What vtysh has against a configuration; "" for nothing."""
    argv = ["vtysh", "-C", "-f", str(config)]
    done = subprocess.run(argv, env=COMMANDS, capture_output=True, text=True, timeout=PATIENCE)
    return done.stdout + done.stderr if done.returncode else ""


@contextmanager
def frr(netns: str, folder: Path, others: Mapping[str, str]) -> Iterator[None]:
    """One that runs on the sample.

    :param netns: the path of a network namespace.
    :param folder: for its configuration.
    :param others: texts to replace in the sample, each of which it has.
    """
    need_frr()
    text = SAMPLE.read_text(encoding="utf-8")
    for old, new in others.items():
        assert old in text, f"the sample has no {old}"
        text = text.replace(old, new)
    config = folder / "frr.conf"
    config.write_text(text)
    process = subprocess.Popen(
        ["nsenter", f"--net={netns}", "--", "unshare", "--mount", "--pid", "--mount-proc", "--fork",
         "--kill-child=KILL", "sh", "-ec", RUN, str(config)],
        env=COMMANDS, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
    )
    try:
        assert process.stdout
        said = b""
        while not said.endswith(b"ready\n"):
            ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
            part = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
            if not part:
                pytest.fail(f"FRR has not come up: {said.decode()}")
            said += part
        yield
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)
