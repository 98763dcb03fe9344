"""What can go wrong on a node, one at a time: a clear error, and nothing left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing

import pytest

from cni_v6.protocol.names import Owner, host_interface
from tests.netns import networks
from tests.netns.networks import DUAL, GATEWAY6, STORE, SUBNET4, Pod
from tests.netns.stepped_kernel import PAUSE, SteppedPlugin
from tests.netns.test_cut import start
from tests.processes import interruptible
from tests.sandbox import TIMEOUT, Node

pytestmark = pytest.mark.every_way

# A store without attachments has its own bookkeeping, and the firewall its empty tables.
SEEN = rf"attachments/\.(seen|memo)|{networks.TABLES}"


@pytest.fixture
def stepped(node: Node) -> Iterator[SteppedPlugin]:
    made = SteppedPlugin(node)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.usefixtures("any_plugin")
def test_a_full_disk(node: Node) -> None:
    node.run("mkdir", "-p", STORE)
    node.run("mount", "-t", "tmpfs", "-o", "size=64k", "none", STORE)
    config = networks.gateway(*DUAL)
    networks.set_up(node, config)
    pod = Pod(node, config, "a")
    node.run("sh", "-c", f"cat /dev/zero > {STORE}/ballast || true")
    with node.unchanged():
        message = pod.call("ADD").error(103)
    assert STORE in message and "No space left" in message and "free space" in message
    node.run("rm", f"{STORE}/ballast")
    pod.add()
    node.run("sh", "-c", f"cat /dev/zero > {STORE}/ballast || true")
    pod.delete()
    assert networks.leases(node) == set() == networks.veths(node), "DEL needs no space"


def test_every_file_that_cannot_be_written_is_a_clear_error(node: Node, stepped: SteppedPlugin) -> None:
    """A disk with room for ever one file more: ADD fails later each time, and leaves nothing each time."""
    config = networks.gateway(*DUAL)
    pod = Pod(node, config, "a")
    node.run("mkdir", "-p", STORE)
    codes = []
    for inodes in range(3, 30):
        node.run("mount", "-t", "tmpfs", "-o", f"nr_inodes={inodes}", "none", STORE)
        outcome = stepped.call(pod, "ADD")
        codes.append(outcome.stdout.get("code", 0))
        held = networks.leases(node)
        if codes[-1]:
            assert held == set() == networks.veths(node), f"left behind with {inodes} inodes"
            assert list(node.file(STORE).rglob("a:eth0")) == [], f"left behind with {inodes} inodes"
        stepped.call(pod, "DEL")
        assert networks.leases(node) == set() == networks.veths(node)
        node.run("umount", "--lazy", STORE)
        if not codes[-1]:
            break
    assert codes == [103] * (len(codes) - 1) + [0] and len(codes) > 4


@pytest.mark.usefixtures("any_plugin")
def test_a_read_only_store(node: Node) -> None:
    config = networks.gateway(*DUAL)
    [pod] = networks.pods(node, config, "attached")
    networks.link_local(node, "eth0", pod.netns)
    other = Pod(node, config, "a")
    node.run("mount", "-o", "remount,ro", "/var/lib/cni")
    with node.unchanged():
        message = other.call("ADD").error(103)
        assert f"{STORE}/pods" in message and "Read-only" in message and "ipam.dataDir" in message
    message = pod.call("DEL").error(103)
    assert "Read-only" in message
    node.run("mount", "-o", "remount,rw", "/var/lib/cni")
    pod.delete()
    assert networks.leases(node) == set() == networks.veths(node)


@pytest.mark.usefixtures("any_plugin")
def test_a_store_that_is_no_folder(node: Node) -> None:
    node.file("/var/lib/cni/file").write_text("")
    pod = Pod(node, networks.gateway(*DUAL, ipam={"dataDir": "/var/lib/cni/file"}), "a")
    with node.unchanged():
        assert "/var/lib/cni/file" in pod.call("ADD").error(103)


def make_sysctls_read_only(node: Node) -> None:
    node.run("sh", "-ec", "mount --bind /proc/sys /proc/sys ; mount -o remount,ro,bind /proc/sys")


def test_read_only_sysctls_that_are_right_are_fine(node: Node) -> None:
    """In a container, such as CI's, /proc/sys often is: whoever prepares it can have the defaults as they must be."""
    for key, value in (
        ("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1"), ("ipv6/conf/default/disable_ipv6", "1"),
        ("ipv4/conf/default/arp_notify", "1"),
    ):
        networks.set_sysctl(node, key, value)
    config = networks.gateway(SUBNET4)
    networks.set_up(node, config)
    netns = node.container("a")
    for key in ("ipv6/conf/default/disable_ipv6", "ipv4/conf/default/arp_notify"):
        networks.set_sysctl(node, key, "1", netns)
    make_sysctls_read_only(node)
    pod = Pod(node, config, "a")
    pod.add()
    assert pod.ping(networks.GATEWAY4)
    pod.delete()


