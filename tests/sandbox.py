"""A throwaway node for a test: its own network and mount namespace, containers, the real executables, and proof that
nothing changed.

Used below ``tools/sandbox``, which puts the whole test run on such a node; each ``Node`` is another one inside it.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import outputs, processes
from tests.snapshot import Snapshot, take

ROOT = Path(__file__).resolve().parent.parent
REFERENCE_PLUGINS = "/usr/lib/cni"  # Debian's containernetworking-plugins
PLUGIN_PATH = (str(ROOT / "bin"), REFERENCE_PLUGINS)
SANDBOX = Path("/run/cni-v6-sandbox")
NETNS_FOLDER = Path("/run/netns")
NSENTER = "/usr/bin/nsenter"
COMMANDS = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
TIMEOUT = 120  # seconds; a command that takes as long hangs, on a busy machine too

# What a node has of its own besides its network: /sys, which shows the network of whoever mounted it, and the default
# lease store. The runtimes still need the control groups below /sys. The shell ends with its standard input, so a
# test run that is killed leaves no namespace behind.
HOLD = """
mount -t tmpfs none /var/lib/cni
mkdir /var/lib/cni/sys
mount -t sysfs none /var/lib/cni/sys
mount --rbind /sys/fs/cgroup /var/lib/cni/sys/fs/cgroup
mount --rbind /var/lib/cni/sys /sys
mount -t tmpfs -o mode=755 none /var/lib/cni
ip link set lo up
echo ready
read -r line || true
"""

_numbers = itertools.count(1)


def need(condition: object, reason: str) -> None:
    """Skip the test where a workstation lacks what it takes; fail it in CI, where nothing may be missing."""
    if condition:
        return
    if os.environ.get("CI") == "true" or os.environ.get("CNI_V6_REQUIRE_ALL") == "1":
        pytest.fail(f"needed here: {reason}", pytrace=False)
    pytest.skip(reason)


def need_sandbox(marker: Path = SANDBOX) -> None:
    """Skip without root; as root refuse to run on the machine's own network.

    :param marker: where ``tools/sandbox``, in a /run of its own, notes the network namespace it came from.
    """
    need(os.geteuid() == 0, "needs root, to make network namespaces")
    if not marker.exists() or marker.read_text(encoding="ascii").strip() == os.readlink("/proc/self/ns/net"):
        pytest.fail(
            "refused: this test changes the network of the node it runs on.\n"
            'Run it as:  make test ARGS="..."  or:  tools/sandbox .venv/bin/python -m pytest ...',
            pytrace=False,
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """What a plugin answered: its standard output as JSON (None where there was none), its log, its exit code."""

    stdout: Any
    stderr: str
    code: int

    def ok(self) -> Any:
        """The JSON of a success; fails the test with the plugin's own words otherwise."""
        assert self.code == 0, f"exit {self.code}: {json.dumps(self.stdout, indent=2)}\n{self.stderr}"
        return self.stdout

    def error(self, code: int) -> str:
        """The message and details of a failure with this CNI code, without the call's id; fails the test for any other
        answer."""
        assert self.code != 0, f"succeeded: {self.stdout}"
        assert isinstance(self.stdout, dict) and self.stdout.get("code") == code, f"{self.stdout}\n{self.stderr}"
        words = ": ".join(str(self.stdout[key]) for key in ("msg", "details") if self.stdout.get(key))
        return re.sub(r" \(call [0-9a-f]{8}\)", "", words)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a plugin as a runtime makes it: the executable's CNI type, its whole environment, its input."""

    type: str
    env: Mapping[str, str]
    stdin: bytes


def make_call(
    type: str,
    command: str,
    config: Mapping[str, Any] | bytes,
    *,
    container_id: str = "",
    ifname: str = "",
    netns: str = "",
    args: str = "",
    path: Sequence[str] = PLUGIN_PATH,
    env: Mapping[str, str] | None = None,
) -> Call:
    """A call whose environment is nothing but the CNI variables that are not empty, and ``env``."""
    variables = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container_id,
        "CNI_NETNS": netns,
        "CNI_IFNAME": ifname,
        "CNI_ARGS": args,
        "CNI_PATH": ":".join(path),
    }
    stdin = config if isinstance(config, bytes) else json.dumps(config).encode()
    return Call(type, {key: value for key, value in variables.items() if value} | dict(env or {}), stdin)


Deliver = Callable[["Node", Call], Reply]


def through_process(node: Node, call: Call) -> Reply:
    """Deliver a call by executing the plugin on the node, as a runtime does."""
    process = node.start(call)
    out, err = process.communicate(call.stdin, timeout=TIMEOUT)
    return reply(out, err, process.returncode)


def reply(out: bytes, err: bytes, code: int) -> Reply:
    """Read what a plugin printed. Anything but one JSON text, or nothing, fails the test."""
    try:
        return Reply(json.loads(out) if out else None, err.decode(), code)
    except ValueError:
        pytest.fail(f"standard output is no JSON: {out!r}\n{err.decode(errors='replace')}")


