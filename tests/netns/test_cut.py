"""Cut off anywhere: an ADD that was killed, or that failed, leaves nothing that DEL does not take away."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.netns import networks
from tests.netns.networks import DUAL, SUBNET4, SUBNET6, Pod
from tests.netns.stepped_kernel import CUT, FAIL, SteppedPlugin
from tests.sandbox import PLUGIN_PATH, Node, make_call, need, reply
from tests.snapshot import Snapshot, take

pytestmark = pytest.mark.slow


def of_type(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in networks.OF_A_BRIDGE} | {"type": kind}


LINK_LOCAL = {"ranges": [[{"subnet": SUBNET6, "gateway": "link-local"}]], "routes": [{"dst": "2001:db8::/32"}]}
SCENARIOS = {
    "dual-stack": networks.gateway(*DUAL, mtu=1400, hairpinMode=True),
    "IPv6-only by link-local": networks.gateway(SUBNET6, ipam=LINK_LOCAL),
    "IPv4-only": networks.gateway(
        SUBNET4, promiscMode=True, portIsolation=True, bandwidth={"egressRate": 10**6, "egressBurst": 10**6}
    ),
    "layer-2": networks.network(),
    "routed": of_type(networks.ROUTED, networks.network(*DUAL, sourceBasedRouting=True)),
    "macvlan": of_type(networks.MACVLAN, networks.network(*DUAL, sourceBasedRouting=True, master=networks.UPLINK)),
    "delegated": {
        **networks.network(isDefaultGateway=True, cniVersion="1.0.0"),  # as new as Debian's host-local
        "ipam": {
            "type": "foreign-ipam", "dataDir": "/var/lib/cni/foreign",
            "ranges": [[{"subnet": SUBNET6}], [{"subnet": SUBNET4}]],
        },
    },
}

FURTHER = ("routed", "macvlan")  # nothing that the network's first container makes is theirs alone

# The bridge, its addresses and forwarding are the network's: they come with the first container and stay.
NETWORKS_OWN = (
    r"\bcni0\b|sysctl ipv4/(ip_forward|conf/\S+/forwarding|conf/all/accept_redirects) |/force_forwarding |\.seen"
)
KILLS = 200
AT_ONCE = 10
SEED = 20260823


@pytest.fixture
def bare() -> Iterator[Node]:
    """A node on which the plugin runs as a process, whatever else may be tested: it is what gets killed."""
    made = Node()
    try:
        yield made
    finally:
        made.close()


def prepared(node: Node, name: str) -> Pod:
    """A container for the network of a scenario, and the uplink where that needs one."""
    if SCENARIOS[name]["type"] == networks.MACVLAN:
        networks.outside(node)
    return Pod(node, SCENARIOS[name], "a")


@contextmanager
def stage_on(node: Node) -> Iterator[SteppedPlugin]:
    made = SteppedPlugin(node)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def plugins(tmp_path: Path) -> str:
    """A folder with an IPAM plugin that is not ours: the reference's, under another name."""
    need(os.access("/usr/lib/cni/host-local", os.X_OK), "needs containernetworking-plugins")
    (tmp_path / "foreign-ipam").symlink_to("/usr/lib/cni/host-local")
    return str(tmp_path)


