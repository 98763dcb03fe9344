"""Calls with what every network has and nothing else of this one, as Multus makes them, on a node of fakes."""

from __future__ import annotations

from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.config.main import is_stripped
from cni_v6.errors import STORE_FAILED, CniError
from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST
from cni_v6.leases.memory import MemoryLeases
from tests.unit.config_tables import call
from tests.unit.fake_context import CONFIG, DATA_DIR, FakeContext

ELSEWHERE = "/srv/cni"
STRIPPED: dict[str, Any] = {
    "cniVersion": "1.1.0", "name": "pods", "type": "cni-v6", "ipam": {"type": "cni-v6-ipam"}, "dns": {},
    "capabilities": {"portMappings": True},
}
PLUGINS = ("cni-v6", "cni-v6-routed", "cni-v6-ipam")


def attached(kind: str, data_dir: str = DATA_DIR) -> FakeContext:
    """Two containers, of a network on a bridge that is not the default one."""
    fake = FakeContext()
    ipam = CONFIG["ipam"] | ({} if data_dir == DATA_DIR else {"dataDir": data_dir})
    fake.remembered.add(data_dir)
    for name in ("a", "b"):
        fake.container(name)
        fake.call("ADD", name, CONFIG | {"bridge": "br7", "ipam": ipam}, type=kind).ok()
    fake.now += 10
    return fake


def holders(fake: FakeContext, data_dir: str) -> list[str]:
    return [record.owner.container_id for record in fake.attachments(data_dir=data_dir)]


@pytest.mark.parametrize("data_dir", [DATA_DIR, ELSEWHERE])
@pytest.mark.parametrize("kind", PLUGINS)
def test_gc_then_del(kind: str, data_dir: str) -> None:
    fake = attached(kind, data_dir)
    valid = {"cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}]}
    fake.call("GC", config=STRIPPED | valid, type=kind).ok()
    assert holders(fake, data_dir) == ["a"]
    fake.call("DEL", "a", STRIPPED | {"runtimeConfig": {"portMappings": []}}, type=kind).ok()
    assert holders(fake, data_dir) == []
    assert [name for name in fake.kernel.spaces[HOST].links if name.startswith("veth")] == []


def test_gc_finds_an_interface_without_a_record_on_any_bridge() -> None:
    fake = attached("cni-v6")
    with fake.leases().transaction() as leases:
        for record in list(leases.attachments()):
            leases.drop(record.owner)
    fake.call("GC", config=STRIPPED | {"cni.dev/valid-attachments": []}).ok()
    assert [name for name in fake.kernel.spaces[HOST].links if name.startswith("veth")] == []


@pytest.mark.parametrize("kind", (*PLUGINS, "cni-v6-macvlan"))
def test_status_checks_the_store(kind: str) -> None:
    fake = attached("cni-v6")
    fake.kernel.add_link(HOST, Link("up0", "02:00:00:00:00:99", 1500, up=True))
    answer = fake.call("STATUS", config=STRIPPED, type=kind)
    assert answer.ok() is None and "nothing of the network but its name and types" in answer.stderr


class FullDisk(FakeContext):
    def leases(self, network: str = "pods", data_dir: str = DATA_DIR) -> MemoryLeases:
        raise CniError(STORE_FAILED, "no space", "make some")


def test_status_of_a_store_that_does_not_work() -> None:
    assert "no space" in FullDisk().call("STATUS", config=STRIPPED).error(errors.NOT_AVAILABLE)


def test_status_loads_the_firewall_again_and_says_so() -> None:
    fake = attached("cni-v6")
    fake.kernel.firewall.unload()
    assert "tables" in fake.call("STATUS", config=STRIPPED).error(errors.LIMITED)
    assert fake.call("STATUS", config=STRIPPED).ok() is None


@pytest.mark.parametrize(("changes", "stripped"), [
    ({}, True),
    ({"ipam": {"type": "host-local"}}, True),
    ({"ipam": {"type": "cni-v6-ipam", "dataDir": "/x"}}, False),
    ({"ipam": {"type": "dhcp"}}, False),
    ({"ipam": []}, False),
    ({"bridge": "br7"}, False),
    ({"cni.dev/attachments": []}, True),
    ({"runtimeConfig": {"ipRanges": [[{"subnet": "10.0.0.0/24"}]]}}, False),
    ({"runtimeConfig": []}, True),
])
def test_what_is_stripped(changes: dict[str, Any], stripped: bool) -> None:
    assert is_stripped(call(STRIPPED | changes)) is stripped


def test_a_network_in_two_other_folders_is_in_none() -> None:
    """Nobody can tell which one a call means."""
    fake = attached("cni-v6", ELSEWHERE)
    ipam = CONFIG["ipam"] | {"dataDir": "/srv/other"}
    fake.container("c")
    fake.call("ADD", "c", CONFIG | {"bridge": "br8", "overlap": "allow", "ipam": ipam}).ok()
    fake.call("DEL", "a", STRIPPED).ok()
    assert holders(fake, ELSEWHERE) == ["a", "b"] and holders(fake, "/srv/other") == ["c"]


# The version that an older runtime takes


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_a_list_with_versions_under_a_runtime_that_reads_one(version: str) -> None:
    """It passes the list's other keys in no case; what is in the plugin's own object it passes on."""
    fake = FakeContext()
    conf = CONFIG | {"cniVersion": version, "cniVersions": ["1.0.0", "1.1.0"], "strict": True}
    result = fake.add("a", conf)
    assert result["cniVersion"] == version and len(result["ips"]) == 2 and len(result["interfaces"]) == 3
    fake.call("DEL", "a", {**conf, "cniVersion": "1.1.0", "prevResult": result | {"cniVersion": "1.1.0"}}).ok()
    assert fake.attachments() == []


def test_a_refused_del_of_a_macvlan_makes_no_store() -> None:
    """The namespace is the node's own."""
    fake = FakeContext()
    fake.kernel.spaces["/run/netns/own"] = fake.kernel.spaces[HOST]
    fake.call("DEL", "own", STRIPPED | {"type": "cni-v6-macvlan"}, type="cni-v6-macvlan").error(errors.INVALID_NETNS)
    assert fake.stores == {}
