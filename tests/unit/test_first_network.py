"""``cni-v6ctl init``: the network that a node's situation asks for, and what is left out because somebody has it."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.config.interface_prefix import Prefix
from cni_v6.ctl import init, main
from cni_v6.errors import CniError
from cni_v6.kernel.facts import FOREVER, Lifetime, Link, RouteEntry, Surroundings, Uplink
from cni_v6.kernel.ops import HOST
from cni_v6.net.addresses import from_text
from cni_v6.plan import first_prefix
from cni_v6.plan.first_network import FirstNetwork, Wanted, propose
from cni_v6.plan.first_prefix import IPV4, ON_LINK, ROUTED, UNIQUE_LOCAL, Choice, Facts
from cni_v6.plan.lint.addresses import Other
from tests.unit.fake_context import FakeContext

ULA = "fd00:1:2::/48"
NOTHING = Facts(Surroundings((), ()))
ETH0 = Uplink(6, "eth0", 1500)


def surroundings(*addresses: str, routes: tuple[RouteEntry, ...] = ()) -> Surroundings:
    return Surroundings(tuple(("eth0", text) for text in addresses), tuple(("eth0", route) for route in routes))


def on_link(length: int = 64, *, valid: int = FOREVER, more: tuple[str, ...] = ()) -> Facts:
    """A node with an address in 2d00:1:2:3::, whose router is in it too."""
    router = RouteEntry("::/0", "2d00:1:2:3::ffff")
    return Facts(
        surroundings(f"2d00:1:2:3::1/{length}", *more, routes=(router,)), (ETH0,), frozenset({"lo", "eth0"}),
        (Lifetime(f"2d00:1:2:3::1/{length}", valid=valid),), Prefix(from_text("2d00:1:2:3::")[1], length),
    )


def other(*subnets: str, network: str = "other", bridge: str = "") -> Other:
    return Other("/etc/cni/net.d/5-other.conflist", network, bridge, subnets)


# IPv6


@pytest.mark.parametrize(("discarded", "subnet"), [
    (("2d00:5::/56",), "2d00:5::/64"),
    (("2d00:5:0:7::/64",), "2d00:5:0:7::/64"),
    (("2d00:5::/80",), "2d00:5::/80"),
    (("10.0.0.0/8", "fd00::/48", "2d00:5::/120", "2d00:6::/60"), "2d00:6::/64"),  # none of the first is of use
])
def test_a_routed_prefix_is_used(discarded: tuple[str, ...], subnet: str) -> None:
    facts = replace(on_link(), discarded=discarded)
    found = first_prefix.ipv6(facts, ULA)
    assert (found.situation, found.range, found.subnet, found.ndp_proxy) == (ROUTED, {"subnet": subnet}, subnet, "")
    assert "which is routed to this node: it has a route" in found.why and not found.is_private


def test_of_a_routed_prefix_the_first_network_that_is_free_is_used() -> None:
    facts = Facts(
        surroundings("2d00:5::1/64", routes=(
            RouteEntry("2d00:5:0:1:8000::/65", None), RouteEntry("10.0.0.0/8", "10.1.1.1"),
            RouteEntry("2d00:9::/48", "2d00:5:0:2::9"),
        )),
        discarded=("2d00:5::/56",), others=(other("2d00:5:0:3::/64", "10.86.0.0/16"),),
    )
    assert first_prefix.ipv6(facts, ULA).subnet == "2d00:5:0:4::/64"


def test_a_prefix_that_is_named_needs_no_sign_in_the_kernel() -> None:
    found = first_prefix.ipv6(NOTHING, ULA, "2d00:7::/48")
    assert (found.situation, found.subnet) == (ROUTED, "2d00:7::/64") and "as you say" in found.why
    with pytest.raises(CniError) as caught:
        first_prefix.ipv6(replace(NOTHING, others=(other("2d00:7::/64"),)), ULA, "2d00:7::/64")
    assert caught.value.code == errors.NODE_CONFLICT and "--prefix 2d00:7::/64" in caught.value.msg


@pytest.mark.parametrize(("length", "more", "subnet"), [
    (64, (), "2d00:1:2:3:c::/80"),
    (64, ("2d00:1:2:3:c::5/128", "2d00:1:2:3:d:1::/64"), "2d00:1:2:3:e::/80"),
    (56, (), "2d00:1:2:0:c::/80"),
    (112, (), "2d00:1:2:3::c00/120"),
])
def test_of_an_on_link_prefix_a_free_part_is_used(length: int, more: tuple[str, ...], subnet: str) -> None:
    found = first_prefix.ipv6(on_link(length, more=more), ULA)
    assert (found.situation, found.ndp_proxy) == (ON_LINK, "eth0")
    assert found.subnet == subnet
    assert found.range == {"subnet": found.subnet}


def test_a_prefix_that_is_not_permanent_is_followed() -> None:
    found = first_prefix.ipv6(on_link(valid=86400), ULA)
    assert found.range == {"from": "eth0", "subnetId": "c", "length": 80}
    assert found.subnet == "2d00:1:2:3:c::/80" and "it follows eth0" in found.why


@pytest.mark.parametrize("facts", [
    NOTHING,
    replace(on_link(), uplinks=()),
    replace(on_link(), prefix=None),
    replace(on_link(), prefix=Prefix(from_text("fd00:9::")[1], 64)),
    on_link(124),
    replace(on_link(), others=(other("2d00:1:2:3::/64"),)),
], ids=["nothing", "no default route", "no prefix", "unique local", "too small", "taken"])
def test_without_a_prefix_it_is_a_unique_local_one(facts: Facts) -> None:
    found = first_prefix.ipv6(facts, ULA)
    assert (found.situation, found.range) == (UNIQUE_LOCAL, {"subnet": "fd00:1:2:1::/64"})
    assert found.is_private and ("default route" in found.why) == (not facts.uplinks)


# IPv4


def test_the_ipv4_range_overlaps_with_nothing() -> None:
    assert_subnet(NOTHING, "10.86.0.0/16")
    assert_subnet(replace(NOTHING, surroundings=surroundings("10.86.5.5/24", "2d00::1/64")), "10.87.0.0/16")
    vpn = replace(NOTHING, surroundings=surroundings(routes=(RouteEntry("10.0.0.0/8", "192.168.254.1"),)))
    assert_subnet(vpn, "172.31.0.0/16")
    assert_subnet(replace(vpn, others=(other("172.16.0.0/12", "fd00::/64"),)), "192.168.253.0/24")
    assert_subnet(replace(vpn, others=(other("172.16.0.0/12", "192.168.0.0/16"),)), "")
    assert len(set(IPV4)) == len(IPV4)


def assert_subnet(facts: Facts, subnet: str) -> None:
    found = first_prefix.ipv4(facts)
    assert (found.subnet if found else "") == subnet


def test_an_ipv4_range_that_is_named() -> None:
    found = first_prefix.ipv4(NOTHING, "10.5.0.0/24")
    assert found and found.subnet == "10.5.0.0/24" and found.why == "as you say"
    with pytest.raises(CniError, match="--ipv4 10.5.0.0/24"):
        first_prefix.ipv4(replace(NOTHING, others=(other("10.5.0.0/16"),)), "10.5.0.0/24")


@pytest.mark.parametrize(("text", "family", "words"), [
    ("x", 6, "is not a prefix"), ("2d00::1", 6, "is not an IPv6 prefix"), ("10.0.0.0/8", 6, "is not an IPv6 prefix"),
    ("2d00::1/64", 6, "has host bits set: write 2d00::/64"), ("2d00::/127", 6, "is not from /16 to /112"),
    ("10.0.0.0/30", 4, "is not from /8 to /29"), ("2d00::/64", 4, "is not an IPv4 prefix"),
])
def test_a_prefix_that_cannot_be(text: str, family: int, words: str) -> None:
    with pytest.raises(CniError) as caught:
        first_prefix.parse("--prefix", text, family)
    assert words in str(caught.value) and caught.value.msg.startswith("--prefix")


def test_a_prefix_is_read() -> None:
    assert first_prefix.parse("--prefix", "2D00:0:0::/48", 6) == "2d00::/48"


# The network

LOCAL = Choice(UNIQUE_LOCAL, {"subnet": "fd00:1:2:1::/64"}, "fd00:1:2:1::/64", "unique local")
FOUR = Choice(UNIQUE_LOCAL, {"subnet": "10.86.0.0/16"}, "10.86.0.0/16", "free")


def proposed(facts: Facts = NOTHING, kind: str = "bridge", six: Choice = LOCAL, four: Choice | None = FOUR,
             **wanted: Any) -> FirstNetwork:
    return propose(facts, Wanted(kind, **wanted), six, four)


def test_each_key_has_a_line_and_each_line_a_key() -> None:
    for kind in ("bridge", "routed"):
        found = proposed(replace(on_link(), ipv6_off=True), kind, first_prefix.ipv6(on_link(), ULA), delegate=96)
        [plugin] = found.document["plugins"]
        ipam = plugin["ipam"]
        ranges = [f"ipam.ranges[{at}]" for at in range(len(ipam["ranges"]))]
        keys = [*found.document, *(key for key in plugin if key != "ipam"),
                *(f"ipam.{key}" for key in ipam if key != "ranges"), *ranges]
        assert sorted(keys) == sorted(line.key for line in found.lines)
        assert all(line.why for line in found.lines)
        assert plugin["type"] == {"bridge": "cni-v6", "routed": "cni-v6-routed"}[kind]
        assert ("bridge" in plugin) == (kind == "bridge") and plugin["ndpProxy"] == "eth0"
        assert ipam["required"] == ["ipv4"] and ipam["delegate"] == 96


def test_names_that_nobody_has() -> None:
    facts = replace(NOTHING, links=frozenset({"cni-containers2", "cni-v6-0"}),
                    others=(other(network="containers", bridge="cni-v6-1"),))
    document = proposed(facts).document
    assert (document["name"], document["plugins"][0]["bridge"]) == ("containers2", "cni-v6-2")
    assert proposed(facts, name="web").document["plugins"][0]["bridge"] == "cni-web"
    with pytest.raises(CniError, match="names this network already"):
        proposed(facts, name="containers")
    with pytest.raises(CniError, match="is not a name"):
        proposed(facts, name="../web")


@pytest.mark.parametrize("length", [64, 128])
def test_a_delegated_prefix_fits_the_network(length: int) -> None:
    with pytest.raises(CniError, match="is no length of a prefix in fd00:1:2:1::/64: write one from 65 to 127"):
        proposed(delegate=length)


def test_notes_say_what_is_missing() -> None:
    assert "no IPv6 default route" in proposed(four=None).notes[0] and proposed(four=None).notes[1].endswith("no IPv4")
    assert proposed(on_link()).notes == ()
    assert proposed(replace(on_link(), ipv6_off=True)).notes[0].startswith("IPv6 is off")
    notes = proposed(on_link(), six=replace(LOCAL, situation=ROUTED)).notes
    assert notes == ("fd00:1:2:1::/64 is unique local: it is masqueraded beyond the node",)


def test_the_mtu_of_the_uplinks_is_said() -> None:
    [line] = [line for line in proposed(replace(on_link(), uplinks=(ETH0, Uplink(4, "ppp0", 1492)))).lines
              if line.key == "mtu"]
    assert "1492 now, of ppp0" in line.why


# The command


def fake_node() -> FakeContext:
    """A node whose uplink has an on-link /64."""
    fake = FakeContext()
    fake.kernel.add_link(HOST, Link("eth0", "02:00:00:00:00:01", 1500, up=True))
    space = fake.kernel.spaces[HOST]
    space.addresses["eth0"] = ["2d00:1:2:3::1/64"]
    space.routes["eth0"] = [RouteEntry("::/0", "fe80::1"), RouteEntry("2d00:1:2:3::/64", None)]
    return fake


def called(
    fake: FakeContext, *arguments: str, discarded: tuple[str, ...] = (), kubelet: Path = Path("/nonexistent")
) -> int:
    parser = argparse.ArgumentParser()
    init.register(parser.add_subparsers())
    chosen = parser.parse_args(["init", *arguments])
    return init.run(chosen, fake.context, lambda: discarded, lambda: 1, kubelet)


@pytest.mark.parametrize("kind", ["bridge", "routed"])
@pytest.mark.parametrize(("discarded", "situation"), [((), ON_LINK), (("2d00:5::/56",), ROUTED)])
def test_what_is_printed_has_no_remark_of_lint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, discarded: tuple[str, ...], situation: str
) -> None:
    arguments = ("--json", "--type", kind, "--conf-dir", str(tmp_path))
    assert called(fake_node(), *arguments, discarded=discarded) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert (found["situation"], found["notes"], found["file"], printed.err) == (situation, [], None, "")
    assert called(fake_node(), *arguments[1:], discarded=discarded) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == found["network"]
    assert max(map(len, printed.err.splitlines())) <= 80 and "note:" not in printed.err
    assert all(each["key"] in printed.err for each in found["reasons"])


def test_a_file_is_written_and_none_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "etc/cni/net.d/10-first.conflist"
    folder = ("--conf-dir", str(path.parent))
    assert called(fake_node(), "--output", str(path), *folder) == 0
    assert "written:" in capsys.readouterr().err and oct(path.stat().st_mode)[-3:] == "644"
    first = path.read_text()
    with pytest.raises(CniError, match="the file is there already"):
        called(fake_node(), "--output", str(path), *folder)
    second = path.with_name("20-second.conflist")
    assert called(fake_node(), "--output", str(second), *folder) == 0  # a network of its own beside the first
    assert f"{path} comes before it" in " ".join(capsys.readouterr().err.split())
    one, two = json.loads(first), json.loads(second.read_text())
    assert (path.read_text(), one["name"], two["name"]) == (first, "containers", "containers2")
    assert one["plugins"][0]["ipam"]["ranges"] != two["plugins"][0]["ipam"]["ranges"]
    assert [each.name for each in sorted(path.parent.iterdir())] == ["10-first.conflist", "20-second.conflist"]


def test_a_node_of_a_cluster_is_told_where_its_ranges_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").touch()
    assert called(fake_node(), "--json", "--conf-dir", str(tmp_path), kubelet=tmp_path / "config.yaml") == 0
    [note] = json.loads(capsys.readouterr().out)["notes"]
    assert note.startswith("a kubelet is configured here")


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in ("file/10-first.conflist", "file/folder/10-first.conflist"):
        with pytest.raises(CniError, match="cannot write|is no folder"):
            called(fake_node(), "--output", str(tmp_path / place), "--conf-dir", str(tmp_path))
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(CniError, match="is there already"):
        called(fake_node(), "--output", str(tmp_path / "link"))


def test_a_network_that_lint_refuses_is_not_written(tmp_path: Path) -> None:
    fake = fake_node()
    path = tmp_path / "10-first.conf"  # libcni reads one plugin from a file of this name
    with pytest.raises(CniError, match="would not work: 10-first.conf has a list of plugins"):
        called(fake, "--output", str(path), "--conf-dir", str(tmp_path))
    assert not path.exists()


def test_prefixes_of_the_operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--conf-dir", str(tmp_path), "--prefix", "2d00:8::/48", "--ipv4", "none")
    assert called(fake_node(), *more) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "2d00:8::/64"}]]
    assert "note: the network has no IPv4" in printed.err
    assert main(["init", "--prefix", "2d00:8::1/48"]) == 1
    assert "--prefix" in capsys.readouterr().err
