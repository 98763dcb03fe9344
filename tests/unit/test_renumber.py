"""Running containers that follow a prefix, on a node of fakes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cni_v6.config.main import IPAM_PLUGIN
from cni_v6.ctl import renumber as command
from cni_v6.errors import KERNEL_REFUSED, CniError
from cni_v6.firewall import policy_change
from cni_v6.firewall.elements import elements
from cni_v6.firewall.policy import Policy
from cni_v6.kernel import ops
from cni_v6.kernel.facts import Lifetime
from cni_v6.kernel.ops import HOST
from cni_v6.leases.attachment import Attachment
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner
from tests.unit.fake_context import CONFIG, FakeContext
from tests.unit.test_interface_prefix import uplink

Capture = pytest.CaptureFixture[str]
A, B = "2001:db8:a::5/64", "2001:db8:b::5/64"
PART = {A: "2001:db8:a:0:ab00::", B: "2001:db8:b:0:ab00::"}
RANGES: list[list[dict[str, Any]]] = [
    [{"from": "up0", "subnetId": "ab00", "length": 80}], [{"subnet": "10.1.0.0/24"}],
]


class Bench:
    """A network's conflist, and the operator's command for it."""

    def __init__(self, folder: Path, capture: Capture, **keys: Any) -> None:
        self.fake = FakeContext()
        self.capture = capture
        ipam = {"type": IPAM_PLUGIN, "ranges": keys.pop("ranges", RANGES), **keys.pop("ipam", {})}
        self.config = CONFIG | {"ipam": ipam} | keys
        self.path = folder / "net.conflist"
        plugin = {key: value for key, value in self.config.items() if key not in ("name", "cniVersion")}
        document = {"cniVersion": "1.1.0", "name": "pods", "plugins": [plugin, {"type": "portmap"}]}
        self.path.write_text(json.dumps(document))
        self.has(A)

    def has(self, *held: str | Lifetime) -> None:
        uplink(*held, fake=self.fake.kernel)

    def run(
        self, *, dry: bool = False, find: Callable[[tuple[int, int]], str | None] | None = None, as_json: bool = False,
    ) -> list[str]:
        """The lines it prints; the last one is its status where it failed."""
        seeing = Finding(self.fake, find)
        chosen = argparse.Namespace(conflist=[self.path], dry_run=dry, json=as_json)
        status = command.run(chosen, self.fake.context, lambda _: seeing)
        return [*self.capture.readouterr().out.splitlines(), *([f"exit {status}"] if status else [])]

    def inside(self, container: str = "c1") -> dict[str, bool]:
        """The container's IPv6 addresses, and whether each is deprecated."""
        found = self.fake.kernel.lifetimes(f"/run/netns/{container}", "eth0")
        return {each.address.partition("/")[0]: not each.preferred for each in found}

    def record(self) -> Attachment:
        [record] = self.fake.attachments()
        return record


class Finding:
    """Namespaces of the fake kernel."""

    def __init__(self, fake: FakeContext, find: Callable[[tuple[int, int]], str | None] | None) -> None:
        self.kernel = fake.kernel
        self.instead = find

    def __enter__(self) -> Finding:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def find(self, namespace: tuple[int, int]) -> str | None:
        if self.instead:
            return self.instead(namespace)
        return next((path for path in self.kernel.spaces if self.kernel.netns_id(path) == namespace), None)


@pytest.fixture
def make(tmp_path: Path, capsys: Capture) -> Callable[..., Bench]:
    return lambda **keys: Bench(tmp_path, capsys, **keys)