def test_read_only_sysctls_that_are_wrong_are_named(node: Node) -> None:
    config = networks.gateway(*DUAL)
    networks.set_up(node, config)
    pod = Pod(node, config, "a")
    make_sysctls_read_only(node)
    with node.unchanged():
        refused_for_read_only_sysctls(pod)


def refused_for_read_only_sysctls(pod: Pod) -> None:
    message = pod.call("ADD").error(5)
    assert "net/ipv" in message and "Read-only" in message and "/proc/sys" in message


@pytest.mark.parametrize("subnets", [(), (SUBNET4,)], ids=["layer 2", "IPv4"])
def test_read_only_sysctls_that_are_a_precaution_are_a_warning(node: Node, subnets: tuple[str, ...]) -> None:
    """The kernel's own defaults; forwarding, which IPv4 needs, was set on the node."""
    networks.set_sysctl(node, "ipv4/ip_forward", "1")
    config = networks.gateway(*subnets) if subnets else networks.network()
    one, other = Pod(node, config, "a"), Pod(node, config, "b")
    make_sysctls_read_only(node)
    reply = one.call("ADD")
    reply.ok()
    assert "WARNING" in reply.stderr.upper() and "precautions were not taken: net/ipv6/conf/" in reply.stderr
    other.add()
    if subnets:
        assert one.ping(networks.GATEWAY4) and one.ping(other.result["ips"][0]["address"].partition("/")[0])
    for pod in (one, other):
        pod.delete()
    assert networks.leases(node) == set() == networks.veths(node)


def test_read_only_sysctls_that_ipv4_cannot_do_without(node: Node) -> None:
    networks.set_sysctl(node, "ipv4/ip_forward", "0")
    pod = Pod(node, networks.gateway(SUBNET4), "a")
    make_sysctls_read_only(node)
    message = pod.call("ADD").error(5)
    assert "cannot set net/ipv4/ip_forward=1" in message and "it is 0: set it on the node" in message
    assert networks.leases(node) == set() == networks.veths(node)


def test_read_only_sysctls_that_ipv6_cannot_do_without_are_set_beforehand(node: Node) -> None:
    """What the error says is enough."""
    config = networks.gateway(*DUAL)
    networks.set_sysctl(node, "ipv4/ip_forward", "1")
    pod = Pod(node, config, "a")
    for name, value in (("accept_ra", "1"), ("disable_ipv6", "1")):
        networks.set_sysctl(node, f"ipv6/conf/default/{name}", value, pod.netns)
    networks.set_up(node, config)
    make_sysctls_read_only(node)
    for name in ("disable_ipv6", "accept_ra"):
        message = pod.call("ADD").error(5)
        assert f"net/ipv6/conf/default/{name}=0 beforehand" in message, message
        node.run("mount", "-o", "remount,rw,bind", "/proc/sys")
        networks.set_sysctl(node, f"ipv6/conf/default/{name}", "0", pod.netns)
        node.run("mount", "-o", "remount,ro,bind", "/proc/sys")
    pod.add()
    assert pod.ping(GATEWAY6) and pod.ping(networks.GATEWAY4)
    pod.delete()


