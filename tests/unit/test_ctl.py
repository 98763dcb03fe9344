"""The operator's command: list, plan, plan-prefix, schema; the engine's own has tests of its own."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
from ipaddress import ip_network
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from cni_v6 import __version__
from cni_v6.ctl import list as list_command, main, plan as plan_command, prefix as prefix_command, screen
from cni_v6.ctl.command import COMMANDS, EXITS
from cni_v6.engine.handle import real_context
from cni_v6.errors import CniError
from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST
from cni_v6.leases.attachment import Attachment
from cni_v6.leases.disk.data_dirs import DiskDataDirs
from cni_v6.leases.disk.store import DiskLeases
from cni_v6.leases.memory import MemoryDataDirs
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner
from tests.unit.fake_context import CONFIG, FOREIGN, FakeContext

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).resolve().parents[2]
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()  # containers of an earlier one are gone


def test_version(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"cni-v6ctl {__version__}\n"


def test_no_command(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "usage: cni-v6ctl" in capsys.readouterr().err


def test_help_names_every_command(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = [line.partition(" ")[0] for line in capsys.readouterr().out.replace("\n    ", "\n").splitlines()]
    assert {"list", "plan", "plan-prefix", "schema"} <= set(lines)


# list


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Two networks with three attachments; a lease of the reference plugin among them, and a file that is neither."""
    held = [
        Attachment(Owner("pods", "b2", "eth0"), ("2001:db8::3", "10.1.0.3"), "veth0b2", created=86400.0, boot=BOOT,
                   prefixes=("2001:db8:0:0:1::/80",)),
        Attachment(Owner("pods", "a1", "eth0"), ("2001:db8::2", "10.1.0.2"), "veth0a1", created=0.0, boot=BOOT),
        Attachment(Owner("layer2", "a1", "net1"), (), "veth1a1", created=86400.0, boot=BOOT),
    ]
    for each in held:
        with DiskLeases(each.owner.network, str(tmp_path), boot=BOOT).transaction() as leases:
            leases.put(each)
    (tmp_path / "notes").write_text("mine")
    return str(tmp_path)


