"""A network moves from the reference plugins to these by its ``type``, with its containers running, and back."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from cni_v6.leases.disk.store import DiskLeases
from tests import stores
from tests.netns import networks, wire
from tests.netns.networks import DUAL, GATEWAY4, GATEWAY6, Pod
from tests.sandbox import REFERENCE_PLUGINS, ROOT, Node, need

pytestmark = pytest.mark.slow

OURS: dict[str, Any] = {
    **networks.gateway(*DUAL, cniVersion="1.0.0", ipam={"type": "host-local", "routes": [{"dst": "2001:db8::/32"}]}),
}
THEIRS = {**OURS, "type": "bridge"}

# Both plugins at once: 1,024 calls, of callers that have three containers each at most, so that no set runs dry.
CALLERS, CONTAINERS, HELD = 16, 32, 3
SMALL, LARGE = ("10.3.0.0/26", "fd01::/122"), "2001:db8::/64"
BY_LIBRARY, BY_EXECUTABLE, BY_REFERENCE = "library", "cni-v6-ipam", "host-local"
SEED = 20261123


class Reference(Pod):
    """A container that the reference plugins attach."""

    def call(self, command: str, config: Any = None, **variables: Any) -> Any:
        given = {"container_id": self.name, "ifname": self.ifname, "netns": self.netns, **variables}
        return self.node.plugin("bridge", command, config or THEIRS, **given)


@pytest.fixture(autouse=True)
def reference() -> None:
    need(os.access(f"{REFERENCE_PLUGINS}/bridge", os.X_OK), "needs containernetworking-plugins")


def moved(node: Node, *names: str) -> list[Pod]:
    """Containers that the reference plugins attached, now under our configuration, results and all."""
    made = []
    for name in names:
        old = Reference(node, THEIRS, name)
        old.add()
        pod = Pod(node, OURS, name)
        pod.result = old.result
        made.append(pod)
    # The reference's gateway address goes through duplicate address detection, which takes a second.
    wire.await_state(node.path, lambda: is_settled(node), "the end of duplicate address detection")
    return made


def is_settled(node: Node) -> bool:
    return not any(entry.get("tentative") for entry in networks.addresses(node, "cni0").values())


def test_new_containers_avoid_the_old_leases_and_reach_the_old_containers(node: Node) -> None:
    old = moved(node, "a", "b")
    (node.file(networks.STORE) / "pods" / "last_reserved_ip.0").unlink()
    (node.file(networks.STORE) / "pods" / "last_reserved_ip.1").unlink()
    [new] = networks.pods(node, OURS, "c")
    for family, gateway in ((4, GATEWAY4), (6, GATEWAY6)):
        assert new.address(family) not in {pod.address(family) for pod in old}
        assert new.ping(old[0].address(family)) and old[1].ping(new.address(family))
        assert new.ping(gateway) and old[0].ping(gateway)


@pytest.mark.slow
def test_what_convert_prints_takes_over_running_containers(quiet_node: Node) -> None:
    node = quiet_node
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    theirs = {key: value for key, value in THEIRS.items() if key not in ("name", "cniVersion")}
    document = {"cniVersion": "1.0.0", "name": "pods", "plugins": [theirs, portmap]}
    printed = node.run(str(ROOT / "bin/cni-v6ctl"), "convert", "-", stdin=json.dumps(document)).stdout
    [plugin] = json.loads(printed)["plugins"]
    [old] = moved(node, "a")
    [new] = networks.pods(node, {"cniVersion": "1.0.0", "name": "pods", **plugin}, "b")
    for family in (4, 6):
        assert new.address(family) != old.address(family)
        assert new.ping(old.address(family)) and old.ping(new.address(family))
    old.delete(new.config)
    assert networks.leases(node) == {new.address(4), new.address(6)}


def test_check_of_an_old_result(node: Node) -> None:
    [pod] = moved(node, "a")
    assert pod.check().ok() is None
    node.run("ip", "address", "del", pod.address(4) + "/24", "dev", "eth0", netns=pod.netns)
    assert pod.address(4) in pod.check().error(104)


@pytest.mark.parametrize("gone", [False, True], ids=["running", "namespace gone"])
def test_del_of_an_old_container_takes_its_interface_and_its_leases(node: Node, gone: bool) -> None:
    keeps, leaves = moved(node, "keeps", "leaves")
    if gone:
        node.remove_container("leaves")
    leaves.delete()
    leaves.delete()
    if not gone:
        assert networks.veths(node, leaves.netns) == set()
    assert networks.veths(node) == {keeps.host}
    assert networks.leases(node) == {keeps.address(4), keeps.address(6)}
    assert keeps.ping(GATEWAY6)


def test_del_leaves_an_interface_alone_that_is_not_the_old_containers(node: Node) -> None:
    [pod] = moved(node, "a")
    node.run("ip", "link", "delete", "eth0", netns=pod.netns)
    node.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other0", netns=pod.netns)
    pod.delete()
    assert networks.veths(node, pod.netns) == {"eth0", "other0"} and networks.leases(node) == set()


def test_gc_frees_what_the_reference_has_leaked(node: Node) -> None:
    keeps, leaked = moved(node, "keeps", "leaked")
    node.remove_container("leaked")
    valid = [{"containerID": "keeps", "ifname": "eth0"}]
    node.plugin("cni-v6", "GC", {**OURS, "cniVersion": "1.1.0", "cni.dev/valid-attachments": valid}).ok()
    assert networks.leases(node) == {keeps.address(4), keeps.address(6)} and leaked.result


def test_and_back(node: Node) -> None:
    """The reference frees what we leased, and hands out no address that a container of ours still has."""
    leaves, stays = networks.pods(node, OURS, "leaves", "stays")
    theirs = Reference(node, THEIRS, "leaves")
    theirs.delete({**THEIRS, "prevResult": leaves.result})
    assert networks.veths(node, leaves.netns) == set() and networks.veths(node) == {stays.host}
    assert networks.leases(node) == {stays.address(4), stays.address(6)}
    for name in ("x", "y", "z"):
        Reference(node, THEIRS, name).add()
    assert len(networks.leases(node)) == 8
    assert stays.ping(GATEWAY6) and stays.check().ok() is None


def test_and_forth_again_with_the_same_container(node: Node) -> None:
    """Its record of ours has outlived the reference's DEL; nothing else has, so it is in nobody's way."""
    [pod] = networks.pods(node, OURS, "a")
    Reference(node, THEIRS, "a").delete()
    pod.add()
    assert pod.check().ok() is None and pod.ping(GATEWAY4)
    pod.delete()
    assert networks.leases(node) == set() == networks.veths(node)


def test_the_ipam_plugin_alone_moves_there_and_back(node: Node) -> None:
    """The reference's bridge all the time; each container goes by the IPAM plugin that has not attached it."""
    types = ("host-local", "cni-v6-ipam", "host-local")
    configs = [{**THEIRS, "ipam": {**THEIRS["ipam"], "type": type}} for type in types]
    containers = [Reference(node, config, name) for config, name in zip(configs, "abc")]
    for container in containers:
        container.result = container.call("ADD", container.config).ok()
    wire.await_state(node.path, lambda: is_settled(node), "the end of duplicate address detection")
    for one, other in zip(containers, containers[1:]):
        assert one.ping(other.address(4)) and other.ping(one.address(6)) and other.ping(GATEWAY6)
    assert len(networks.leases(node)) == 6
    for container, config in zip(containers, (configs[1], configs[0], configs[1])):
        assert container.call("DEL", {**config, "prevResult": container.result}).ok() is None
        assert not {container.address(4), container.address(6)} & networks.leases(node)
    assert networks.leases(node) == set()