def both_stores(node: Node) -> list[str]:
    """What the network's store and the foreign plugin's hold, but for what is no container's."""
    folders = [node.file("/var/lib/cni/networks"), node.file("/var/lib/cni/foreign")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sorted(
        f"{path} {path.read_bytes()!r}"
        for path in files
        if not path.name.startswith((".seen", "lock", "last_reserved")) and "cursors" not in path.parts
    )


class Start:
    """The node as it is before an ADD, now that one container has come and gone.

    :param fresh: as for the first container of the network: without the bridge and the firewall's tables.
    """

    def __init__(self, node: Node, fresh: bool) -> None:
        self._node = node
        self._fresh = fresh
        self._networks = node.snapshot().lines
        self.over()
        self._before, self._leases = node.snapshot(), both_stores(node)

    def over(self) -> None:
        """Back to it, where an ADD has changed what belongs to the network."""
        if self._fresh:
            self._node.run("ip", "link", "delete", "cni0", check=False)
            self._node.run("nft", "flush", "ruleset", check=False)

    def difference(self) -> list[str]:
        """What is otherwise now, but for what is the network's and stays."""
        ours = {f"+ {line}" for line in self._networks} if self._fresh else set()
        found = self._before.difference(self._node.snapshot(), NETWORKS_OWN if self._fresh else "")
        leases = set(self._leases).symmetric_difference(both_stores(self._node))
        return [line for line in found if line not in ours] + sorted(leases)


@pytest.mark.parametrize(
    ("name", "fresh"),
    [*((name, name not in FURTHER) for name in SCENARIOS), ("dual-stack", False)],
    ids=lambda value: value if isinstance(value, str) else "first container" if value else "further container",
)
def test_killed_before_any_operation_del_takes_everything_away(
    bare: Node, plugins: str, name: str, fresh: bool
) -> None:
    pod = prepared(bare, name)
    with stage_on(bare) as stepped:
        _come_and_go(stepped, pod, plugins)
        begin = Start(bare, fresh)
        for position in itertools.count():
            begin.over()
            cut = stepped.call(pod, "ADD", CUT, position, CNI_PATH=plugins)
            assert stepped.call(pod, "DEL", CNI_PATH=plugins).code == 0
            if cut.code == 0:  # there is no such position
                break
            assert cut.signal == 9, cut
            left = begin.difference()
            assert not left, f"killed before operation {position}:\n" + "\n".join(left)
            _come_and_go(stepped, pod, plugins)
    assert position == cut.steps + 1 > 5


def _come_and_go(stepped: SteppedPlugin, pod: Pod, plugins: str) -> int:
    """An ADD that works, and its DEL; how many operations it has."""
    added = stepped.call(pod, "ADD", CNI_PATH=plugins)
    assert added.code == 0, added
    assert stepped.call(pod, "DEL", CNI_PATH=plugins).code == 0
    return added.steps


def test_killed_while_it_waits_for_duplicate_address_detection(bare: Node, plugins: str) -> None:
    """Only the last operations: each of these ADDs takes a second or two."""
    pod = Pod(bare, networks.gateway(SUBNET6, enabledad=True), "a")
    with stage_on(bare) as stepped:
        _come_and_go(stepped, pod, plugins)
        steps = _come_and_go(stepped, pod, plugins)
        before = bare.snapshot()
        for position in (steps - 2, steps - 1, steps):
            assert stepped.call(pod, "ADD", CUT, position).signal == 9
            assert stepped.call(pod, "DEL").code == 0
            assert before.difference(bare.snapshot()) == []


@pytest.mark.parametrize("name", SCENARIOS)
def test_failed_before_any_operation_add_undoes_itself(bare: Node, plugins: str, name: str) -> None:
    pod = prepared(bare, name)
    networks.set_sysctl(bare, "ipv6/conf/lo/disable_ipv6", "1", pod.netns)  # as some runtimes have it
    with stage_on(bare) as stepped:
        _come_and_go(stepped, pod, plugins)
        steps = _come_and_go(stepped, pod, plugins)
        before, leases = bare.snapshot(), both_stores(bare)
        for position in range(steps + 1):
            failed = stepped.call(pod, "ADD", FAIL, position, CNI_PATH=plugins)
            assert failed.code == 1 and failed.stdout["code"] == 100, failed
            assert "no-such-link" in failed.stdout["msg"]
            difference = before.difference(bare.snapshot())
            assert not difference, f"failed before operation {position}:\n" + "\n".join(difference)
            assert both_stores(bare) == leases
        _come_and_go(stepped, pod, plugins)


def test_killed_at_random_moments_del_takes_everything_away(bare: Node) -> None:
    """Real executables, real SIGKILL, ten at once; the moments are drawn over the length of an undisturbed ADD.

    The DELs go to the stepped plugin: the same code without two hundred starts of an interpreter.
    """
    moments = random.Random(SEED)
    config = networks.gateway(*DUAL)
    networks.set_up(bare, config)
    made = [Pod(bare, config, f"c{number}") for number in range(AT_ONCE)]
    everything, before = bare.snapshot(), _host(bare)
    length = _length_of(bare, made)
    answered = 0
    with stage_on(bare) as stepped:
        for _ in range(KILLS // AT_ONCE):
            started = [start(bare, pod, "ADD") for pod in made]
            answered += _kill(started, sorted(moments.uniform(0, length) for _ in made))
            assert {stepped.call(pod, "DEL").code for pod in made} == {0}
            difference = before.difference(_host(bare))
            assert not difference, "\n".join(difference)
    assert everything.difference(bare.snapshot()) == []
    assert answered < KILLS, "the kills came too late to mean anything"
    made[0].add()
    assert made[0].ping(networks.GATEWAY6)


def _host(node: Node) -> Snapshot:
    """The node and its store, without its containers: many of them cost more to look at than all the rest."""
    return take({"node": lambda *argv: node.run(*argv, check=False).stdout}, node.file(networks.STORE))


def start(node: Node, pod: Pod, command: str, *folders: str) -> subprocess.Popen[bytes]:
    """The executable at work; ``folders``: where other plugins may be besides."""
    call = make_call(
        "cni-v6", command, pod.config, container_id=pod.name, ifname="eth0", netns=pod.netns,
        path=(*folders, *PLUGIN_PATH),
    )
    process = node.start(call)
    assert process.stdin
    process.stdin.write(call.stdin)
    process.stdin.close()
    process.stdin = None
    return process


def _end(process: subprocess.Popen[bytes]) -> Any:
    out, err = process.communicate()
    return reply(out, err, process.returncode).ok()


def _length_of(node: Node, made: Sequence[Pod]) -> float:
    """How long as many ADDs at once take here, seconds."""
    begun = time.monotonic()
    for process in [start(node, pod, "ADD") for pod in made]:
        _end(process)
    length = time.monotonic() - begun
    for pod in made:
        pod.delete()
    return length


def _kill(started: Sequence[subprocess.Popen[bytes]], moments: Sequence[float]) -> int:
    """Kill each process at its moment, in seconds from now; how many had answered before."""
    begun = time.monotonic()
    answered = 0
    for process, moment in zip(started, moments):
        try:
            process.wait(timeout=max(0.0, begun + moment - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
        answered += process.wait() == 0
        process.communicate()
    return answered
