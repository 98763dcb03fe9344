"""The firewall's tables as the kernel lists them are those that were loaded; whatever others do to them is seen."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cni_v6.firewall import ruleset, shape
from cni_v6.firewall.shape import Table
from cni_v6.kernel import ops
from cni_v6.kernel.questions import GetRuleset, GetTables
from tests.contract.kernels import KernelTestbed, LinuxTestbed, linux_testbed
from tests.netns import nft
from tests.sandbox import Node

INET, BRIDGE = "table inet cni_v6", "table bridge cni_v6"


@pytest.fixture
def linux() -> Iterator[LinuxTestbed]:
    with linux_testbed() as made:
        yield made


def tables(testbed: KernelTestbed) -> tuple[Table, ...]:
    return testbed.kernel.observe([GetTables()]).tables()


def test_none_are_there(testbed: KernelTestbed) -> None:
    assert tables(testbed) == ()
    assert shape.differences(()) == [f"{INET} is gone", f"{BRIDGE} is gone"]


def test_what_is_loaded_does_not_differ(testbed: KernelTestbed) -> None:
    for _ in range(2):
        testbed.kernel.apply([ops.LoadRuleset(())])
        loaded = tables(testbed)
        assert shape.differences(loaded) == [] == shape.differences(loaded, loaded)
        assert testbed.kernel.observe([GetRuleset()]).ruleset() == ruleset.mark()


def first_rule(node: Node, chain: str) -> str:
    """The handle of a chain's first rule."""
    listed = json.loads(node.run("nft", "-j", "list", "chain", "inet", "cni_v6", chain).stdout)["nftables"]
    return next(str(each["rule"]["handle"]) for each in listed if "rule" in each)


DAMAGES = [
    ("flush ruleset", [f"{INET} is gone", f"{BRIDGE} is gone"]),
    ("delete table bridge cni_v6", [f"{BRIDGE} is gone"]),
    ("add table inet cni_v6 { flags dormant; }", [f"{INET}: it is dormant"]),
    ("insert rule inet cni_v6 published6 accept", [f"{INET}: chain published6 has 5 rules, not 4"]),
    ("flush chain bridge cni_v6 guard_arp", [f"{BRIDGE}: chain guard_arp has 0 rules, not "]),
    ("add chain inet cni_v6 mine { type filter hook forward priority -300; }", [f"{INET}: chain mine is not ours"]),
    ("add chain inet cni_v6 forward_ingress { policy drop; }", [f"{INET}: the policy of chain forward_ingress is dro"]),
    ("add set inet cni_v6 mine { type ipv4_addr; }", [f"{INET}: set mine is not ours"]),
    ("replace rule inet cni_v6 published6 handle {handle} accept", [f"{INET}: a rule of chain published6"]),
    ("add table inet theirs; add chain inet theirs forward { type filter hook forward priority 0; policy drop; }", []),
    ("add element inet cni_v6 containers4 { 10.1.0.7 }", []),
]


@pytest.mark.netns
@pytest.mark.parametrize(("damage", "differs"), DAMAGES)
def test_what_others_do_is_seen(linux: LinuxTestbed, damage: str, differs: list[str]) -> None:
    linux.kernel.apply([ops.LoadRuleset(())])
    before = tables(linux)
    nft.load(linux.node, damage.replace("{handle}", first_rule(linux.node, "published6")))
    found = shape.differences(tables(linux), before)
    assert len(found) == len(differs) and all(map(str.startswith, found, differs)), found
    unseen = not differs or "a rule of" in differs[0]
    assert (linux.kernel.observe([GetRuleset()]).ruleset() == ruleset.mark()) == unseen


@pytest.mark.netns
def test_what_counters_count_is_no_difference(linux: LinuxTestbed) -> None:
    linux.kernel.apply([ops.LoadRuleset(())])
    before = tables(linux)
    linux.node.run("ping", "-c1", "-W10", "127.0.0.1")
    nft.load(linux.node, "insert rule inet cni_v6 output_known counter")
    changed = tables(linux)
    assert shape.differences(changed, before) == [f"{INET}: chain output_known has 4 rules, not 3"]
    linux.node.run("ping", "-c1", "-W10", "127.0.0.1")
    assert "packets 0" not in linux.node.run("nft", "list", "chain", "inet", "cni_v6", "output_known").stdout
    assert tables(linux) == changed