class Node:
    """A node of its own: network, ``/sys``, ``/var/lib/cni``, and containers.

    :param deliver: how ``plugin`` reaches the plugin.
    :param engine: whether a call may leave an engine behind, which the calls after it find; it ends with the node.
    :param plugins: the folder of its executables, which stands for the checkout's wherever a test names that.
    """

    def __init__(
        self, deliver: Deliver = through_process, *, engine: bool = False, plugins: str = PLUGIN_PATH[0]
    ) -> None:
        self._deliver = deliver
        self._plugins = plugins
        self.name = f"{os.environ.get('PYTEST_XDIST_WORKER', 'node')}-{next(_numbers)}"
        self.environment = {"CNI_V6_RUN_DIR": f"/run/engine-{self.name}"} if engine else {"CNI_V6_ENGINE": "off"}
        self.containers: dict[str, str] = {}
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "slave", "sh", "-ec", HOLD],
            env=COMMANDS, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        assert self._holder.stdout and self._holder.stdout.readline() == b"ready\n", "the node did not come up"
        self.path = str(NETNS_FOLDER / self.name)
        Path(self.path).touch()
        _command("mount", "--bind", f"/proc/{self._holder.pid}/ns/net", self.path)

    @property
    def mount_namespace(self) -> str:
        """Path of the node's mount namespace."""
        return f"/proc/{self._holder.pid}/ns/mnt"

    def file(self, path: str) -> Path:
        """A path on the node, as seen from the test: the node's ``/var/lib/cni`` is its own."""
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def container(self, name: str) -> str:
        """Make a container: a network namespace with its loopback up. Returns its path."""
        full = f"{self.name}-{name}"
        _command("ip", "netns", "add", full)
        _command("ip", "-n", full, "link", "set", "lo", "up")
        self.containers[name] = str(NETNS_FOLDER / full)
        return self.containers[name]

    def remove_container(self, name: str) -> None:
        """Take a container away without telling any plugin, as a crash does."""
        _command("ip", "netns", "delete", Path(self.containers.pop(name)).name)

    def plugin(self, type: str, command: str, config: Mapping[str, Any] | bytes, **variables: Any) -> Reply:
        """Call a plugin; arguments as of ``make_call``."""
        return self._deliver(self, make_call(type, command, config, **variables))

    def start(self, call: Call) -> subprocess.Popen[bytes]:
        """Execute a plugin on the node. The caller feeds ``call.stdin``; the process is the plugin itself."""
        given = [self._plugins if each == PLUGIN_PATH[0] else each for each in call.env.get("CNI_PATH", "").split(":")]
        env = {**self.environment, **call.env} | ({"CNI_PATH": ":".join(given)} if any(given) else {})
        folders = filter(None, [*given, self._plugins, *PLUGIN_PATH])
        found = [path for folder in folders if os.access(path := f"{folder}/{call.type}", os.X_OK)]
        need(found, f"needs the plugin {call.type}")
        return subprocess.Popen(
            [*self._enter(self.path), found[0]],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )

    def run(
        self, *argv: str, netns: str = "", check: bool = True, stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the node, or in the network namespace of one of its containers."""
        done = subprocess.run(
            [*self._enter(netns or self.path), *argv],
            env=COMMANDS | dict(env or {}), input=stdin, capture_output=True, text=True, timeout=TIMEOUT,
        )
        if check and done.returncode != 0:
            pytest.fail(f"exit {done.returncode}: {' '.join(argv)}\n{done.stdout}{done.stderr}")
        outputs.check(argv, done.stdout)
        return done

    def spawn(self, *argv: str, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a program on the node that goes on; what it says on standard error is for the test, unbuffered."""
        return subprocess.Popen(
            [*self._enter(self.path), *argv], env=COMMANDS | dict(env), bufsize=0,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )

    def ip_json(self, *argv: str, netns: str = "") -> Any:
        """``ip -j`` with these arguments, read; an empty list where it printed nothing."""
        return json.loads(self.run("ip", "-j", *argv, netns=netns).stdout or "[]")

    def snapshot(self, data_dir: str = "/var/lib/cni/networks") -> Snapshot:
        """Everything a plugin may change: on the node, in its containers, in the lease store (a path on the node)."""
        places = {"node": "", **{f"container {name}": path for name, path in self.containers.items()}}
        return take({place: self._reader(netns) for place, netns in places.items()}, self.file(data_dir))

    @contextmanager
    def unchanged(self, ignore: str = "", data_dir: str = "/var/lib/cni/networks") -> Iterator[None]:
        """Fail the test, with the difference, unless the node is afterwards as it was before.

        :param ignore: a regular expression of snapshot lines that may differ.
        """
        before = self.snapshot(data_dir)
        yield
        difference = before.difference(self.snapshot(data_dir), ignore)
        if difference:
            pytest.fail("the node has changed:\n" + "\n".join(difference), pytrace=False)

    def close(self) -> None:
        """End every process on the node and every namespace; fail the test where anything of the node stays behind."""
        # Held open to the end: the kernel gives the number of a namespace that is gone to another node's next one.
        held = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in (self.path, *self.containers.values())]
        namespaces = {os.fstat(fd).st_ino for fd in held}
        while pids := processes.inside(namespaces, self.mount_namespace) - {self._holder.pid}:
            processes.kill_all(pids)
        for name in tuple(self.containers):
            self.remove_container(name)
        _command("umount", "--lazy", self.path)
        os.unlink(self.path)
        self._holder.communicate(timeout=TIMEOUT)
        left = [str(path) for path in NETNS_FOLDER.glob(f"{self.name}-*")]
        left += [f"descriptor {fd} of this process" for fd in processes.descriptors(namespaces) if fd not in held]
        left += [f"process {pid}" for pid in processes.inside(namespaces)]
        for fd in held:
            os.close(fd)
        assert not left, f"left behind: {left}"

    def _enter(self, netns: str) -> list[str]:
        return [NSENTER, f"--net={netns}", f"--mount={self.mount_namespace}", "--"]

    def _reader(self, netns: str) -> Callable[..., str]:
        return lambda *argv: self.run(*argv, netns=netns, check=False).stdout


def _command(*argv: str) -> None:
    done = subprocess.run(argv, env=COMMANDS, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
