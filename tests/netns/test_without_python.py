"""A node without Python: its root has busybox and the courier, the engine lives in a container's root with Python.

Both share the node's network, the folder of the engine's socket and the containers' namespaces, as on a cluster whose
nodes get their plugins from a DaemonSet. The container has of the machine what conf/kubernetes/engine-daemonset.yaml
mounts, and no more: a root of its own, read-only.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.couriers import build
from tests.netns import networks
from tests.netns.networks import DUAL, Pod
from tests.sandbox import COMMANDS, ROOT, TIMEOUT, Call, Node, Reply, need, reply

pytestmark = pytest.mark.slow  # needs busybox-static

BUSYBOX = "/usr/bin/busybox"
CONFIG = networks.gateway(*DUAL)
BARE = "/opt/cni/bin"  # as runtimes have it; on the node alone

# Words: the new root's folder, the folder of the sockets, that of the programs or the checkout, then what to execute.
NODE_ROOT = """
root=$1 run=$2 programs=$3; shift 3
mount -t tmpfs none $root
mkdir -p $root/bin $root/opt/cni/bin $root/run/cni-v6 $root/run/netns $root/proc $root/dev $root/old
cp $programs/busybox $root/bin/
cp $programs/cni-v6 $programs/cni-v6-ipam $root/opt/cni/bin/
mount --bind $run $root/run/cni-v6
mount --rbind /run/netns $root/run/netns
mount --rbind /proc $root/proc
mount --rbind /dev $root/dev
cd $root
pivot_root . old
/bin/busybox umount -l /old
exec "$@"
"""
ENGINE_ROOT = """
root=$1 run=$2 checkout=$3; shift 3
mount --bind / $root
mount --bind $checkout $root$checkout
mount -o remount,bind,ro $root
mount -t tmpfs none $root/run
mkdir -p $root/run/cni-v6 $root/run/netns $root/run/old
mount --bind $run $root/run/cni-v6
mount --rbind /run/netns $root/run/netns
mount --rbind /var/lib/cni $root/var/lib/cni
mount --rbind /proc $root/proc
mount --rbind /dev $root/dev
cd $root
pivot_root . run/old
umount -l /run/old
exec "$@"
"""


class Machine:
    """The two roots on one node, which has no engine yet.

    :param place: a folder for them.
    """

    def __init__(self, place: Path) -> None:
        self._roots = {NODE_ROOT: place / "node", ENGINE_ROOT: place / "engine"}
        self.sockets, self.programs = place / "run", place / "programs"
        for folder in (*self._roots.values(), self.sockets, self.programs):
            folder.mkdir(mode=0o700)
        shutil.copy(BUSYBOX, self.programs / "busybox")
        build(self.programs, python=Path("/usr/local/lib/cni-v6/bin"))
        self.node = Node(self._deliver)

    def on_the_node(self, *argv: str) -> str:
        """What a program prints that is executed in the node's root, where it must succeed."""
        return subprocess.run(self._argv(NODE_ROOT, *argv), env={}, check=True, capture_output=True, text=True).stdout

    @contextmanager
    def engine(self) -> Iterator[int]:
        """An engine in the container's root, from when it listens; its process. It is ended as kubelet ends it."""
        argv = self._argv(ENGINE_ROOT, str(ROOT / "bin/cni-v6ctl"), "engine")
        with subprocess.Popen(argv, env=COMMANDS, stderr=subprocess.PIPE) as process:
            try:
                while not any(self.sockets.glob("engine-*.sock")):  # it appears listening
                    assert process.poll() is None, process.stderr and process.stderr.read()
                yield process.pid
            finally:
                process.send_signal(signal.SIGTERM)
                assert process.wait(TIMEOUT) == 0

    def _argv(self, setup: str, *argv: str) -> list[str]:
        enter = ["nsenter", f"--net={self.node.path}", f"--mount={self.node.mount_namespace}", "--"]
        own = ["unshare", "--mount", "--propagation", "slave", "sh", "-euc", setup, "sh"]
        source = self.programs if setup is NODE_ROOT else ROOT
        return [*enter, *own, str(self._roots[setup]), str(self.sockets), str(source), *argv]

    def _deliver(self, node: Node, call: Call) -> Reply:
        env = {**call.env, "CNI_PATH": BARE}
        argv = ["env", "-i", *(f"{key}={value}" for key, value in env.items()), f"{BARE}/{call.type}"]
        done = subprocess.run(
            self._argv(NODE_ROOT, "/bin/busybox", *argv), env=COMMANDS, input=call.stdin, capture_output=True,
            timeout=TIMEOUT,
        )
        return reply(done.stdout, done.stderr, done.returncode)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    need(os.access(BUSYBOX, os.X_OK), "needs busybox-static")
    made = Machine(tmp_path)
    try:
        yield made
    finally:
        made.node.close()


