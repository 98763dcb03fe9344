"""The texts of the lease store."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from cni_v6 import errors
from cni_v6.errors import CniError
from cni_v6.leases import records
from cni_v6.leases.attachment import Attachment, BridgePort, ProxyEntry
from cni_v6.protocol.names import Owner
from tests.stores import BOOT, NETWORK, owner

WHOLE = Attachment(owner("a"), ("10.1.0.2", "2001:db8::2"), "veth1", (4, 4026532001), 1.5, BOOT)
words = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,300}", fullmatch=True)


@given(words, words)
def test_records_and_leases_are_read_back(container_id: str, ifname: str) -> None:
    attachment = Attachment(Owner(NETWORK, container_id, ifname), ("10.1.0.2",))
    name = records.record_name(container_id, ifname[:15])
    assert len(name) <= records.NAME_MAX
    name = records.record_name(container_id, ifname)
    assert records.decode(NETWORK, name, records.encode(attachment)) == attachment
    assert records.decode(NETWORK, name + "x", records.encode(attachment)) is None
    assert records.lease_owner(records.lease_content(attachment.owner)) == (container_id, ifname)


def test_a_record_that_has_not_changed_is_read_once() -> None:
    """STATUS and DEL read the same records again and again."""
    name, content = records.record_name(WHOLE.owner.container_id, WHOLE.owner.ifname), records.encode(WHOLE)
    assert records.decode(NETWORK, name, content) is records.decode(NETWORK, name, bytes(bytearray(content)))
    changed = records.encode(replace(WHOLE, created=2.5))
    assert records.decode(NETWORK, name, changed) == replace(WHOLE, created=2.5)


@pytest.mark.parametrize(("content", "expected", "text"), [
    (b"a\r\neth0", ("a", "eth0"), "a eth0"),
    (b" a\r\neth0\n", ("a", "eth0"), "a eth0"),
    (b"a", ("a", records.ANY_IFNAME), "a"),
    (b"a\r\n", ("a", records.ANY_IFNAME), "a"),
    (b"", None, ""),
    (b"a\neth0", None, "a eth0"),
    (b"a\r\neth0\r\nmore", None, "a eth0 more"),
    (b"../../etc\r\neth0", None, "../../etc eth0"),
    (b"a\r\n../x", None, "a ../x"),
    (b"\xff\xfe", None, ""),
    (b"\x1b[2Jboo", None, ""),
])
def test_lease_files_of_all_kinds(content: bytes, expected: tuple[str, str] | None, text: str) -> None:
    assert records.lease_owner(content) == expected
    assert records.lease_text(content) == text


@pytest.mark.parametrize(("content", "ours"), [
    (b"a\r\neth0", True), (b"a", True), (b"", True), (b"a\r\neth1", False), (b"b\r\neth0", False), (b"b", False),
    (records.UNREADABLE, False),
])
def test_whose_a_lease_file_is(content: bytes, ours: bool) -> None:
    assert records.is_lease_of(owner("a"), content) == ours


@pytest.mark.parametrize("change", [
    {"containerID": "../../etc"}, {"containerID": "b"}, {"ifname": "eth1"}, {"ifname": "../x"}, {"containerID": 7},
    {"addresses": ["10.1.0.2/24"]}, {"addresses": ["../lock"]}, {"addresses": [7]}, {"addresses": 7},
    {"addresses": ["2001:DB8::2"]}, {"netns": [1]}, {"netns": None}, {"netns": ["x", 1]}, {"netns": [float("inf"), 1]},
    {"created": "soon"}, {"created": []}, {"host": "a\nb"}, {"boot": "\ud800"},
])
def test_a_record_with_anything_out_of_shape_is_none(change: dict[str, Any]) -> None:
    raw = json.loads(records.encode(WHOLE))
    assert records.decode(NETWORK, "a:eth0", json.dumps(raw).encode()) == WHOLE
    assert records.decode(NETWORK, "a:eth0", json.dumps(raw | change).encode()) is None


def test_a_record_of_later_fields() -> None:
    whole = replace(WHOLE, prefixes=("2001:db8:0:0:1::/80",), home=(4, 5), reuse=("after", "never"), identity="a/b")
    raw = json.loads(records.encode(whole))
    assert records.decode(NETWORK, "a:eth0", json.dumps(raw).encode()) == whole
    for change in ({"prefixes": ["2001:db8::1/80"]}, {"prefixes": 7}, {"home": [1]}, {"reuse": 7}):
        assert records.decode(NETWORK, "a:eth0", json.dumps(raw | change).encode()) is None


@pytest.mark.parametrize("port", [
    BridgePort("cni0"),
    BridgePort("cni0", True, True, 5, ((7, 7), (10, 12)), False, True, True, "fe80::1/64"),
])
def test_a_bridge_port(port: BridgePort) -> None:
    whole = replace(WHOLE, port=port)
    assert records.decode(NETWORK, "a:eth0", records.encode(whole)) == whole


@pytest.mark.parametrize("change", [
    {"bridge": ""}, {"bridge": "../etc"}, {"bridge": "a\nb"}, {"bridge": "a234567890123456"}, {"hairpin": 1},
    {"isolated": "no"}, {"vlan": 4095}, {"vlan": "5"}, {"vlan": -1}, {"trunk": 7}, {"trunk": [[1]]},
    {"trunk": [[1, 5000]]}, {"link_local": "2001:db8::1/64"}, {"link_local": "fe80::1"}, {"link_local": "FE80::1/64"},
])
def test_a_bridge_port_that_is_out_of_shape(change: dict[str, Any]) -> None:
    raw = json.loads(records.encode(replace(WHOLE, port=BridgePort("cni0"))))
    assert records.decode(NETWORK, "a:eth0", json.dumps(raw | {"port": {**raw["port"], **change}}).encode()) is None
    values: list[Any] = [7, None, "", {}]
    for port in values:
        assert records.decode(NETWORK, "a:eth0", json.dumps(raw | {"port": port}).encode()) is None


@pytest.mark.parametrize(("content", "holder"), [
    (records.prefix_content(Owner(NETWORK, "a", "eth0")), "a eth0"), (b"", ""), (b"7", ""), (b"[" * 100_000, "")])
def test_who_has_a_prefix(content: bytes, holder: str) -> None:
    assert records.prefix_holder(content) == holder


@pytest.mark.parametrize("entry", [
    ["six", "cni0"], ["six", "cni0", "2001:db8::2", "x"], ["six", "cni0", "10.1.0.2"], ["six", "cni0", "2001:DB8::2"],
    ["../six", "cni0", "2001:db8::2"], ["six", "", "2001:db8::2"], ["six", "cni0", "x"], 7, None,
])
def test_an_address_that_the_node_answers_for(entry: Any) -> None:
    whole = replace(WHOLE, proxied=(ProxyEntry("six", "cni0", "2001:db8::2"),))
    raw = json.loads(records.encode(whole))
    assert records.decode(NETWORK, "a:eth0", json.dumps(raw).encode()) == whole
    assert records.decode(NETWORK, "a:eth0", json.dumps(raw | {"proxied": [entry]}).encode()) is None
    assert records.decode(NETWORK, "a:eth0", json.dumps(raw | {"proxied": 7}).encode()) is None
    del raw["proxied"]  # of an older version
    assert records.decode(NETWORK, "a:eth0", json.dumps(raw).encode()) == WHOLE


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"{}", b"[" * 100_000, b"9" * 10_000])
def test_what_is_no_record_is_none(content: bytes) -> None:
    assert records.decode(NETWORK, "a:eth0", content) is None


def test_long_container_ids_keep_records_of_their_own() -> None:
    names = {records.record_name("a" * 300 + end, "eth0") for end in "xy"}
    assert len(names) == 2
    assert all(name.startswith("~") and name.endswith(":eth0") for name in names)


def test_a_taken_address_without_a_readable_holder_points_at_its_file() -> None:
    error = records.unavailable("10.1.0.2", "")
    assert error.code == errors.ADDRESS_UNAVAILABLE
    assert error.msg == "address 10.1.0.2 is taken: its lease file names no holder"
    assert error.details == "look at that file in the network's folder, and remove it if nobody uses the address"


def test_a_bad_word_is_named() -> None:
    with pytest.raises(CniError, match=r"network 'a/b' cannot name a file of the lease store") as caught:
        records.require_safe("network", "a/b")
    assert caught.value.code == errors.STORE_FAILED