def test_what_netlink_can_set_needs_no_sysctl(node: Node) -> None:
    """On the bridge of an administrator every container is announced; a port published at 127.0.0.1 answers there."""
    ports = {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}}
    networks.set_sysctl(node, "ipv4/ip_forward", "1")
    node.run("ip", "link", "add", "cni0", "type", "bridge")
    pod = Pod(node, networks.gateway(SUBNET4, **ports), "a")
    make_sysctls_read_only(node)
    pod.add()
    assert networks.sysctl(node, "ipv4/conf/eth0/arp_notify", pod.netns) == "1"
    assert networks.sysctl(node, "ipv4/conf/cni0/route_localnet") == "1"
    pod.delete()


@pytest.mark.parametrize("of", ["all", "default"])
def test_ipv6_off_on_the_host(node: Node, of: str) -> None:
    networks.set_sysctl(node, f"ipv6/conf/{of}/disable_ipv6", "1")
    config = networks.gateway(*DUAL)
    pod = Pod(node, config, "a")
    if of == "all":
        with node.unchanged(ignore=SEEN):
            message = pod.call("ADD").error(109)
        assert "net.ipv6.conf.all.disable_ipv6" in message and networks.leases(node) == set()
        assert Pod(node, networks.gateway(SUBNET4), "four").add(), "IPv4 goes on"
    else:
        pod.add()
        assert pod.ping(GATEWAY6), "on for what the network owns: off by default is about interfaces to come"


@pytest.mark.usefixtures("any_plugin")
def test_a_namespace_that_is_not_there(node: Node) -> None:
    pod = Pod(node, networks.gateway(*DUAL), "a")
    node.remove_container("a")
    with node.unchanged():
        assert pod.netns in pod.call("ADD").error(3)


@pytest.mark.usefixtures("any_plugin")
def test_a_namespace_that_is_something_else(node: Node) -> None:
    pod = Pod(node, networks.gateway(*DUAL), "a")
    with node.unchanged():
        assert "/dev/null" in pod.call("ADD", netns="/dev/null").error(8)
        assert "network namespace" in pod.call("ADD", netns="/proc/self/ns/mnt").error(8)


@pytest.mark.usefixtures("any_plugin")
@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
@pytest.mark.parametrize("path", ["/proc/self/ns/net", "its mount"])
def test_the_plugins_own_namespace(node: Node, command: str, path: str) -> None:
    pod = Pod(node, networks.gateway(*DUAL), "a")
    config = {**pod.config, "prevResult": {"cniVersion": "1.1.0", "interfaces": [], "ips": []}}
    with node.unchanged():
        message = pod.call(command, config, netns=node.path if path == "its mount" else path).error(8)
    assert "own network namespace" in message


@pytest.mark.slow
def test_a_namespace_that_vanishes_half_way(node: Node, stepped: SteppedPlugin) -> None:
    """Before every operation in turn. What the plugin holds open lives on until it ends, so it may well succeed: then
    the runtime has a result for a container that is gone, and calls DEL."""
    config = networks.gateway(*DUAL)
    steps = steps_of(stepped, Pod(node, config, "a"))
    node.remove_container("a")
    with node.unchanged():
        for position in range(steps + 1):
            pod = Pod(node, config, "a")
            outcome = stepped.call(
                pod, "ADD", PAUSE, position, meanwhile=lambda: node.remove_container("a")
            )
            assert outcome.signal == 0 and isinstance(outcome.stdout, dict)
            if outcome.code:
                assert outcome.stdout["code"] in (3, 5, 100), outcome
                assert networks.leases(node) == set() == networks.veths(node)
            assert stepped.call(pod, "DEL").code == 0
            assert networks.leases(node) == set() == networks.veths(node)
    assert steps > 10


def steps_of(stepped: SteppedPlugin, pod: Pod) -> int:
    """The last position of an ADD that finds the network's bridge."""
    for _ in range(2):
        added = stepped.call(pod, "ADD")
        assert added.code == 0 == stepped.call(pod, "DEL").code, added
    return added.steps


