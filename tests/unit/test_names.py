"""Derived names: the same from the same three words for ever, other ones from others."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st

from cni_v6.protocol import names
from cni_v6.protocol.names import Owner

OWNER = Owner("pods", "4f2a", "eth0")
WORDS = st.text("ab0.-_", min_size=1, max_size=20)
OWNERS = st.builds(Owner, WORDS, WORDS, WORDS)
MAC = re.compile("[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def test_they_never_change() -> None:
    """A release that derived others would leave the interfaces of running containers behind at their DEL."""
    assert names.host_interface(OWNER) == "veth401823b6233"
    assert names.container_mac(OWNER) == "6a:e8:22:d3:c3:3c"
    assert names.host_mac(OWNER) == "4e:11:ba:ef:d2:59"
    assert names.bridge_mac("cni0", "node-1") == "16:b0:43:c6:b3:09"
    assert names.alias(OWNER) == "cni-v6 pods/4f2a/eth0"
    assert str(OWNER) == "pods/4f2a/eth0"


@given(owner=OWNERS)
def test_the_kernel_takes_them(owner: Owner) -> None:
    assert len(names.host_interface(owner)) == names.IFNAMSIZ
    for mac in (names.container_mac(owner), names.host_mac(owner), names.bridge_mac(owner.network, "")):
        assert MAC.fullmatch(mac)
        assert int(mac[:2], 16) & 3 == 2, "unicast, locally administered"


@given(one=OWNERS, other=OWNERS)
def test_each_owner_has_its_own(one: Owner, other: Owner) -> None:
    for derive in (names.host_interface, names.container_mac, names.host_mac, names.alias):
        assert (derive(one) == derive(other)) == (one == other)


@given(owners=st.lists(OWNERS, max_size=3))
def test_those_of_many_are_those_of_each(owners: list[Owner]) -> None:
    wanted = frozenset(names.host_interface(Owner("pods", each.container_id, each.ifname)) for each in owners)
    assert names.host_interfaces("pods", ((each.container_id, each.ifname) for each in owners)) == wanted


def test_words_do_not_run_into_each_other() -> None:
    one, other = Owner("a", "bc", "eth0"), Owner("ab", "c", "eth0")
    assert names.host_interface(one) != names.host_interface(other)


def test_the_macs_of_one_attachment_differ() -> None:
    assert len({names.container_mac(OWNER), names.host_mac(OWNER), names.bridge_mac("pods", "4f2a")}) == 3


def test_bridges_of_two_nodes_on_one_segment_differ() -> None:
    assert names.bridge_mac("cni0", "node-1") != names.bridge_mac("cni0", "node-2")
    assert names.bridge_mac("cni0", "node-1") != names.bridge_mac("cni1", "node-1")


@given(owner=OWNERS)
def test_an_alias_names_its_owner(owner: Owner) -> None:
    assert names.owner_of_alias(names.alias(owner)) == owner


@pytest.mark.parametrize("text", ["", "cni-v6", "cni-v6 a/b", "cni-v6 a/b/c/d", "other a/b/c", "uplink to the router"])
def test_what_is_no_alias_of_ours(text: str) -> None:
    assert names.owner_of_alias(text) is None
