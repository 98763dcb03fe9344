"""podman runs containers on a network of ours through its CNI backend."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.sandbox import ROOT

from . import networks
from .node import node
from .podman import COMMANDS, IMAGE, WITHOUT_CNI, Podman, has_cni, podman

pytestmark = [pytest.mark.runtimes, pytest.mark.xdist_group("podman")]

NETWORK, RESERVING = "pod6", "reserving6"
RESERVED = {"fd00:7::d00", "10.77.0.100"}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    networks.need_commands(*COMMANDS)
    if not has_cni():
        pytest.skip(WITHOUT_CNI)
    with node() as machine:
        networks.install(machine)
        machine.path(f"/etc/cni/net.d/{NETWORK}.conflist").write_text(networks.conflist(NETWORK, "1.0.0"))
        mine = {"reserve": {"proxy": sorted(RESERVED)}, **networks.ipam("fd00:7::/64", "10.77.0.0/24")}
        reserving = networks.conflist(RESERVING, "1.0.0", networks.bridge(bridge="reserving0", ipam=mine))
        machine.path(f"/etc/cni/net.d/{RESERVING}.conflist").write_text(reserving)
        yield podman(machine, tmp_path_factory.mktemp("podman"))


def leases(runtime: Podman) -> set[str]:
    return networks.leases(runtime.node.path(networks.STORE), NETWORK)


def test_podman_lists_the_network(runtime: Podman) -> None:
    assert NETWORK in runtime("network", "ls", "--format", "{{.Name}}").split()


def test_a_container_pings_its_gateways_and_another_container_and_leaves_nothing(runtime: Podman) -> None:
    runtime.node.run(ROOT / "bin/cni-v6ctl", "engine", "--stop")  # that another test's call left behind
    before = runtime.node.state()
    options = (f"--network={NETWORK}", "--cap-add=NET_RAW")  # podman's default has no NET_RAW, which ping needs
    runtime.run("--detach", "--name=peer", *options, IMAGE)
    settings = json.loads(runtime("inspect", "peer"))[0]["NetworkSettings"]["Networks"][NETWORK]
    peer = {settings["IPAddress"], settings["GlobalIPv6Address"]}
    assert leases(runtime) == peer
    pings = [f"ping -c 1 -W 5 {address}" for address in (networks.GATEWAY6, networks.GATEWAY4, *sorted(peer))]
    probe = " && ".join(["ip -o address show dev eth0 scope global", *pings])
    output = runtime.run("--rm", *options, IMAGE, "/bin/sh", "-c", probe)
    assert output.count("1 packets received") == len(pings)
    assert {line.split()[2] for line in output.splitlines() if "eth0" in line} == {"inet", "inet6"}
    assert leases(runtime) == peer
    runtime("rm", "--force", "--time=0", "peer")
    assert leases(runtime) == set()
    assert runtime.node.left_behind(before) == []


def test_a_container_is_known_by_its_name(runtime: Podman) -> None:
    """Whose id is another every time."""
    for _ in range(2):
        runtime.run("--detach", "--name=proxy", f"--network={RESERVING}", IMAGE)
        settings = json.loads(runtime("inspect", "proxy"))[0]["NetworkSettings"]["Networks"][RESERVING]
        assert {settings["IPAddress"], settings["GlobalIPv6Address"]} == RESERVED
        runtime("rm", "--force", "--time=0", "proxy")
