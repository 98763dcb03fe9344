"""Agents of several versions in one cluster, as while an operator upgrades node by node: what one writes that another
does not know is passed over, and stays as it was written."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cni_v6.cluster import membership, others, records, report
from cni_v6.cluster.config import AgentConf
from cni_v6.cluster.facts import Route
from cni_v6.cluster.kubernetes_messages import patch_document
from cni_v6.cluster.report import Answer, Report
from cni_v6.cluster.store import MemoryStore
from tests.unit.test_cluster import CONF, POOL6
from tests.unit.test_cluster_agent import READY, SRV6_CONF, VXLAN_CONF, Place, place

NEWER = {"since": "2.0", "keys": {"wireguard": "k="}, "addresses6": ["fd00:11::2", "fd00:12::2"]}


def newer(text: str) -> str:
    """An object as a later version may write it: with members that this one does not know."""
    return records.to_text({**json.loads(text), **NEWER})


def upgraded(store: MemoryStore, name: str) -> dict[str, str]:
    """The objects of a node, once an agent of a later version has written them; and one of a kind of its own."""
    found = {key: newer(text) for key, text in store.objects.items()
             if key == f"nodes/{name}" or key.startswith(records.BLOCKS) and json.loads(text)["node"] == name}
    found[f"policies/{name}"] = "7"
    store.objects.update(found)
    return found


@pytest.mark.parametrize("conf", [CONF, VXLAN_CONF, SRV6_CONF], ids=lambda conf: conf.carrier)
def test_what_a_later_version_writes_is_passed_over_and_stays(conf: AgentConf) -> None:
    """By all that the agent of another node does: it joins, has routes, starts anew without the store."""
    store = MemoryStore()
    a, b = place("a", store, 1, conf), place("b", store, 2, conf)
    assert (a.agent().step(), b.agent().step(), a.agent().step()) == (READY, READY, READY)
    entries = a.kernel.entries
    written = upgraded(store, "b")
    assert a.agent().step() == READY and a.said == [] and a.kernel.entries == entries
    c = place("c", store, 3, conf)
    assert c.agent().step() == READY and c.said == []
    assert written.items() <= store.objects.items()
    assert a.disk.state and written.items() <= a.disk.state.objects.items()


def test_an_agent_that_was_upgraded_and_is_put_back() -> None:
    """It takes what the later one wrote for its own, and writes nothing until something of it changes."""
    store = MemoryStore()
    a = place("a", store, 1)
    a.agent().step()
    written = upgraded(store, "a")
    assert a.agent().step() == READY and written.items() <= store.objects.items()
    moved = replace(a.underlay, addresses=("fd00:11::9",))
    later = Place("a", store, moved, disk=a.disk)
    assert later.agent().step() == READY
    assert json.loads(store.objects["nodes/a"])["addresses"] == ["fd00:11::9"]
    assert {key: text for key, text in written.items() if key != "nodes/a"}.items() <= store.objects.items()


def test_a_carrier_that_this_version_does_not_know() -> None:
    """There is no route to that node, which is said. The rest of the cluster goes on."""
    store = MemoryStore()
    a, b, c = (place(name, store, number) for number, name in enumerate("abc", 1))
    for node in (b, c, a):
        assert node.agent().step() == READY
    key = "nodes/b"
    store.objects[key] = records.to_text({**json.loads(store.objects[key]), "carrier": "wireguard"})
    assert a.agent().step() == READY
    assert all("its carrier is wireguard, and here it is direct" in words for words in a.said) and len(a.said) == 2
    ways = {Route(block, "eth0", hop) for block, hop in zip(c.blocks(), c.underlay.addresses)}
    assert a.kernel.entries == {*map(Route, a.blocks()), *ways}


def test_a_node_is_removed_by_an_older_version() -> None:
    store = MemoryStore()
    place("a", store, 1).agent().step()
    upgraded(store, "a")
    assert store.commit(membership.removal("a", store.objects, records.read(store.objects)))
    left = json.loads(store.objects["nodes/a"])
    assert left["removed"] is True and NEWER.items() <= left.items()
    assert records.read(store.objects).nodes["a"].removed


def test_the_other_cluster_is_of_a_later_version() -> None:
    store = MemoryStore()
    place("a", store, 1).agent().step()
    before = records.read(store.objects)
    upgraded(store, "a")
    assert records.read(others.checked(store.objects, others.MOST_CHARACTERS)) == before


def test_a_report_of_a_later_version() -> None:
    found = Report("1", {"fd42::/64": 7}, (Answer("b", 6, True, 5),), 9)
    assert report.read(newer(report.encode(found))) == found


def test_a_pool_that_an_older_version_does_not_know_stays() -> None:
    """As where an operator adds a pool, node by node."""
    store = MemoryStore({records.POOLS: records.encode_pools({"fd99::/48": 64})})
    assert place("a", store, 1).agent().step() == READY
    assert json.loads(store.objects[records.POOLS]).items() > {"fd99::/48": 64}.items()
    assert POOL6.cidr in json.loads(store.objects[records.POOLS])


def test_what_else_a_lease_has_stays() -> None:
    """A merge patch (RFC 7386) replaces what it names."""
    assert set(patch_document("{}", 7, None)["metadata"]["annotations"]) == {"cni-v6/value"}
