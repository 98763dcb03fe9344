"""Macvlans: the fake kernel and the real one keep the same promises."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.kernel import awaits, child_link, ops
from cni_v6.kernel.fake.kernel import FakeKernel
from cni_v6.kernel.open_namespaces import Spaces
from cni_v6.kernel.ops import HOST, Op
from cni_v6.kernel.questions import GetChildMode
from tests.contract.kernels import KernelTestbed, linux_testbed
from tests.contract.test_kernel import MAC, NO_DAD, addresses, attach, link, refused, routes, there
from tests.netns import wire

WIRE, FAR, MASTER_MAC = "up0", "far0", "02:00:00:00:01:0b"
OTHER_MAC = "02:00:00:00:00:0d"
IP, PREFIX = "2001:db8::2", "2001:db8::2/64"


def wired(testbed: KernelTestbed) -> KernelTestbed:
    """An uplink of the node, up, whose other end is ``far0`` in container b."""
    wire = ops.CreateVeth(WIRE, MASTER_MAC, "", testbed.b, FAR, "02:00:00:00:01:0a", 1400)
    quiet = [ops.SetSysctl(where, NO_DAD.format(name), "0") for where, name in ((HOST, WIRE), (testbed.b, FAR))]
    testbed.kernel.apply([wire, *quiet, ops.SetLink(testbed.b, FAR, up=True), awaits.AwaitCarrier(WIRE)])
    return testbed


def macvlan(testbed: KernelTestbed, **changes: Any) -> ops.CreateChildLink:
    own = ops.CreateChildLink(HOST, WIRE, testbed.a, "eth0", "mv0", "macvlan", "bridge", MAC, 0, "cni-v6 lan/a/eth0")
    return replace(own, **changes)


def mode(testbed: KernelTestbed, netns: str, ifname: str) -> str:
    kind, found = testbed.kernel.observe([GetChildMode(netns, ifname)]).child_mode(netns, ifname)
    assert (kind == "macvlan") == bool(found)
    return found


def test_a_macvlan_is_made_down_in_its_namespace(testbed: KernelTestbed) -> None:
    """Whatever the node has under its name: nothing of it is ever on the node."""
    wired(testbed).kernel.apply([ops.CreateVeth("eth0", OTHER_MAC, "", testbed.b, "eth9", "02:00:00:00:00:0e", 0)])
    testbed.kernel.apply([macvlan(testbed)])
    made = there(testbed, testbed.a, "eth0")
    assert (made.kind, made.mac, made.mtu, made.up, made.alias) == ("macvlan", MAC, 1400, False, "cni-v6 lan/a/eth0")
    assert mode(testbed, testbed.a, "eth0") == "bridge"
    assert link(testbed, testbed.a, "mv0") is None and there(testbed, HOST, "eth0").mac == OTHER_MAC
    assert mode(testbed, HOST, WIRE) == mode(testbed, testbed.a, "eth1") == ""


@pytest.mark.parametrize("wanted", ["private", "vepa", "passthru"])
def test_modes_and_mtu(testbed: KernelTestbed, wanted: str) -> None:
    wired(testbed).kernel.apply([macvlan(testbed, mode=wanted, mtu=1300)])
    made = there(testbed, testbed.a, "eth0")
    assert (mode(testbed, testbed.a, "eth0"), made.mtu) == (wanted, 1300)
    assert made.mac == (MASTER_MAC if wanted == "passthru" else MAC)


def test_a_macvlan_on_an_interface_of_the_container(testbed: KernelTestbed) -> None:
    wired(testbed).kernel.apply([macvlan(testbed, place=testbed.b, master=FAR, netns=testbed.b)])
    assert mode(testbed, testbed.b, "eth0") == "bridge" and there(testbed, testbed.b, "eth0").mtu == 1400


def test_a_macvlan_of_the_nodes_own(testbed: KernelTestbed) -> None:
    """It may exist already, and stays whatever fails later."""
    own = macvlan(testbed, netns=HOST, ifname="mv0", shared=True)
    with refused(errors.KERNEL_REFUSED, "nothing"):
        wired(testbed).kernel.apply([own, ops.SetAlias(HOST, "nothing", "x")])
    before = there(testbed, HOST, "mv0")
    assert (before.kind, before.alias, before.mac, before.up) == ("macvlan", own.alias, MAC, False)
    testbed.kernel.apply([replace(own, mac=OTHER_MAC)])
    assert there(testbed, HOST, "mv0") == before


def test_a_route_with_a_source(testbed: KernelTestbed) -> None:
    source = ops.AddAddress(HOST, WIRE, "192.0.2.1/24")
    own = macvlan(testbed, netns=HOST, ifname="mv0", shared=True)
    up, route = ops.SetLink(HOST, "mv0", up=True), ops.AddRoute(HOST, "mv0", "192.0.2.9/32", source="192.0.2.1")
    wired(testbed).kernel.apply([source, own, up, route, route])
    [found] = routes(testbed, HOST, "192.0.2.9/32", "mv0")
    assert found.gateway is None


def test_a_macvlan_whose_name_is_taken(testbed: KernelTestbed) -> None:
    wired(testbed).kernel.apply([macvlan(testbed)])
    with refused(errors.ALREADY_ATTACHED, "eth0", testbed.a):
        testbed.kernel.apply([macvlan(testbed, mac=OTHER_MAC)])
    assert there(testbed, testbed.a, "eth0").mac == MAC and link(testbed, testbed.a, "mv0") is None


def test_a_macvlan_without_its_master(testbed: KernelTestbed) -> None:
    with refused(errors.KERNEL_REFUSED, "eth0", WIRE):
        testbed.kernel.apply([macvlan(testbed)])


@pytest.mark.parametrize("modes", [("passthru", "bridge"), ("bridge", "passthru"), ("passthru", "passthru")])
def test_passthru_shares_its_master_with_nobody(testbed: KernelTestbed, modes: tuple[str, str]) -> None:
    wired(testbed).kernel.apply([macvlan(testbed, mode=modes[0])])
    with refused(errors.NODE_CONFLICT, WIRE, modes[1]):
        testbed.kernel.apply([macvlan(testbed, ifname="eth1", mac=OTHER_MAC, mode=modes[1])])


def test_a_port_of_a_bridge_takes_none(testbed: KernelTestbed) -> None:
    attach(testbed)
    with refused(errors.NODE_CONFLICT, "veth0"):
        testbed.kernel.apply([macvlan(testbed, master="veth0", netns=testbed.b)])


def test_a_macvlan_is_undone(testbed: KernelTestbed) -> None:
    with refused(errors.KERNEL_REFUSED, "nothing"):
        wired(testbed).kernel.apply([macvlan(testbed), ops.SetAlias(HOST, "nothing", "x")])
    assert link(testbed, testbed.a, "eth0") is None


def test_a_macvlan_goes_with_its_master(testbed: KernelTestbed) -> None:
    wired(testbed).kernel.apply([macvlan(testbed)])
    testbed.kernel.remove([ops.DeleteLink(HOST, WIRE)])
    assert link(testbed, testbed.a, "eth0") is None


def test_a_macvlan_is_deleted_and_may_be_gone(testbed: KernelTestbed) -> None:
    wired(testbed).kernel.apply([macvlan(testbed)])
    for _ in range(2):
        testbed.kernel.remove([ops.DeleteLink(testbed.a, "eth0")])
    assert link(testbed, testbed.a, "eth0") is None and there(testbed, HOST, WIRE)


def test_a_duplicate_is_named_with_the_mac_that_has_it(testbed: KernelTestbed) -> None:
    """Duplicate address detection fails; then the kernel is asked who has the address."""
    far = there(wired(testbed), testbed.b, FAR)
    testbed.kernel.apply([ops.AddAddress(testbed.b, FAR, PREFIX)])
    if isinstance(testbed.kernel, FakeKernel):
        testbed.kernel.duplicates[IP] = far.mac
    steps = (ops.AddAddress(testbed.a, "eth0", PREFIX, dad=True), ops.SetLink(testbed.a, "eth0", up=True))
    with refused(errors.ADDRESS_UNAVAILABLE, IP, far.mac):
        testbed.kernel.apply([macvlan(testbed), *steps, awaits.AwaitAddresses(testbed.a, "eth0")])
    assert link(testbed, testbed.a, "eth0") is None and addresses(testbed, testbed.b, FAR) == [PREFIX]


@contextmanager
def advertised(testbed: KernelTestbed) -> Iterator[None]:
    """A router on the uplink's other end, with the prefix 2001:db8:5::/64."""
    if isinstance(testbed.kernel, FakeKernel):
        testbed.kernel.advertised = "2001:db8:5::a/64", wire.ROGUE
        yield
        return
    with wire.advertising(testbed.b, FAR, "2001:db8:5::"):
        yield