def test_two_steps(make: Callable[..., Bench]) -> None:
    bench = make()
    fake, old, new = bench.fake, PART[A] + "1", PART[B] + "1"
    result = fake.add("c1", bench.config)
    assert bench.run() == ["pods/c1/eth0: unchanged"]
    bench.has(Lifetime(A, 0), B)
    before = fake.state()
    assert bench.run(dry=True) == [f"pods/c1/eth0: {old} -> {new}"]
    assert json.loads(bench.run(dry=True, as_json=True)[0]) == {
        "network": "pods", "containerID": "c1", "ifname": "eth0", "message": f"{old} -> {new}", "failed": False,
        "dryRun": True,
    }
    assert fake.state() == before
    assert bench.run() == [f"pods/c1/eth0: {old} -> {new}"]
    assert bench.inside() == {old: True, new: False}
    record = bench.record()
    assert record.addresses == (new, "10.1.0.2", old) and record.policy
    assert record.policy.addresses == record.addresses
    assert set(elements(record.owner, record.policy)) == set(fake.kernel.firewall.elements())
    before = fake.state()
    assert bench.run() == [f"pods/c1/eth0: {new} beside {old}"]
    assert fake.state() == before
    bench.has(B)
    assert bench.run(dry=True) == bench.run() == [f"pods/c1/eth0: dropped {old}"]
    assert bench.inside() == {new: False}
    record = bench.record()
    assert record.addresses == (new, "10.1.0.2") and record.policy
    assert set(elements(record.owner, record.policy)) == set(fake.kernel.firewall.elements())
    assert {each.dst for each in fake.kernel.spaces[HOST].routes["cni0"]} == {PART[B] + "/80"}
    assert bench.run() == ["pods/c1/eth0: unchanged"]
    fake.call("CHECK", "c1", bench.config | {"prevResult": result}).ok()
    fake.call("DEL", "c1", bench.config).ok()
    assert fake.kernel.firewall.elements() == () and fake.attachments() == []


def test_a_routed_container_follows(make: Callable[..., Bench]) -> None:
    bench = make(type="cni-v6-routed")
    fake, old, new = bench.fake, PART[A] + "1", PART[B] + "1"
    fake.container("c1")
    result = fake.call("ADD", "c1", bench.config, type="cni-v6-routed").ok()
    host = bench.record().host
    bench.has(Lifetime(A, 0), B)
    assert bench.run() == [f"pods/c1/eth0: {old} -> {new}"]
    node = fake.kernel.spaces[HOST]
    assert {each.dst for each in node.routes[host]} == {f"{old}/128", f"{new}/128", "10.1.0.2/32"}
    assert node.neighbours[host][new] == node.neighbours[host][old]
    assert f"{new}/128" in fake.kernel.spaces["/run/netns/c1"].addresses["eth0"]
    assert node.unreachable == ["10.1.0.0/24"], "what follows an uplink's prefix is on-link there"
    bench.has(B)
    assert bench.run() == [f"pods/c1/eth0: dropped {old}"]
    assert {each.dst for each in node.routes[host]} == {f"{new}/128", "10.1.0.2/32"}
    checked = bench.config | {"prevResult": result}
    fake.call("CHECK", "c1", checked, type="cni-v6-routed").ok()