@pytest.mark.slow
@pytest.mark.parametrize("what", ["interface", "bridge"])
def test_what_vanishes_half_way_on_the_node(node: Node, stepped: SteppedPlugin, what: str) -> None:
    """The host interface, or the whole bridge, goes away between two operations: an error that names it, all undone."""
    config = networks.gateway(*DUAL)
    pod = Pod(node, config, "a")
    steps, failed = steps_of(stepped, pod), 0
    before = node.snapshot()
    for position in range(steps):
        victim = "cni0" if what == "bridge" else host_interface(Owner("pods", "a", "eth0"))
        outcome = stepped.call(
            pod, "ADD", PAUSE, position, meanwhile=lambda: node.run("ip", "link", "delete", victim, check=False)
        )
        if outcome.code:
            failed += 1
            assert outcome.stdout["code"] in (5, 100) and outcome.stdout["details"], outcome
            assert networks.leases(node) == set(), outcome
        assert stepped.call(pod, "DEL").code == 0
        assert networks.leases(node) == set() == networks.veths(node)
        assert stepped.call(pod, "ADD").code == 0 == stepped.call(pod, "DEL").code, "the next one works"
    difference = before.difference(node.snapshot())
    assert not difference and failed > 3, difference


def test_a_bridges_name_that_something_else_has(node: Node) -> None:
    node.run("ip", "link", "add", "cni0", "type", "veth", "peer", "name", "x0")
    pod = Pod(node, networks.gateway(*DUAL), "a")
    with node.unchanged(ignore=SEEN):
        message = pod.call("ADD").error(105)
    assert "cni0" in message and "veth" in message and "another name" in message
    assert networks.leases(node) == set()


FAILING = """#!/bin/sh
echo "$CNI_COMMAND" >> /var/lib/cni/calls
echo "it speaks" >&2
[ "$CNI_COMMAND" = DEL ] && exit
echo '{"code": 142, "msg": "no luck", "details": "today"}'
exit 1
"""


def test_a_delegated_plugin_that_fails_is_undone(node: Node, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("plugins")
    ipam = folder / "failing-ipam"
    ipam.write_text(FAILING)
    ipam.chmod(0o755)
    pod = Pod(node, {**networks.network(isGateway=True), "ipam": {"type": "failing-ipam"}}, "a")
    with node.unchanged(ignore=SEEN):
        reply = pod.call("ADD", path=(str(folder),))
        message = reply.error(142)
    assert "failing-ipam ADD: no luck: today" in message and "it speaks" in reply.stderr
    assert node.file("/var/lib/cni/calls").read_text().split() == ["ADD", "DEL"]


@pytest.mark.usefixtures("any_plugin")
def test_a_delegated_plugin_that_answers_rubbish_or_nothing(node: Node) -> None:
    for text, code in (("echo rubbish", 106), ("true", 5), ("kill -9 $$", 106)):
        folder = node.file("/var/lib/cni/plugins")
        folder.mkdir(exist_ok=True)
        (folder / "odd-ipam").write_text(f'#!/bin/sh\n[ "$CNI_COMMAND" = DEL ] || {text}\n')
        (folder / "odd-ipam").chmod(0o755)
        pod = Pod(node, {**networks.network(isGateway=True), "ipam": {"type": "odd-ipam"}}, "a")
        with node.unchanged(ignore=SEEN):
            message = pod.call("ADD", path=("/var/lib/cni/plugins",)).error(code)
        assert "odd-ipam" in message


SLOW = """#!/bin/sh
[ "$CNI_COMMAND" = DEL ] && exit
echo >/var/lib/cni/plugins/begun
read answer </var/lib/cni/plugins/never
"""


def test_a_call_that_is_interrupted_is_one_that_was_killed() -> None:
    """Python's exception would come anywhere, in the container's namespace too, and the undoing of an ADD after it."""
    with closing(Node()) as node:
        folder = node.file("/var/lib/cni/plugins")
        folder.mkdir()
        (folder / "slow-ipam").write_text(SLOW)
        (folder / "slow-ipam").chmod(0o755)
        for fifo in ("begun", "never"):
            os.mkfifo(folder / fifo)
        pod = Pod(node, {**networks.network(isGateway=True), "ipam": {"type": "slow-ipam"}}, "a")
        with node.unchanged(ignore=SEEN):
            with interruptible():
                process = start(node, pod, "ADD", "/var/lib/cni/plugins")
            (folder / "begun").read_text()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=TIMEOUT)
            assert (process.returncode, errors) == (-signal.SIGINT, b"")
            assert pod.call("DEL", path=("/var/lib/cni/plugins",)).code == 0