def listening(testbed: KernelTestbed) -> list[Op]:
    """A macvlan that takes addresses and routes from routers."""
    settings = (("accept_dad", "0"), ("accept_ra", "2"), ("autoconf", "1"))
    steps = [ops.SetSysctl(testbed.a, f"ipv6/conf/eth0/{name}", value) for name, value in settings]
    return [macvlan(testbed), *steps, ops.SetLink(testbed.a, "eth0", up=True)]


def test_an_address_and_a_route_from_a_router(testbed: KernelTestbed) -> None:
    with advertised(wired(testbed)):
        testbed.kernel.apply([*listening(testbed), awaits.AwaitRouter(testbed.a, "eth0", 10)])
    [address] = addresses(testbed, testbed.a, "eth0")
    assert address.startswith("2001:db8:5::") and address.endswith("/64")
    assert [route.gateway for route in routes(testbed, testbed.a, "::/0")] == [wire.ROGUE]


def test_no_router(testbed: KernelTestbed) -> None:
    """The error names what is missing, and everything is undone."""
    with refused(errors.TRY_AGAIN, "an address and a default route", "0.2 seconds"):
        wired(testbed).kernel.apply([*listening(testbed), awaits.AwaitRouter(testbed.a, "eth0", 0.2)])
    assert link(testbed, testbed.a, "eth0") is None