def test_back_again(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.fake.add("c1", bench.config)
    bench.has(Lifetime(A, 0), B)
    bench.run()
    bench.has(A, Lifetime(B, 0))
    assert bench.run() == [f"pods/c1/eth0: {PART[A]}1 beside {PART[B]}1"]
    assert bench.inside() == {PART[A] + "1": False, PART[B] + "1": True}


def test_what_was_cut_off_is_finished(make: Callable[..., Bench]) -> None:
    bench = make(ndpProxy="up0")
    fake, old, new = bench.fake, PART[A] + "1", PART[B] + "1"
    fake.add("c1", bench.config)
    bench.has(Lifetime(A, 0), B)
    fake.kernel.fail = lambda op: CniError(KERNEL_REFUSED, "no") if isinstance(op, ops.AddElements) else None
    assert bench.run() == [f"pods/c1/eth0: error {KERNEL_REFUSED}: no", "exit 1"]
    assert bench.inside() == {old: False}
    fake.kernel.fail = lambda _: None
    assert bench.run() == [f"pods/c1/eth0: {new} beside {old}"]
    assert bench.inside() == {old: True, new: False}
    assert fake.kernel.spaces[HOST].proxies["up0"] == [old, new]
    bench.has(B)
    bench.run()
    assert fake.kernel.spaces[HOST].proxies["up0"] == [new]


def test_a_published_port_leads_to_the_new_address(make: Callable[..., Bench]) -> None:
    bench = make()
    ports = {"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 8080}]}}
    bench.fake.add("c1", bench.config | ports)
    bench.has(Lifetime(A, 0), B)
    bench.run()
    [port] = [each for each in bench.fake.kernel.firewall.elements() if each.set == "ports6"]
    assert port.data == (PART[B] + "1", "8080")


def test_without_a_firewall_and_a_gateway(make: Callable[..., Bench]) -> None:
    bench = make(isDefaultGateway=False, ingress="open", guard=False)
    bench.fake.add("c1", bench.config)
    bench.has(B)
    assert bench.run() == [f"pods/c1/eth0: {PART[A]}1 -> {PART[B]}1"]
    assert bench.run() == [f"pods/c1/eth0: dropped {PART[A]}1"]
    assert bench.inside() == {PART[B] + "1": False}


def test_a_network_that_has_no_firewall_any_more(make: Callable[..., Bench]) -> None:
    bench = make(ingress="open", guard=False)
    bench.fake.add("c1", bench.config | {"guard": True})
    bench.has(Lifetime(A, 0), B)
    bench.run()
    policy = bench.record().policy
    assert policy and PART[B] + "1" in policy.addresses


@pytest.mark.parametrize(("taken", "dry", "done"), [
    ("held", "an address of 2001:db8:b:0:ab00::/80", "2001:db8:b:0:ab00::"),
    ("stable", "an address of 2001:db8:b:0:ab00::/80", "2001:db8:b:0:ab00:"),
])
def test_another_address_where_the_same_one_cannot_be(
    make: Callable[..., Bench], taken: str, dry: str, done: str
) -> None:
    bench = make(ipam={"allocation": "stable"} if taken == "stable" else {})
    bench.fake.add("c1", bench.config)
    [old, _] = bench.record().addresses
    bench.has(Lifetime(A, 0), B)
    if taken == "held":
        with bench.fake.leases().transaction() as leases:
            leases.put(Attachment(Owner("pods", "x", "eth0"), (old.replace(":a:", ":b:"),)))
    assert bench.run(dry=True) == [f"pods/c1/eth0: {old} -> {dry}"]
    [line] = bench.run()
    assert line.startswith(f"pods/c1/eth0: {old} -> {done}") and line != f"pods/c1/eth0: {old} -> {dry}"


def test_an_address_that_is_given_once_is_not_given_again(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.fake.add("c1", bench.config)
    bench.has(Lifetime(A, 0), B)
    bench.fake.add("c2", bench.config)
    assert PART[B] + "1" in bench.fake.attachments()[1].addresses
    bench.fake.call("DEL", "c2", bench.config).ok()
    [line] = bench.run()
    assert line.startswith(f"pods/c1/eth0: {PART[A]}1 -> {PART[B]}") and not line.endswith("::1")


def test_two_sets_that_follow(make: Callable[..., Bench]) -> None:
    ranges = [[{"from": "up0", "subnetId": number, "length": 80}] for number in ("1", "ab00")]
    bench = make(ranges=[*ranges, [{"subnet": "fd00::/64"}]])
    bench.fake.add("c1", bench.config)
    bench.has(Lifetime(A, 0), B)
    [line] = bench.run()
    assert line == ("pods/c1/eth0: 2001:db8:a:0:1::1 -> 2001:db8:b:0:1::1; "
                    "2001:db8:a:0:ab00::1 -> 2001:db8:b:0:ab00::1")


def test_a_lease_of_which_nobody_knows_how_it_is_given_again(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.fake.add("c1", bench.config)
    with bench.fake.leases().transaction() as leases:
        leases.update(replace(next(leases.attachments()), reuse=()))
    bench.has(Lifetime(A, 0), B)
    bench.run()
    assert bench.record().reuse == ()


# Whose namespace


def test_a_namespace_that_is_not_found(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.fake.add("c1", bench.config)
    bench.has(B)
    before = bench.fake.state()
    [line, status] = bench.run(find=lambda _: None)
    assert "its network namespace is not to be found" in line and status == "exit 1"
    assert bench.fake.state() == before


@pytest.mark.parametrize("what", ["no host interface", "another alias", "no interface", "no veth", "other addresses"])
def test_a_namespace_that_is_not_the_containers(make: Callable[..., Bench], what: str) -> None:
    bench = make()
    bench.fake.add("c1", bench.config)
    bench.has(B)
    spaces, host = bench.fake.kernel.spaces, names.host_interface(Owner("pods", "c1", "eth0"))
    inside, outside = spaces["/run/netns/c1"], spaces[HOST]
    if what == "no host interface":
        del outside.links[host]
    elif what == "another alias":
        outside.links[host] = replace(outside.links[host], alias="cni-v6 pods/c2/eth0")
    elif what == "no interface":
        del inside.links["eth0"]
    elif what == "no veth":
        inside.links["eth0"] = replace(inside.links["eth0"], kind="dummy")
    else:
        inside.addresses["eth0"] = ["2001:db8:9::1/64"]
    assert "is not to be found" in bench.run()[0]


@pytest.mark.parametrize("changes", [{"boot": "earlier"}, {"host": ""}, {"home": (4, 99)}])
def test_an_attachment_that_does_not_run_here(make: Callable[..., Bench], changes: dict[str, Any]) -> None:
    bench = make()
    bench.fake.add("c1", bench.config)
    with bench.fake.leases().transaction() as leases:
        leases.update(replace(next(leases.attachments()), **changes))
    bench.has(B)
    assert bench.run() == []


def test_an_attachment_that_is_gone_by_its_turn(make: Callable[..., Bench]) -> None:
    bench = make()
    for name in ("c1", "c2"):
        bench.fake.add(name, bench.config)
    bench.has(Lifetime(A, 0), B)
    finding = Finding(bench.fake, None)

    def find(namespace: tuple[int, int]) -> str | None:
        bench.fake.leases()._work.drop(Owner("pods", "c2", "eth0"))
        return finding.find(namespace)

    assert bench.run(find=find) == [f"pods/c1/eth0: {PART[A]}1 -> {PART[B]}1"]


# Networks that are none of ours


def test_a_network_whose_ranges_follow_nothing(make: Callable[..., Bench]) -> None:
    for keys in ({"ranges": [[{"subnet": "fd00::/64"}]]}, {"ipam": {"type": "dhcp"}}):
        assert make(**keys).run() == ["pods: no range follows a prefix"]
    [line] = make(ranges=[[{"subnet": "fd00::/64"}]]).run(as_json=True)
    assert json.loads(line) == {"network": "pods", "containerID": None, "ifname": None, "failed": False,
                                "message": "no range follows a prefix", "dryRun": False}


def test_the_ipam_plugin_alone_knows_no_containers(make: Callable[..., Bench]) -> None:
    assert make(type=IPAM_PLUGIN).run() == []


# Policies


def test_a_policy_gains_and_loses_an_address() -> None:
    old, new = "fd00::1", "fd01::1"
    policy = Policy("cni0", "veth0", addresses=(old, "10.1.0.2"), masquerade=(old,), snat=((old, "fd0f::1"),),
                    keep=("fd00::/8",), inbound=(("2001:db8::1", old),), stale=(old,))
    alone = Policy("cni0", "veth0", addresses=(new,), link_local="fe80::1", masquerade=(new,), snat=((new, "fd0f::1"),),
                   keep=("fd00::/8", "fc00::/8"), inbound=(("2001:db8::2", new),), stale=(new,))
    both = policy_change.joined(policy, alone, (new, "10.1.0.2", old))
    assert both.addresses == (new, "10.1.0.2", old) and both.masquerade == (old, new)
    assert both.keep == ("fd00::/8", "fc00::/8")
    left = policy_change.parted(both, {old})
    assert left == replace(alone, addresses=(new, "10.1.0.2"))
    owner = Owner("pods", "c1", "eth0")
    gone, added = policy_change.difference(owner, both, left)
    assert added == () and set(elements(owner, both)) - set(gone) == set(elements(owner, left))