def test_list(store: str, capsys: Capture) -> None:
    assert main(["list", "--wide", "--data-dir", store]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["NETWORK", "CONTAINER", "INTERFACE", "ADDRESSES", "HOST", "INTERFACE", "STATE", "SINCE"]
    assert [row[:3] for row in rows[1:]] == [["layer2", "a1", "net1"], ["pods", "a1", "eth0"], ["pods", "b2", "eth0"]]
    assert rows[1][3:6] == ["-", "veth1a1", "missing"]
    assert rows[2][3:] == ["2001:db8::2", "10.1.0.2", "veth0a1", "missing", "-"]
    assert rows[3][3:8] == ["2001:db8::3", "10.1.0.3", "2001:db8:0:0:1::/80", "veth0b2", "missing"]
    assert rows[3][8].startswith("1970-01-0")


def test_list_is_aligned(store: str, capsys: Capture) -> None:
    main(["list", "--wide", "--data-dir", store])
    lines = capsys.readouterr().out.splitlines()
    column = lines[0].index("HOST INTERFACE")
    assert all(line[column:].startswith("veth") and line[column - 1] == " " for line in lines[1:])
    assert [line for line in lines if line != line.rstrip()] == []


def test_list_of_one_network_as_json(store: str, capsys: Capture) -> None:
    assert main(["list", "pods", "--json", "--data-dir", store]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found[1] == {
        "network": "pods", "containerID": "b2", "ifname": "eth0", "addresses": ["2001:db8::3", "10.1.0.3"],
        "prefixes": ["2001:db8:0:0:1::/80"], "hostInterface": "veth0b2", "hostInterfaceState": "missing",
        "created": 86400.0,
    }
    assert [each["containerID"] for each in found] == ["a1", "b2"]


def test_listing_creates_nothing(tmp_path: Path, capsys: Capture) -> None:
    assert main(["list", "--data-dir", str(tmp_path)]) == 0
    assert main(["list", "--data-dir", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out.count("NETWORK") == 2
    assert list(tmp_path.iterdir()) == []


def test_list_of_a_network_that_is_not_there(store: str, capsys: Capture) -> None:
    assert main(["list", "nosuch", "--data-dir", store]) == 1
    words = capsys.readouterr()
    assert not words.out
    assert f"no attachment of network nosuch is on record in {store}: see cni-v6ctl list" in words.err


@pytest.mark.parametrize("what, holder", [
    ("10.1.0.3", "b2"), ("::ffff:10.1.0.3", "b2"), ("2001:DB8:0::2", "a1"), ("2001:db8:0:0:1::77", "b2"),
    ("10.1.0.2/31", "a1 b2"), ("2001:db8::/64", "a1 b2"),
])
def test_list_of_who_has_an_address(store: str, capsys: Capture, what: str, holder: str) -> None:
    assert main(["list", what, "--json", "--data-dir", store]) == 0
    found = [json.loads(line)["containerID"] for line in capsys.readouterr().out.splitlines()]
    assert found == holder.split()


@pytest.mark.parametrize("what", ["10.1.0.9", "2001:db8:7::/48"])
def test_list_of_an_address_that_nobody_has(store: str, capsys: Capture, what: str) -> None:
    assert main(["list", what, "--data-dir", store]) == 1
    assert capsys.readouterr() == ("", f"cni-v6ctl: nobody has {what}: cni-v6ctl explain {what} says why\n")


LONG = "0123456789ab" * 6


def test_a_list_fits_the_screen_with_the_ids_of_a_runtime(tmp_path: Path, capsys: Capture) -> None:
    first, second = LONG[:64], LONG[:20] + "f" * 44  # a start of twelve digits in common
    addresses = ("2001:db8:1111:2222:3333:4444:5555:6666", "10.111.122.133")
    owners = [Owner("a-network-with-a-name-that-is-long", first, "eth0"), Owner("pods", second, "interface-names"),
              Owner("pods", "c" * 64, "eth0")]
    for number, owner in enumerate(owners):
        with DiskLeases(owner.network, str(tmp_path), boot=BOOT).transaction() as leases:
            leases.put(Attachment(owner, addresses if not number else (), f"veth{number:011}", created=1.0, boot=BOOT))
    assert main(["list", "--data-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["NETWORK", "CONTAINER", "INTERFACE", "HOST", "INTERFACE", "STATE", "AGE"]
    assert lines[2] == f"    {' '.join(addresses)}" and lines[3].startswith("pods")
    assert lines[1].startswith("a-ne") and "veth00000000000  missing  2" in lines[1]
    assert main(["list", "--wide", "--data-dir", str(tmp_path)]) == 0
    assert f"{first}  eth0             {' '.join(addresses)}" in capsys.readouterr().out


def test_ids_are_shown_by_a_start_that_no_other_has() -> None:
    assert screen.starts([LONG[:64], LONG[:20] + "f", "short"]) == {
        LONG[:64]: LONG[:21], LONG[:20] + "f": LONG[:20] + "f", "short": "short",
    }


def test_list_names_attachments_of_an_earlier_boot(tmp_path: Path, capsys: Capture) -> None:
    with DiskLeases("pods", str(tmp_path), boot="earlier").transaction() as leases:
        leases.put(Attachment(Owner("pods", "a1", "eth0"), ("10.1.0.2",), "veth0a1", created=1.0, boot="earlier"))
    assert main(["list", "--json", "--data-dir", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["hostInterfaceState"] == "ended"


def test_list_finds_all_data_folders_and_waits_for_no_lock(store: str, tmp_path: Path, capsys: Capture) -> None:
    run_dir = str(tmp_path / "run")
    DiskDataDirs(run_dir).remember(store)
    chosen = argparse.Namespace(what="10.1.0.2", data_dir=None, wide=False, json=False)
    with DiskLeases("pods", store, boot=BOOT).transaction():
        assert list_command.run(chosen, lambda: real_context(run_dir=run_dir)) == 0
    assert "veth0a1" in capsys.readouterr().out


def test_list_of_what_is_no_store(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("")
    assert main(["list", "--data-dir", str(tmp_path / "file")]) == 1
    assert f"cni-v6ctl: error 103: cannot read {tmp_path}/file" in capsys.readouterr().err


def test_list_of_a_name_that_leads_out_of_the_store(tmp_path: Path, capsys: Capture) -> None:
    assert main(["list", "../etc", "--data-dir", str(tmp_path)]) == 1
    assert "name '../etc' is not a network name" in capsys.readouterr().err


# plan


def conflist(folder: Path, content: object) -> Path:
    path = folder / "10-pods.conflist"
    path.write_text(json.dumps(content))
    return path


def planned(fake: FakeContext, path: Path, *, privileged: bool = True, **chosen: Any) -> int:
    arguments = {"conflist": path, "container": "example", "ifname": "eth0", "pod": None, "json": False} | chosen
    return plan_command.run(argparse.Namespace(**arguments), fake.context, lambda: privileged)


def test_a_plan_without_privilege_says_what_it_could_not_see(tmp_path: Path, capsys: Capture) -> None:
    assert planned(FakeContext(), conflist(tmp_path, CONFIG), privileged=False) == 0
    assert capsys.readouterr().err == (
        "cni-v6ctl: note: not root, so the firewall's tables cannot be read; the plan takes them for missing\n"
    )


def without(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys}


LIST: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "plugins": [without(CONFIG, "name", "cniVersion"), {"type": "portmap"}],
}


@pytest.mark.parametrize("content", [LIST, CONFIG], ids=["list", "single"])
def test_plan(content: object, tmp_path: Path, capsys: Capture) -> None:
    fake = FakeContext()
    before = fake.state()
    assert planned(fake, conflist(tmp_path, content)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "cni-v6 on network pods, for a container that would be its first:"
    assert lines[1].startswith("  1. load the firewall")
    assert [line for line in lines if " create bridge cni0" in line]
    assert "       inet published6: 2001:db8:1::2 . cni0" in lines
    at = lines.index("{")
    assert lines[at - 3].endswith("wait for bridge port " + names.host_interface(Owner("pods", "example", "eth0")))
    assert lines[at - 2].endswith("wait for the carrier of cni0")
    assert lines[at - 1].endswith("wait until eth0 in /run/netns/example takes packets for 2001:db8:1::2")
    result = json.loads("\n".join(lines[at:]))
    assert [each["address"] for each in result["ips"]] == ["2001:db8:1::2/64", "10.1.0.2/24"]
    assert fake.state() == before
    assert fake.kernel.applied == []


def test_plan_as_json(tmp_path: Path, capsys: Capture) -> None:
    assert planned(FakeContext(), conflist(tmp_path, handing_out(allocation="random")), json=True) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert (found["type"], found["network"]) == ("cni-v6", "pods")
    assert found["steps"][0]["operation"].startswith("load the firewall")
    [elements] = [step["elements"] for step in found["steps"] if step["operation"].startswith("add elements")]
    published = {"family": "inet", "set": "published6", "key": [found["result"]["ips"][0]["address"][:-3], "cni0"]}
    assert published | {"data": []} in elements
    assert found["notes"] == ["note: the addresses are drawn by lot: an ADD draws others"]


def test_plan_looks_at_this_node(tmp_path: Path, capsys: Capture) -> None:
    fake = FakeContext()
    fake.add("c1")
    planned(fake, conflist(tmp_path, LIST), container="x", ifname="net1")
    told, warned = capsys.readouterr()
    assert "create bridge" not in told
    assert "its peer net1" in told
    assert "no record" not in warned, "the plan's store is empty, not lost"
    assert [each.owner.container_id for each in fake.attachments()] == ["c1"]


def test_plan_of_addresses_alone(tmp_path: Path, capsys: Capture) -> None:
    planned(FakeContext(), conflist(tmp_path, CONFIG | {"type": "cni-v6-ipam"}))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("cni-v6-ipam on network pods")
    assert lines[1:3] == ["  1. record attachment pods/example/eth0: 2001:db8:1::2 10.1.0.2", "{"]


SAMPLES = sorted((Path(__file__).resolve().parent.parent.parent / "conf").glob("*.conflist"))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_plan_of_each_sample(path: Path, capsys: Capture) -> None:
    fake = FakeContext()
    fake.kernel.add_link(HOST, Link("eth0", "02:00:00:00:00:01", 1500, up=True))
    planned(fake, path)
    out, err = capsys.readouterr()
    assert "record attachment" in out and "\n{\n" in out
    assert ("its interface is not ours" in err) == path.name.startswith("macvlan")


def test_plan_of_another_main_plugin(tmp_path: Path, capsys: Capture) -> None:
    """Only the addresses are ours; nor is a MAC that tuning gives it an affair of our guard."""
    main_plugin = LIST["plugins"][0] | {"type": "macvlan", "master": "eth0"}
    tuning = {"type": "tuning", "mac": "02:00:5e:10:00:01"}
    planned(FakeContext(), conflist(tmp_path, LIST | {"plugins": [main_plugin, tuning]}))
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith("cni-v6-ipam on network pods")
    assert first_of(out) == ["2001:db8:1::2/64", "10.1.0.2/24"]
    words = "its interface is not ours; the plan shows the addresses that it gets from cni-v6-ipam"
    assert err == f"cni-v6ctl: note: plugins[0] is 'macvlan': {words}\n"


def first_of(told: str) -> list[str]:
    """The addresses of the answer that was printed."""
    return [each["address"] for each in json.loads(told[told.index("\n{\n"):])["ips"]]


def handing_out(**keys: Any) -> dict[str, Any]:
    return CONFIG | {"ipam": CONFIG["ipam"] | keys}


def test_plan_for_a_workload(tmp_path: Path, capsys: Capture) -> None:
    """It sees what is reserved for it, and its stable address."""
    path = conflist(tmp_path, handing_out(reserve={"shop/db": "10.1.0.77", "proxy": "10.1.0.2"}))
    found = []
    for pod in ("shop/db", "proxy", ""):
        planned(FakeContext(), path, pod=pod)
        found.append(first_of(capsys.readouterr().out)[1])
    assert found == ["10.1.0.77/24", "10.1.0.2/24", "10.1.0.3/24"]
    path = conflist(tmp_path, handing_out(allocation="stable", secretFile="/etc/secret"))
    answers = []
    for pod in ("shop/db", "shop/db", "shop/web"):
        planned(FakeContext(files={"/etc/secret": "0123456789abcdef"}), path, pod=pod)
        told = capsys.readouterr()
        assert "note" not in told.err
        answers.append(first_of(told.out))
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize(("keys", "says"), [
    ({"allocation": "random"}, "note: the addresses are drawn by lot"),
    ({"allocation": "stable"}, "note: the addresses are examples: without ipam.secretFile"),
    ({"exclude": ["192.0.2.0/24"]}, "warning: ipam.exclude[0] (192.0.2.0/24) excludes nothing"),
])
def test_a_plan_says_what_an_add_would_not_answer_again(
    keys: dict[str, Any], says: str, tmp_path: Path, capsys: Capture
) -> None:
    planned(FakeContext(), conflist(tmp_path, handing_out(**keys)))
    assert says in capsys.readouterr().err


def test_a_plan_without_a_family(tmp_path: Path, capsys: Capture) -> None:
    fake = FakeContext()
    fake.kernel.spaces[HOST].sysctls["ipv6/conf/all/disable_ipv6"] = "1"
    planned(fake, conflist(tmp_path, handing_out(required=["ipv4"])))
    told = capsys.readouterr()
    assert first_of(told.out) == ["10.1.0.2/24"]
    assert "cni-v6ctl: warning: attached without IPv6" in told.err


@pytest.mark.parametrize(
    ("own", "tuning", "warns"),
    [
        ({}, {"mac": "02:00:5e:10:00:01"}, True),
        ({}, {"capabilities": {"mac": True}}, True),
        ({"capabilities": {"mac": True}}, {"capabilities": {"mac": True}}, False),
        ({"guard": False}, {"mac": "02:00:5e:10:00:01"}, False),
        ({}, {"sysctl": {}}, False),
    ],
)
def test_a_plan_warns_of_a_chained_plugin_that_changes_the_mac(
    own: dict[str, Any], tuning: dict[str, Any], warns: bool, tmp_path: Path, capsys: Capture
) -> None:
    listed = LIST | {"plugins": [LIST["plugins"][0] | own, {"type": "tuning", **tuning}]}
    planned(FakeContext(), conflist(tmp_path, listed))
    assert ("plugins[1]: tuning changes the MAC" in capsys.readouterr().err) == warns


def test_plan_of_several_plugins(tmp_path: Path, capsys: Capture) -> None:
    two = LIST | {"plugins": [LIST["plugins"][0], without(CONFIG, "ipam", "isDefaultGateway")]}
    planned(FakeContext(), conflist(tmp_path, two))
    assert capsys.readouterr().out.count("cni-v6 on network pods") == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"plugins": [{"type": "bridge"}]}, "has no plugin of type cni-v6 or cni-v6-routed or"),
        ({"plugins": [{"type": "bridge", "ipam": {"type": "host-local"}}]}, "has no plugin of type"),
        ({"plugins": "cni-v6"}, "has no plugin of type"),
        ({"plugins": 3}, "has no plugin of type"),
        ({"plugins": [3]}, "has no plugin of type"),
        ({}, "has no plugin of type"),
        ([], "10-pods.conflist"),
        (CONFIG | {"isGatway": True}, "isGateway"),
        (without(CONFIG, "name"), "name is missing"),
        (FOREIGN, "the addresses of dhcp are not known before it runs"),
    ],
)
def test_a_plan_that_cannot_be_made(content: object, words: str, tmp_path: Path) -> None:
    fake = FakeContext()
    before = fake.state()
    with pytest.raises(CniError) as caught:
        planned(fake, conflist(tmp_path, content))
    assert words in str(caught.value)
    assert fake.state() == before


def test_a_plan_of_a_file_that_has_a_key_twice(tmp_path: Path) -> None:
    """A runtime makes one of them before the plugin sees it."""
    path = tmp_path / "10-pods.conflist"
    path.write_text(json.dumps(CONFIG | {"strict": True})[:-1] + ', "bridge": "br1", "bridge": "br2"}')
    with pytest.raises(CniError, match="'bridge' is written twice: strict is true"):
        planned(FakeContext(), path)


def test_a_plan_that_does_not_fit_the_node(tmp_path: Path) -> None:
    fake = FakeContext()
    fake.kernel.add_link(HOST, Link("cni0", "02:00:00:00:00:01", 1500, kind="vlan"))
    with pytest.raises(CniError, match="cni0 exists and is no bridge"):
        planned(fake, conflist(tmp_path, LIST))


def test_a_plan_of_a_file_that_is_not_there(tmp_path: Path, capsys: Capture) -> None:
    assert main(["plan", str(tmp_path / "none")]) == 1
    assert f"cni-v6ctl: error 7: cannot read {tmp_path}/none" in capsys.readouterr().err


# plan-prefix


def test_plan_prefix(capsys: Capture) -> None:
    arguments = ["2001:db8::/48", "--nodes", "1000", "--pods", "250", "--churn", "100/s", "--networks", "2"]
    assert main(["plan-prefix", *arguments, "--node", "7"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "site     2001:db8::/48",
        "node     /60  4,096 fit the site, 1,000 planned",
        "network  /64  16 fit a node, 2 planned, 250 pods at once",
        "lasts    5,849,424,173 years at 100/s, no address given twice",
        "",
        "NODE  PREFIX                NETWORKS",
        "1     2001:db8::/60         2001:db8::/64 to 2001:db8:0:1::/64",
        "7     2001:db8:0:60::/60    2001:db8:0:60::/64 to 2001:db8:0:61::/64",
        "1000  2001:db8:0:3e70::/60  2001:db8:0:3e70::/64 to 2001:db8:0:3e71::/64",
    ]


def test_plan_prefix_of_several_clusters(capsys: Capture) -> None:
    """Each takes a part of one prefix, so no two overlap."""
    sites = []
    for number in range(1, 18):
        assert main(["plan-prefix", "fd42:8e00::/40", "--clusters", "17", "--cluster", str(number)]) == 0
        first, site, *_ = capsys.readouterr().out.splitlines()
        assert first == f"cluster  /48  256 fit fd42:8e00::/40, 17 planned; this is {number}"
        sites.append(ip_network(site.split()[1]))
    assert not any(one.overlaps(other) for one, other in combinations(sites, 2))
    assert main(["plan-prefix", "2001:db8::/120", "--clusters", "17"]) == 1
    assert "--clusters: 17 do not fit in 2001:db8::/120" in capsys.readouterr().err
    assert main(["plan-prefix", "2001:db8::/48", "--clusters", "2", "--cluster", "3"]) == 1
    assert "--cluster: 3 is more than there are: --clusters is 2" in capsys.readouterr().err


def test_plan_prefix_of_a_small_site(capsys: Capture) -> None:
    assert main(["plan-prefix", "2001:db8::/112"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "site     2001:db8::/112",
        "node     /112  1 fit the site, 1 planned",
        "network  /112  1 fit a node, 1 planned, 110 pods at once",
        "lasts    18 hours at 1/s, until addresses are given again",
        "note     networks smaller than a /64 have no SLAAC (RFC 7421); a site of a /64 has room for a /64 each",
        "note     networks of fewer than 2^32 addresses give them again, each after all the others",
        "",
        "NODE  PREFIX          NETWORKS",
        "1     2001:db8::/112  2001:db8::/112",
    ]


def test_plan_prefix_as_json(capsys: Capture) -> None:
    assert main(["plan-prefix", "2001:db8::/56", "--nodes", "10", "--churn", "10000000/s", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert int(document.pop("years")) == 58494
    assert document == {
        "site": "2001:db8::/56",
        "nodes": {"planned": 10, "fit": 16, "prefixLength": 60},
        "networks": {"planned": 1, "fit": 16, "prefixLength": 64},
        "pods": 110,
        "churn": "10000000/s",
        "reused": False,
        "notes": [],
        "examples": [
            {
                "node": 1, "prefix": "2001:db8::/60",
                "firstNetwork": "2001:db8::/64", "lastNetwork": "2001:db8::/64",
            },
            {
                "node": 10, "prefix": "2001:db8:0:90::/60",
                "firstNetwork": "2001:db8:0:90::/64", "lastNetwork": "2001:db8:0:90::/64",
            },
        ],
    }


def test_the_sample_of_plan_prefix_can_be_planned(tmp_path: Path, capsys: Capture) -> None:
    arguments = ["2001:db8::/48", "--nodes", "1000", "--networks", "2", "--node", "7", "--network", "2", "--sample"]
    assert main(["plan-prefix", *arguments]) == 0
    path = conflist(tmp_path, json.loads(capsys.readouterr().out))
    assert planned(FakeContext(), path) == 0
    told = capsys.readouterr().out
    assert told.startswith("cni-v6 on network pods2, ")
    assert '"address": "2001:db8:0:61::2/64"' in told


def test_plan_prefix_of_a_new_unique_local_prefix(capsys: Capture) -> None:
    chosen = argparse.Namespace(
        prefix=None, ula=True, nodes="20", networks="1", pods="110", churn="1/s", node="1", network="1", json=False,
        sample=False, clusters="1", cluster="1",
    )
    identifier = bytes.fromhex("02005efffe100001")
    assert prefix_command.run(chosen, lambda: 1_760_812_544_500_000_000, lambda: identifier) == 0
    told = capsys.readouterr()
    assert told.out.startswith("site     fd4e:cb64:7d3d::/48\nnode     /56 ")
    assert told.err == (
        "cni-v6ctl: fd4e:cb64:7d3d::/48 is random, and new at every call: write it down, and call again with it\n"
    )


def test_every_unique_local_prefix_is_new(capsys: Capture) -> None:
    sites = set()
    for _ in range(3):
        assert main(["plan-prefix", "--ula", "--json"]) == 0
        sites.add(json.loads(capsys.readouterr().out)["site"])
    assert len(sites) == 3
    assert all(site.startswith("fd") for site in sites)


def test_the_identifier_of_a_machine(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("0123456789abcdef0123456789abcdef\n")
    assert prefix_command.machine_identifier(tmp_path / "id").hex() == "0123456789abcdef" * 2


@pytest.mark.parametrize("content", [None, "", "uninitialized\n"])
def test_a_machine_without_an_identifier(content: str | None, tmp_path: Path) -> None:
    """The last two are what machine-id(5) says of an image and of its first boot."""
    if content is not None:
        (tmp_path / "id").write_text(content)
    one, other = (prefix_command.machine_identifier(tmp_path / "id") for _ in range(2))
    assert len(one) == len(other) == 16
    assert one != other


@pytest.mark.parametrize(("arguments", "words"), [
    (["2001:db8::/116", "--nodes", "1000"], "--nodes: 1000 do not fit in 2001:db8::/116"),
    (["10.0.0.0/8"], 'PREFIX: "10.0.0.0/8" is an IPv4 prefix'),
    (["2001:db8::/48", "--pods", "many"], '--pods: "many" is not a number'),
    (["2001:db8::/48", "--churn", "5"], '--churn: "5" is not a rate'),
    (["2001:db8::/48", "--nodes", "5", "--node", "6"], "--node: 6 is more than there are: --nodes is 5"),
    (["2001:db8::/48", "--network", "2"], "--network: 2 is more than there are: --networks is 1"),
    (["--ula", "--nodes", "0"], '--nodes: "0" is not a number'),
])
def test_a_prefix_that_cannot_be_planned(arguments: list[str], words: str, capsys: Capture) -> None:
    assert main(["plan-prefix", *arguments]) == 1
    told = capsys.readouterr()
    assert (told.out, told.err.partition(words)[0]) == ("", "cni-v6ctl: error 7: ")


@pytest.mark.parametrize("arguments", [[], ["2001:db8::/48", "--ula"], ["--ula", "--json", "--sample"]])
def test_plan_prefix_of_nothing_or_of_both(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan-prefix", *arguments])
    assert ended.value.code == 2
    assert "usage: cni-v6ctl plan-prefix" in capsys.readouterr().err


# schema


def test_schema(capsys: Capture) -> None:
    assert main(["schema"]) == 0
    assert capsys.readouterr().out == (ROOT / "conf" / "cni-v6.schema.json").read_text()


# All commands


PROGRAM = "import sys; from cni_v6.ctl import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.parametrize("command", [("list",), ("schema",)])  # little, and more than a buffer
def test_a_reader_that_has_seen_enough(store: str, command: tuple[str, ...]) -> None:
    """``cni-v6ctl list | head -1``: no traceback, no failure."""
    reader, writer = os.pipe()
    os.close(reader)
    arguments = [*command, *(("--data-dir", store) if command == ("list",) else ())]
    try:
        done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], cwd=ROOT, stdout=writer,
                              stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("command", [("list", "--data-dir"), ("schema",)])
@pytest.mark.parametrize(("stdout", "wanted"), [
    (">/dev/full", (1, b"cni-v6ctl: cannot write the output: No space left on device\n")), (">&-", (0, b"")),
])
def test_an_output_that_cannot_be_written(store: str, command: tuple[str, ...], stdout: str, wanted: object) -> None:
    arguments = (*command, store) if command[-1] == "--data-dir" else command
    shell = ["sh", "-c", f'exec "$@" {stdout}', "sh", sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(shell, cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == wanted


def test_a_rehearsal_has_no_data_folder() -> None:
    """Nothing of it is to be found again, and nothing of the node's is looked at."""
    folders = MemoryDataDirs()
    folders.remember("/elsewhere")
    assert folders.known() == folders.networks("/elsewhere") == folders.recorded("/elsewhere") == []
    assert folders.leased_elsewhere("pods", ["10.0.0.2"]) == frozenset()


# The command line


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_a_help_of_its_own(command: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: cni-v6ctl {command}") and max(map(len, shown.splitlines())) <= 80
    purpose, *_, status = shown.split("\n\n")[1:]
    assert purpose.endswith(".") and len(purpose.split()) > 4, "what it is for comes first"
    assert status.split()[:2] == ["exit", "status:"] and EXITS.get(command, "0, 1 after an error") in " ".join(
        status.split())


def test_an_unknown_command_is_told_all_that_there_are(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["lst"])
    assert ended.value.code == 2
    words = capsys.readouterr().err
    assert all(f"{command}" in words for command in COMMANDS)


def test_a_command_imports_no_other() -> None:
    program = f"import sys; sys.path[:0] = {[str(ROOT), sysconfig.get_path('purelib')]!r}\n" + (
        "from cni_v6.ctl import main\n"
        "main(['list', '--data-dir', '/nonexistent'])\n"
        "print(*sorted(name for name in sys.modules if name.startswith('cni_v6.ctl.')), 'netaddr' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-ISE", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == [
        "cni_v6.ctl.command", "cni_v6.ctl.list", "cni_v6.ctl.output", "cni_v6.ctl.places", "cni_v6.ctl.screen", "False",
    ]