def test_a_router_that_gives_an_address_alone(testbed: KernelTestbed) -> None:
    wired(testbed)
    steps = listening(testbed)
    if isinstance(testbed.kernel, FakeKernel):
        testbed.kernel.advertised = "2001:db8:5::a/64", ""
    else:
        steps.append(ops.AddAddress(testbed.a, "eth0", "2001:db8:5::a/64"))
    with refused(errors.TRY_AGAIN, "gave a default route within"):
        testbed.kernel.apply([*steps, awaits.AwaitRouter(testbed.a, "eth0", 0.2)])


def rename(netns: str, ifname: str) -> None:
    """As a container with CAP_NET_ADMIN can at any moment."""
    subprocess.run(["nsenter", f"--net={netns}", "ip", "link", "set", ifname, "name", "mine"], check=True)


@pytest.mark.netns
def test_one_that_the_container_renames_is_undone() -> None:
    """Whatever it is called by then: without a record nobody would ever remove it."""
    with linux_testbed() as testbed:
        def steps() -> Iterator[Op]:
            yield macvlan(testbed)
            rename(testbed.a, "eth0")
            yield ops.SetLink(testbed.a, "eth0", up=True)

        with refused(errors.KERNEL_REFUSED, "eth0"):
            wired(testbed).kernel.apply(steps())
        assert link(testbed, testbed.a, "mine") is None


@pytest.mark.netns
@pytest.mark.parametrize("mode", ["bridge", "passthru"])
def test_one_that_the_container_renames_before_it_has_its_name(mode: str) -> None:
    """It is found by its kind and MAC; what else the container has stays."""
    class Renaming(Spaces):
        def index(self, netns: str, ifname: str) -> int | None:
            if ifname == "mv0":
                rename(netns, ifname)
            return super().index(netns, ifname)

    def create(operation: ops.CreateChildLink) -> None:
        with closing(Renaming()) as spaces:
            child_link.create(spaces, operation)

    with linux_testbed() as testbed:
        wired(testbed)
        if mode == "bridge":
            testbed.kernel.apply([macvlan(testbed, ifname="eth1", temporary="mv1", mac=OTHER_MAC)])
        mac = MAC if mode == "bridge" else ""
        with refused(errors.KERNEL_REFUSED, "mv0 is not in the container any more"):
            testbed.elsewhere.run(lambda: create(macvlan(testbed, mode=mode, mac=mac)))
        assert link(testbed, testbed.a, "mine") is None
        assert bool(link(testbed, testbed.a, "eth1")) == (mode == "bridge")


@pytest.mark.netns
def test_with_its_masters_mac_it_does_not_come_up() -> None:
    with linux_testbed() as testbed:
        wired(testbed).kernel.apply([macvlan(testbed, mac=MASTER_MAC)])
        with refused(errors.ADDRESS_UNAVAILABLE, "MAC", "eth0"):
            testbed.kernel.apply([ops.SetLink(testbed.a, "eth0", up=True)])
