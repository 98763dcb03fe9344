"""A node of the benchmark: a network and a mount namespace, empty containers, and a worker that executes plugins."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests import processes

SANDBOX = Path("/run/cni-v6-sandbox")  # tools/sandbox notes here which network namespace it came from
WORKER = Path(__file__).with_name("worker.py")
COMMANDS = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
WORDS = 400  # of a failure, its last
HOLD = """
mount -t tmpfs -o mode=755 none /run
mkdir /run/netns
mount -t tmpfs -o mode=700 none /var/lib/cni
ip link set lo up
exec "$@"
"""

_numbers = itertools.count(1)


class Refused(Exception):
    """A plugin failed where it should not have; the words are its own."""


@dataclass(frozen=True, slots=True)
class Call:
    """One execution: ``argv`` with the whole path first, the whole environment. Calls of one ``key`` never overlap."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    stdin: str
    key: str


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a call. ``cpu_ms`` counts its own processes, no engine; ``output`` is kept of failures."""

    ms: float
    cpu_ms: float
    code: int
    output: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """A block of calls, from the start of its first to the end of its last."""

    seconds: float
    done: tuple[Done, ...]

    @property
    def per_second(self) -> float:
        return len(self.done) / self.seconds

    def checked(self) -> Outcome:
        """The same; raises Refused where a call failed."""
        failed = [each for each in self.done if each.code]
        if failed:
            raise Refused(f"{len(failed)} of {len(self.done)} failed: ...{failed[0].output.strip()[-WORDS:]}")
        return self


class Node:
    """An empty node. ``close`` ends all that runs on it.

    :param pods: how many containers it has; their namespaces are ``pod(0)`` and so on.
    """

    def __init__(self, pods: int) -> None:
        argv = ["unshare", "--net", "--mount", "--propagation", "slave", "sh", "-ec", HOLD, "sh"]
        self._worker = subprocess.Popen(
            [*argv, sys.executable, "-ISE", str(WORKER)],
            env=COMMANDS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        self._pods = 0
        self._hear()
        self._network = os.stat(f"{self._proc}/ns/net").st_ino
        self.grow(pods)

    def grow(self, pods: int) -> None:
        """Make containers until there are so many."""
        self.command(["ip", "-batch", "-"], "".join(f"netns add pod{number}\n" for number in range(self._pods, pods)))
        self._pods = pods

    def pod(self, number: int) -> str:
        """The path, on the node, of a container's namespace."""
        return f"/run/netns/pod{number % self._pods}"

    def run(self, calls: Sequence[Call], at_once: int = 1) -> Outcome:
        """Execute calls on the node, and wait for all."""
        assert self._worker.stdin
        print(json.dumps({"calls": [asdict(call) for call in calls], "at_once": at_once}),
              file=self._worker.stdin, flush=True)
        answer = json.loads(self._hear())
        return Outcome(answer["seconds"], tuple(Done(**each) for each in answer["done"]))

    def command(self, argv: Sequence[str], stdin: str = "") -> str:
        """Run a command on the node, with its standard output as the answer. Raises Refused where it fails."""
        return command([f"--net={self._proc}/ns/net", f"--mount={self._proc}/ns/mnt"], argv, stdin)

    def file(self, path: str) -> Path:
        """A file of the node, as this process reaches it."""
        return Path(f"{self._proc}/root{path}")

    def ports(self) -> int:
        """How many veth interfaces the node has."""
        return len(json.loads(self.command(["ip", "-j", "link", "show", "type", "veth"]) or "[]"))

    def engine(self) -> int | None:
        """Process id of the engine that was left behind on the node; None where there is none."""
        return min(processes.inside({self._network}) - {self._worker.pid}, default=None)

    def close(self) -> None:
        """End the node's processes, then the node; its namespaces end with them."""
        while others := processes.inside({self._network}) - {self._worker.pid}:
            processes.kill_all(others)
        self._worker.communicate()

    @property
    def _proc(self) -> str:
        return f"/proc/{self._worker.pid}"

    def _hear(self) -> str:
        assert self._worker.stdout
        line = self._worker.stdout.readline()
        if not line:
            raise Refused("the node's worker has ended; its words are above")
        return line


def command(place: Sequence[str], argv: Sequence[str], stdin: str = "") -> str:
    """Run a command in other namespaces, as nsenter(1) names them, with its standard output as the answer.

    :raises Refused: where it fails.
    """
    entry = ["nsenter", *place, "--", *argv]
    done = subprocess.run(entry, env=COMMANDS, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"{' '.join(argv[:4])}: {done.stdout}{done.stderr}")
    return done.stdout


class Pair:
    """Our node and the peer's, both empty, and equal in everything but the plugin."""

    def __init__(self, pods: int) -> None:
        self.ours = Node(pods)
        self.peer = Node(pods)

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: Any) -> None:
        self.ours.close()
        self.peer.close()
        settle()


def settle() -> None:
    """Return when the kernel is through with what was deleted before: the next measurement must not pay for it.

    Deleting an interface takes the lock all interfaces share, and the RCU wait that the deletions before it still have
    ahead of them; its acknowledgement comes after both.
    """
    name = f"settle{next(_numbers)}"
    batch = f"link add {name} type bridge\nlink delete {name}\n"
    subprocess.run(["ip", "-batch", "-"], env=COMMANDS, input=batch, text=True, check=True)


def cpu_ms(process: int) -> float:
    """CPU time of a process so far, of all its threads, also those that have ended (CPUCLOCK_SCHED, posix-timers.h)."""
    return time.clock_gettime(~process << 3 | 2) * 1e3


@dataclass(frozen=True, slots=True)
class Size:
    """What a process holds at the moment."""

    rss_kib: int
    peak_kib: int
    threads: int
    descriptors: int


def size(process: int) -> Size:
    """Read /proc/<pid>/status and fd."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    fields = {key: value.split()[0] for key, _, value in (line.partition(":") for line in lines) if value.strip()}
    descriptors = len(os.listdir(f"/proc/{process}/fd"))
    return Size(int(fields["VmRSS"]), int(fields["VmHWM"]), int(fields["Threads"]), descriptors)


def in_sandbox() -> bool:
    """Whether this runs on a throwaway node, so that nothing it does reaches the machine."""
    return SANDBOX.exists() and SANDBOX.read_text(encoding="ascii").strip() != os.readlink("/proc/self/ns/net")