class Both:
    """One folder that both IPAM plugins work on, ours by executable and by library; and who holds what in it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._netns = node.container("any")
        self._sets = tuple(stores.pool(subnet) for subnet in (*SMALL, LARGE))
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        self.leases = DiskLeases(stores.NETWORK, str(node.file(networks.STORE)), boot=boot)
        self.folder = node.file(networks.STORE) / stores.NETWORK
        self.holders: dict[str, str] = {}  # address -> container, from the end of its ADD to the start of its DEL
        self.given: list[str] = []
        self._lock = Lock()

    def add(self, how: str, name: str) -> None:
        if how == BY_LIBRARY:
            addresses = stores.add(self.leases, name, *self._sets)
        else:
            addresses = tuple(ip["address"].partition("/")[0] for ip in self._call(how, "ADD", name)["ips"])
        with self._lock:
            taken = {address: self.holders[address] for address in addresses if address in self.holders}
            assert not taken, f"given to {name} by {how}: {taken}"
            self.holders.update(dict.fromkeys(addresses, name))
            self.given += addresses

    def delete(self, how: str, name: str) -> None:
        with self._lock:
            for address in [address for address, holder in self.holders.items() if holder == name]:
                del self.holders[address]
        if how == BY_LIBRARY:
            stores.delete(self.leases, name)
        else:
            assert self._call(how, "DEL", name) is None

    def _call(self, how: str, command: str, name: str) -> Any:
        ranges = [[{"subnet": subnet}] for subnet in (*SMALL, LARGE)]
        config = {"cniVersion": "1.0.0", "name": stores.NETWORK, "type": how, "ipam": {"type": how, "ranges": ranges}}
        return self._node.plugin(how, command, config, container_id=name, ifname="eth0", netns=self._netns).ok()


def come_and_go(both: Both, caller: int) -> Iterator[str]:
    """One caller's containers, each attached and detached in ways drawn by lot; yields those that stay."""
    chance = random.Random(SEED + caller)
    ways = (BY_LIBRARY, BY_EXECUTABLE, BY_REFERENCE)
    alive: list[str] = []
    for number in range(CONTAINERS):
        alive.append(f"c{caller}-{number}")
        both.add(chance.choice(ways), alive[-1])
        if len(alive) == HELD:
            both.delete(chance.choice(ways), alive.pop(chance.randrange(HELD)))
    yield from alive


@pytest.mark.slow
def test_both_at_once_on_one_folder_never_hand_out_the_same(warm_node: Node) -> None:
    """Our library and executables and the reference's, 16 at a time: adds and deletes of what any has added."""
    both = Both(warm_node)
    with ThreadPoolExecutor(CALLERS) as pool:
        stay = [name for names in pool.map(lambda caller: list(come_and_go(both, caller)), range(CALLERS))
                for name in names]
    assert len(both.given) == 3 * CALLERS * CONTAINERS
    large = [address for address in both.given if address.startswith(LARGE.partition("/")[0])]
    assert len(set(large)) == len(large) == CALLERS * CONTAINERS  # at no time, not only at one time
    assert stores.lease_files(both.folder) == {address: f"{name}\r\neth0" for address, name in both.holders.items()}
    with both.leases.transaction() as work:
        held = {each.owner.container_id: set(each.addresses) for each in work.attachments() if each.addresses}
    assert held == {name: {address for address, holder in both.holders.items() if holder == name} for name in stay}
    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(both.delete, [BY_REFERENCE, BY_EXECUTABLE] * (len(stay) // 2), stay))
    assert stores.lease_files(both.folder) == {}
