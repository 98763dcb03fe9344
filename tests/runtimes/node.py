"""A throwaway node: namespaces of its own in which a runtime may do what it likes to /etc, /opt, /run and /var/lib."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tests import processes
from tests.sandbox import ROOT
from tests.snapshot import take

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "LC_ALL": "C"}
SETTLE = 20.0  # seconds: how long a runtime's processes may take to end before they count as left behind

# tools/sandbox mounts another /sys.
CGROUPS = """
if [ -z "$(ls /sys/fs/cgroup)" ]; then
    mount -t tmpfs tmpfs /sys/fs/cgroup
    while read -r name hierarchy groups enabled; do
        case $name in \\#*) continue;; esac
        mkdir /sys/fs/cgroup/$name
        mount -t cgroup -o $name cgroup /sys/fs/cgroup/$name 2>/dev/null || rmdir /sys/fs/cgroup/$name
    done < /proc/cgroups
    [ -n "$(ls /sys/fs/cgroup)" ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
"""

# Runs as process 1 of the node. The first line must be read before /proc is replaced: it is our pid as seen outside.
# Other nodes' namespaces are not to be seen nor kept alive here. /run/netns is shared, as a runtime would make it at
# its first container. Overlays with their upper half in memory keep the machine's own files readable and throw every
# change away. An ignored SIGCHLD is inherited by ``cat`` and makes the kernel reap the orphans that runtimes leave.
INIT = """
read -r pid rest < /proc/self/stat
mount -t proc proc /proc
umount --recursive --lazy /run/netns 2>/dev/null || true
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir /run/netns
mount -t tmpfs tmpfs /run/netns
mount --make-shared /run/netns
for dir in /etc /opt /var/lib; do
    mkdir -p /run/node$dir/upper /run/node$dir/work
    mount -t overlay -o lowerdir=$dir,upperdir=/run/node$dir/upper,workdir=/run/node$dir/work overlay $dir
done
""" + CGROUPS + """rm -rf /var/lib/cni /etc/cni /opt/cni
mkdir -p /etc/cni/net.d /opt/cni/bin
ip link set lo up
[ -z "$1" ] || echo "$1" > /proc/sys/kernel/hostname
trap '' CHLD
echo $pid
exec cat > /dev/null
"""


@dataclass(frozen=True)
class State:
    """What a runtime or a plugin could leave on the node: each entry one line to read in a failed comparison.

    Bridges are not in ``links``: they belong to the network and stay, with the reference plugin too.
    """

    processes: tuple[str, ...]
    mounts: tuple[str, ...]
    namespaces: tuple[str, ...]
    links: tuple[str, ...]
    cgroups: tuple[str, ...]

    def difference(self, later: State) -> list[str]:
        """What is gone (``-``) and what is new (``+``) later."""
        mine, theirs = set(self._lines()), set(later._lines())
        return [f"- {line}" for line in sorted(mine - theirs)] + [f"+ {line}" for line in sorted(theirs - mine)]

    def _lines(self) -> Iterator[str]:
        for kind in fields(self):
            yield from (f"{kind.name}: {line}" for line in getattr(self, kind.name))

    @property
    def pids(self) -> set[int]:
        return {int(process.partition(" ")[0]) for process in self.processes}


@dataclass(frozen=True)
class Node:
    """The running node; ``pid`` is its process 1, seen from outside. Entered anew by every command."""

    pid: int

    @property
    def cgroup(self) -> str:
        """The parent of every cgroup made for this node, in each hierarchy; without the leading slash."""
        return f"cni-v6-test-{self.pid}"

    def path(self, inner: str) -> Path:
        """A path of the node as the test can open it: short enough for a unix socket, whatever the test's folder."""
        return Path(f"/proc/{self.pid}/root") / inner.lstrip("/")

    def argv(self, *command: str | Path) -> list[str]:
        """The command line that runs ``command`` on the node."""
        return ["nsenter", f"--target={self.pid}", "--net", "--mount", "--uts", "--pid", "--", *map(str, command)]

    def run(self, *command: str | Path, env: Mapping[str, str] | None = None) -> str:
        """Run a command on the node to its end and return its standard output; it has to succeed."""
        environment = {**ENVIRONMENT, **(env or {})}
        done = subprocess.run(self.argv(*command), env=environment, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, *command: str | Path, log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a daemon on the node; its output goes to ``log``. Stop it with ``stop``."""
        environment = {**ENVIRONMENT, **(env or {})}
        with log.open("ab") as out:
            none = subprocess.DEVNULL
            return subprocess.Popen(self.argv(*command), env=environment, stdin=none, stdout=out, stderr=out)

    def stop(self, daemon: subprocess.Popen[bytes]) -> None:
        """Ask a daemon to end, and wait until it has. nsenter passes no signals on: its child is the daemon."""
        for pid in _children(daemon.pid):
            os.kill(pid, signal.SIGTERM)
        daemon.wait(timeout=SETTLE)

    def left_behind(self, before: State) -> list[str]:
        """What is other than ``before`` once every newer process has ended and been cleaned up after, or has had
        ``SETTLE`` seconds to.

        The engine that the runtime's first call left behind is asked to end, and waited for.
        """
        self.run(ROOT / "bin/cni-v6ctl", "engine", "--stop")
        deadline = time.monotonic() + SETTLE
        for pid in self._processes() - before.pids:
            with suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
                os.close(descriptor)
        while (left := before.difference(self.state())) and time.monotonic() < deadline:
            select.select([], [], [], 0.1)  # kubelet takes a pod's cgroups away some time after its end
        return left

    def state(self) -> State:
        """What is there now, to be compared with what was there before."""
        netns = self.path("/run/netns")
        links = json.loads(self.run("ip", "-json", "-details", "link", "show"))
        return State(
            processes=tuple(f"{pid} {_command(pid)}" for pid in sorted(self._processes())),
            mounts=tuple(line.split(" - ")[0].split(" ", 3)[3] for line in _lines(f"/proc/{self.pid}/mountinfo")),
            namespaces=tuple(sorted(entry.name for entry in netns.iterdir())),
            links=tuple(sorted(link["ifname"] for link in links if _kind(link) != "bridge")),
            cgroups=tuple(str(path) for path in self.cgroups()),
        )

    def cgroups(self) -> list[Path]:
        """Every cgroup below ``cgroup``, the deepest first; both hierarchy layouts."""
        tops = self.cgroup_tops()
        found = [Path(folder) for top in tops for folder, _, _ in os.walk(top, topdown=False)]
        return [path for path in found if path not in tops]

    def cgroup_tops(self) -> list[Path]:
        """The node's own cgroup in each hierarchy where something has made it."""
        root = self.path("/sys/fs/cgroup")
        return [path for path in (root / self.cgroup, *root.glob(f"*/{self.cgroup}")) if path.exists()]

    def cgroup_roots(self) -> list[Path]:
        """The top of each hierarchy."""
        top = self.path("/sys/fs/cgroup")
        return [top] if (top / "cgroup.controllers").exists() else [path for path in top.iterdir() if path.is_mount()]

    @contextmanager
    def unchanged(self, store: str) -> Iterator[None]:
        """Fail the test, with the difference, unless the node's network and a lease store are afterwards as before."""
        before = take({"node": self._read}, self.path(store))
        yield
        difference = before.difference(take({"node": self._read}, self.path(store)))
        assert not difference, "the node has changed:\n" + "\n".join(difference)

    def _read(self, *command: str) -> str:
        """What a command prints, whatever its exit status: "" where there is nothing of the kind."""
        none = subprocess.DEVNULL
        return subprocess.run(self.argv(*command), env=ENVIRONMENT, stdin=none, capture_output=True, text=True).stdout

    def clear(self) -> None:
        """End what runs on the node, then remove its cgroups: these alone would outlive it."""
        while pids := self._processes():
            processes.kill_all(pids)
        for path in (*self.cgroups(), *self.cgroup_tops()):
            path.rmdir()

    def _processes(self) -> set[int]:
        """Pids of the node's processes but the first, those in containers' own pid namespaces included."""
        parents = dict(_parents())
        home = os.readlink(f"/proc/{self.pid}/ns/pid")
        inside = {pid for pid in parents if _pid_namespace(pid) == home}
        while more := {pid for pid, parent in parents.items() if parent in inside} - inside:
            inside |= more
        return inside - {self.pid}


@contextmanager
def node(name: str = "") -> Iterator[Node]:
    """A fresh node. At the end everything in it is killed by the kernel, and its mounts are gone with it.

    :param name: its host name; "": the machine's.
    """
    namespaces = ("--net", "--mount", "--uts", "--ipc", "--pid")
    command = ["unshare", *namespaces, "--fork", "--kill-child", "sh", "-euc", INIT, "sh", name]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=ENVIRONMENT, stdin=pipe, stdout=pipe, text=True) as init:
        assert init.stdin and init.stdout
        first = init.stdout.readline()
        assert first, f"the node did not come up: exit {init.wait()}"
        made = Node(int(first))
        try:
            yield made
        finally:
            made.clear()
            init.stdin.close()
            init.wait(timeout=SETTLE)


def _kind(link: Mapping[str, Any]) -> object:
    return link.get("linkinfo", {}).get("info_kind")


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _command(pid: int) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return "gone"


def _pid_namespace(pid: int) -> str:
    with suppress(OSError):  # gone, or one that not even root may look into
        return os.readlink(f"/proc/{pid}/ns/pid")
    return ""


def _children(pid: int) -> list[int]:
    return [child for child, parent in _parents() if parent == pid]


def _parents() -> Iterator[tuple[int, int]]:
    """(pid, parent) of every process but zombies: proc_pid_stat(5), after the command's closing parenthesis."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    yield int(entry.name), int(parent)
