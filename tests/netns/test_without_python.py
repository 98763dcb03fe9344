"""A node without Python: its root has busybox and what the DaemonSet puts there; the engine lives in a container.

Both containers are those of deploy/kubernetes/daemonset.yaml: runc runs them with its mounts, capabilities and paths
(tests/kubernetes.py), from the image of deploy/Dockerfile (tests/image.py). What the manifest says is what is tested.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from cni_v6.protocol import names
from tests import image, kubernetes
from tests.couriers import NAMES, build
from tests.distributions import PYTHON_DIR
from tests.image import Image
from tests.netns import networks, wire
from tests.netns.networks import DUAL, Pod
from tests.netns.test_renumbering import FIRST, PART, SECOND, deprecate, give, network as following
from tests.sandbox import COMMANDS, TIMEOUT, Call, Node, Reply, need, reply

# Needs busybox-static, runc and containers-common; one image for all.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("without python")]

BUSYBOX = "/usr/bin/busybox"
CONFIG = networks.gateway(*DUAL)
BARE = "/opt/cni/bin"  # as runtimes have it
MACHINE_ID = "0123456789abcdef0123456789abcdef"
LOST = "no cni-v6 engine answers on this node"

LAYERS = "/opt/layers"  # in memory: an overlay takes no folder of another overlay for its upper half

# The machine as kubelet finds it, with folders of its own where it makes some.
FRESH = f"""
mount -t tmpfs none /opt
mkdir -p {LAYERS}/etc/upper {LAYERS}/etc/work
mount -t overlay -o lowerdir=/etc,upperdir={LAYERS}/etc/upper,workdir={LAYERS}/etc/work overlay /etc
echo {MACHINE_ID} >/etc/machine-id
mkdir -p /run/cni-v6
mount -t tmpfs -o mode=755 none /run/cni-v6
"""
# Words: the new root's folder, the folder of busybox, then what to execute.
NODE_ROOT = """
root=$1 programs=$2; shift 2
mount -t tmpfs none $root
mkdir -p $root/bin $root/opt/cni/bin $root/run/cni-v6 $root/run/netns $root/proc $root/dev $root/old
cp $programs/busybox $root/bin/
mount --bind /opt/cni/bin $root/opt/cni/bin
mount --bind /run/cni-v6 $root/run/cni-v6
mount --rbind /run/netns $root/run/netns
mount --rbind /proc $root/proc
mount --rbind /dev $root/dev
cd $root
pivot_root . old
/bin/busybox umount -l /old
exec "$@"
"""

_numbers = count(1)


class Machine:
    """The node. Its engine is the one that ``engine`` runs.

    :param place: a folder for its root, and for runc. ``config_map``: the folder of the ConfigMap ``cni-v6``.
    """

    def __init__(self, place: Path, made: Image) -> None:
        self._image = made
        self._place = place
        self.config_map = place / "config map"
        for folder in (place / "root", place / "programs", place / "runc", self.config_map):
            folder.mkdir()
        shutil.copy(BUSYBOX, place / "programs/busybox")
        self.pod = kubernetes.pod()
        self.node = Node(self._deliver)
        self.node.run("sh", "-euc", FRESH)

    def on_the_node(self, *argv: str) -> str:
        """What a program prints that is executed in the node's root, where it must succeed."""
        return subprocess.run(self._argv(*argv), env={}, check=True, capture_output=True, text=True).stdout

    def install(self) -> str:
        """Run the pod's first container to its end; what it says."""
        [container] = self.pod["initContainers"]
        done = subprocess.run(self._runc("run", "--bundle", self._bundle(container), self._id()), env=COMMANDS,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def container(self) -> Any:
        """What the manifest says of the engine's container; a test may change it."""
        [container] = self.pod["containers"]
        return container

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """An engine in its container, from when it listens. It is ended as kubelet ends it."""
        engine = Engine(self, self._id())
        argv = self._runc("run", "--bundle", self._bundle(self.container), engine.id)
        with subprocess.Popen(argv, env=COMMANDS, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            try:
                while not any(self.node.file("/run/cni-v6").glob("engine-*.sock")):  # it appears listening
                    assert process.poll() is None, process.stderr and process.stderr.read().decode()
                yield engine
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    assert process.wait(TIMEOUT) == 0, process.stderr and process.stderr.read().decode()

    def execute(self, container: str, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in a running container, as ``kubectl exec`` and probes do."""
        done = subprocess.run(self._runc("exec", container, *argv), env=COMMANDS, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=TIMEOUT)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def _id(self) -> str:
        return f"{self.node.name}-{next(_numbers)}"

    def _bundle(self, container: Mapping[str, Any]) -> str:
        for path in kubernetes.host_paths(self.pod).values():
            if path["type"].endswith("OrCreate"):  # as kubelet does (pkg/volume/hostpath): with mode 0755
                self.node.run("mkdir", "-p", "-m", "755", path["path"])
        bundle = self._place / f"bundle-{next(_numbers)}"
        bundle.joinpath("root").mkdir(parents=True)
        layer = f"{LAYERS}/{bundle.name}"  # of the container's own on top of the image's
        self.node.run("mkdir", "-p", f"{layer}/upper", f"{layer}/work")
        layers = f"lowerdir={self._image.root},upperdir={layer}/upper,workdir={layer}/work"
        self.node.run("mount", "-t", "overlay", "-o", layers, "overlay", f"{bundle}/root")
        mounts = (kubernetes.bind("/usr", "/usr", "rprivate", "ro"), kubernetes.bind(self._image.local, "/usr/local"))
        config = kubernetes.configuration(
            self.pod, container, root=bundle / "root", image=mounts, env=self._image.env,
            cgroup=f"/cni-v6-test-{os.getpid()}-{bundle.name}",  # control groups are the machine's own
            config_maps={"cni-v6": self.config_map},
        )
        bundle.joinpath("config.json").write_text(json.dumps(config), encoding="utf-8")
        return str(bundle)

    def _runc(self, *words: str) -> list[str]:
        return [*self._enter(), "runc", "--root", str(self._place / "runc"), *words]

    def _enter(self) -> list[str]:
        return ["nsenter", f"--net={self.node.path}", f"--mount={self.node.mount_namespace}", "--"]

    def _argv(self, *argv: str) -> list[str]:
        own = ["unshare", "--mount", "--propagation", "slave", "sh", "-euc", NODE_ROOT, "sh"]
        return [*self._enter(), *own, str(self._place / "root"), str(self._place / "programs"), *argv]

    def _deliver(self, node: Node, call: Call) -> Reply:
        env = {**call.env, "CNI_PATH": BARE}
        argv = ["/bin/busybox", "env", "-i", *(f"{key}={value}" for key, value in env.items()), f"{BARE}/{call.type}"]
        done = subprocess.run(self._argv(*argv), env=COMMANDS, input=call.stdin, capture_output=True, timeout=TIMEOUT)
        return reply(done.stdout, done.stderr, done.returncode)


class Engine:
    """A running engine. ``id``: its container's."""

    def __init__(self, machine: Machine, id: str) -> None:
        self._machine = machine
        self.id = id

    def execute(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """See ``Machine.execute``."""
        return self._machine.execute(self.id, *argv, check=check)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Image:
    need(shutil.which("runc"), "needs runc")
    need(kubernetes.SECCOMP.exists(), "needs the seccomp profile of golang-github-containers-common")
    return image.build(tmp_path_factory.mktemp("image"))


@pytest.fixture
def machine(tmp_path: Path, made: Image) -> Iterator[Machine]:
    """A node that has its plugins, and no engine yet."""
    need(os.access(BUSYBOX, os.X_OK), "needs busybox-static")
    found = Machine(tmp_path, made)
    try:
        found.install()
        yield found
    finally:
        found.node.close()


def test_the_first_container_puts_couriers_on_the_node(tmp_path: Path, made: Image) -> None:
    machine = Machine(tmp_path, made)
    try:
        assert "the plugins are the courier" in machine.install()
        plugins = machine.node.file(BARE)
        for name in NAMES:
            assert plugins.joinpath(name).read_bytes().startswith(b"\x7fELF")
            assert plugins.joinpath(name).stat().st_mode & 0o777 == 0o755
        assert "cni-v6: unchanged" in machine.install(), "as at each start of a pod"
    finally:
        machine.node.close()


def test_the_first_container_brings_a_configuration_along(machine: Machine) -> None:
    """The component "conflist". Another ConfigMap is another file at the pod's next start; somebody's own is not."""
    machine.pod = kubernetes.with_component("conflist")
    given, there = machine.config_map / "10-cni-v6.conflist", machine.node.file("/etc/cni/net.d/10-cni-v6.conflist")
    for config in (CONFIG, following()):
        given.write_text(json.dumps({"cniVersion": "1.1.0", "name": "pods", "plugins": [config]}), encoding="utf-8")
        machine.install()
        assert there.read_bytes() == given.read_bytes() and there.stat().st_mode & 0o777 == 0o644
    there.write_text("{}", encoding="utf-8")
    given.write_text(json.dumps({"cniVersion": "1.1.0", "name": "pods", "plugins": [CONFIG]}), encoding="utf-8")
    with pytest.raises(AssertionError, match="10-cni-v6.conflist is not of cni-v6ctl install"):
        machine.install()


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


@pytest.mark.parametrize("version", ["99.0.0", "0.0.1"])
def test_plugins_and_engine_are_upgraded_one_after_the_other(machine: Machine, tmp_path: Path, version: str) -> None:
    """An engine of another version serves the node's plugins, and goes on."""
    pod = Pod(machine.node, CONFIG, "a")
    flags = ("-UCOURIER_VERSION", f'-DCOURIER_VERSION="{version}"')
    with machine.engine() as engine:
        pod.add()
        build(tmp_path / "other", *flags, python=PYTHON_DIR)
        for name in NAMES:
            shutil.copy(tmp_path / "other" / name, machine.node.file(BARE) / f"{name}.new")
            machine.node.file(f"{BARE}/{name}.new").rename(machine.node.file(f"{BARE}/{name}"))
        assert pod.check().ok() is None
        pod.delete()
        engine.execute("true")
    with machine.engine():
        pod.add()
        pod.delete()


def test_an_engine_that_is_forbidden_is_not_made_use_of(machine: Machine) -> None:
    pod = Pod(machine.node, CONFIG, "a")
    with machine.engine(), machine.node.unchanged():
        message = pod.call("ADD", {**CONFIG, "engine": "off"}).error(11)
        assert "the configuration forbids it" in message
        assert "CNI_V6_ENGINE=off" in pod.call("ADD", env={"CNI_V6_ENGINE": "off"}).error(11)
    with machine.engine():
        pod.add({**CONFIG, "engine": "auto"})
        pod.delete()


# What the manifest gives the engine


def test_a_probe_asks_the_engine(machine: Machine) -> None:
    """Each of the three; where nobody answers at the socket, it fails."""
    kinds = ("startupProbe", "readinessProbe", "livenessProbe")
    probes = [machine.container[kind]["exec"]["command"] for kind in kinds]
    with machine.engine() as engine:
        for command in probes:
            assert "1.1.0" in json.loads(engine.execute(*command).stdout)["supportedVersions"]
        [socket] = machine.node.file("/run/cni-v6").glob("engine-*.sock")
        socket.rename(socket.with_suffix(".aside"))
        for command in probes:
            done = engine.execute(*command, check=False)
            assert done.returncode != 0 and LOST in done.stdout
        socket.with_suffix(".aside").rename(socket)


def test_the_operators_command_works_in_the_container(machine: Machine) -> None:
    with machine.engine() as engine:
        [pod] = networks.pods(machine.node, CONFIG, "a")
        assert f"{pod.address(6)} {pod.address(4)}" in engine.execute("cni-v6ctl", "list").stdout
        assert "nothing differs on 1 network" in engine.execute("cni-v6ctl", "check").stdout
        assert "with 1 attachment" in engine.execute("cni-v6ctl", "reload").stdout
        pod.delete()


def test_nothing_is_left_out_for_want_of_a_privilege(machine: Machine) -> None:
    """No warning of an ADD, such as of sysctls that cannot be written; what it did is what CHECK finds."""
    networks.outside(machine.node)
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": protocol} for protocol in ("tcp", "udp")]
    keys = {"ipMasq": True, "runtimeConfig": {"portMappings": ports},
            "capabilities": {"portMappings": True}, "egress": [{"to": "2001:db8:ffff::/64"}]}
    pod = Pod(machine.node, networks.gateway(*DUAL, **keys), "a")
    with machine.engine():
        answer = pod.call("ADD")
        pod.result = answer.ok()
        assert "warning" not in answer.stderr
        assert pod.ping(networks.OUTSIDE[6])
        assert pod.check().ok() is None
        pod.delete()
        assert not networks.leases(machine.node)


def test_a_bridge_that_is_deleted_comes_back(machine: Machine) -> None:
    node = machine.node
    with machine.engine():
        [pod] = networks.pods(node, CONFIG, "a")
        before = node.snapshot()
        node.run("ip", "link", "delete", "cni0")
        wire.await_state(node.path, lambda: before.difference(node.snapshot()) == [], "the node as it was")
        assert pod.ping(networks.GATEWAY6)
        assert pod.check().ok() is None


def without(machine: Machine, capability: str) -> None:
    machine.container["securityContext"]["capabilities"]["add"].remove(capability)


def without_mount(machine: Machine, name: str) -> None:
    mounts = machine.container["volumeMounts"]
    mounts.remove(next(mount for mount in mounts if mount["name"] == name))


def test_without_net_admin_it_does_not_start(machine: Machine) -> None:
    without(machine, "NET_ADMIN")
    with pytest.raises(AssertionError, match="cni-v6ctl engine needs root: .* give the container CAP_NET_ADMIN"):
        with machine.engine():
            pass


def test_without_sys_admin_it_cannot_enter_a_containers_namespace(machine: Machine) -> None:
    without(machine, "SYS_ADMIN")
    pod = Pod(machine.node, CONFIG, "a")
    with machine.engine(), machine.node.unchanged(ignore=networks.TABLES):
        assert "cannot enter network namespace" in pod.call("ADD").error(5)


@pytest.mark.parametrize("held", [True, False])
def test_without_dac_read_search_it_does_not_see_that_a_namespace_has_ended(machine: Machine, held: bool) -> None:
    """From Linux 6.18 on: before, the engine searches /proc, for which it must see the node's processes
    (tests/uml/test_search.py)."""
    need(tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 18), "needs Linux 6.18")
    if not held:
        without(machine, "DAC_READ_SEARCH")
    with machine.engine() as engine:
        networks.pods(machine.node, CONFIG, "a")
        machine.node.remove_container("a")
        assert f"{1 if held else 0} attachment" in engine.execute("cni-v6ctl", "gc").stdout.splitlines()[-1]


def test_without_the_folder_of_the_sockets_nobody_finds_it(machine: Machine) -> None:
    without_mount(machine, "run")
    with pytest.raises(AssertionError, match="cannot listen at /run/cni-v6/engine-.*: .*Read-only file system"):
        with machine.engine():
            pass


def test_without_the_leases_folder_it_cannot_lease(machine: Machine) -> None:
    without_mount(machine, "leases")
    pod = Pod(machine.node, CONFIG, "a")
    with machine.engine(), machine.node.unchanged(ignore=networks.TABLES):
        assert "Read-only file system" in pod.call("ADD").error(103)


def test_without_the_nodes_sysctls_it_cannot_set_up_an_interface(machine: Machine) -> None:
    without_mount(machine, "sysctls")
    pod = Pod(machine.node, CONFIG, "a")
    with machine.engine():
        assert "cannot set net/ipv6/conf/cni0/accept_ra=0: Read-only file system" in pod.call("ADD").error(5)


@pytest.mark.parametrize("mounted", [True, False])
def test_without_the_machine_id_the_nodes_name_stands_for_it(machine: Machine, mounted: bool) -> None:
    """It tells the bridges of two nodes on one wire from each other; the name of a node can change."""
    if not mounted:
        without_mount(machine, "machine")
    with machine.engine():
        networks.pods(machine.node, CONFIG, "a")
        own = MACHINE_ID if mounted else os.uname().nodename
        assert networks.link(machine.node, "cni0")["address"] == names.bridge_mac("cni0", own)


@pytest.mark.parametrize("mounted", [True, False])
def test_without_the_containers_namespaces_it_cannot_renumber(machine: Machine, mounted: bool) -> None:
    if not mounted:
        without_mount(machine, "netns")
    node = machine.node
    router = networks.uplink(node)
    give(node, router, FIRST)
    with machine.engine() as engine:
        [pod] = networks.pods(node, following(), "a")
        give(node, router, SECOND)
        deprecate(node, FIRST)
        node.file("/var/lib/cni/pods.conflist").write_text(json.dumps({
            "cniVersion": "1.1.0", "name": "pods", "plugins": [following()]}), encoding="utf-8")
        engine.execute("cni-v6ctl", "renumber", "/var/lib/cni/pods.conflist", check=mounted)
        addresses = networks.addresses(node, "eth0", pod.netns)
        assert any(address.startswith(PART[SECOND]) for address in addresses) == mounted