def test_a_call_without_an_engine_says_what_to_start(machine: Machine) -> None:
    assert not machine.on_the_node("/bin/busybox", "find", "/", "-xdev", "-name", "*python*")
    pod = Pod(machine.node, CONFIG, "a")
    with machine.node.unchanged():
        for command in ("ADD", "DEL", "STATUS", "VERSION"):
            message = pod.call(command).error(11)
            assert "no cni-v6 engine answers on this node" in message and "cni-v6ctl engine" in message


def test_a_containers_life(machine: Machine) -> None:
    """ADD, CHECK, DEL, GC, STATUS, VERSION."""
    node = machine.node
    first, second = (Pod(node, CONFIG, name) for name in "ab")
    with machine.engine():
        assert "1.1.0" in node.plugin("cni-v6", "VERSION", CONFIG).ok()["supportedVersions"]
        node.plugin("cni-v6", "STATUS", CONFIG).ok()
        first.add()
        second.add()
        node.run("ping", "-6", "-n", "-c", "1", "-W", "5", second.address(6), netns=first.netns)
        node.run("ping", "-4", "-n", "-c", "1", "-W", "5", second.address(4), netns=first.netns)
        assert first.check().ok() is None
        valid = [{"containerID": "b", "ifname": "eth0"}]
        node.plugin("cni-v6", "GC", {**CONFIG, "cni.dev/valid-attachments": valid}).ok()
        assert [link["ifname"] for link in node.ip_json("link", netns=first.netns)] == ["lo"]
        assert second.check().ok() is None
        second.delete()
        first.delete()
        assert [link["ifname"] for link in node.ip_json("link", netns=second.netns)] == ["lo"]


def test_a_container_outlives_its_engine(machine: Machine) -> None:
    """The DaemonSet's pod is restarted: between, calls fail with what a runtime tries again."""
    pod = Pod(machine.node, CONFIG, "a")
    with machine.engine():
        pod.add()
    assert "no cni-v6 engine" in pod.call("DEL").error(11)
    with machine.engine():
        assert pod.check().ok() is None
        pod.delete()
        assert [link["ifname"] for link in machine.node.ip_json("link", netns=pod.netns)] == ["lo"]


def test_a_namespace_that_is_gone_is_no_hindrance(machine: Machine) -> None:
    pod = Pod(machine.node, CONFIG, "a")
    with machine.engine():
        pod.add()
        machine.node.remove_container("a")
        pod.delete()
        pod.delete()


def test_plugins_and_engine_are_upgraded_one_after_the_other(machine: Machine) -> None:
    """An engine of another version serves the node's plugins, and goes on."""
    pod = Pod(machine.node, CONFIG, "a")
    version = ("-UCOURIER_VERSION", '-DCOURIER_VERSION="99.0.0"')
    with machine.engine() as engine:
        pod.add()
        build(machine.programs, *version, python=Path("/usr/local/lib/cni-v6/bin"))
        assert b"99.0.0" in (machine.programs / "cni-v6").read_bytes()
        assert pod.check().ok() is None
        pod.delete()
        os.kill(engine, 0)


def test_an_engine_that_is_forbidden_is_not_made_use_of(machine: Machine) -> None:
    pod = Pod(machine.node, CONFIG, "a")
    with machine.engine(), machine.node.unchanged():
        message = pod.call("ADD", {**CONFIG, "engine": "off"}).error(11)
        assert "the configuration forbids it" in message
        assert "CNI_V6_ENGINE=off" in pod.call("ADD", env={"CNI_V6_ENGINE": "off"}).error(11)
    with machine.engine():
        pod.add({**CONFIG, "engine": "auto"})
        pod.delete()
