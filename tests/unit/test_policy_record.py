"""A policy in a lease's record: what was written comes back, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from cni_v6.firewall.policy import (
    GUARD_FULL,
    GUARD_LINK,
    GUARD_MAC,
    GUARD_OFF,
    ISOLATED,
    MASQUERADED,
    OPEN,
    PUBLISHED,
    Allowed,
    Policy,
    Port,
)
from cni_v6.leases.policy_record import from_json, to_json
from cni_v6.net.addresses import to_text

FULL = Policy(
    home="cni0.7", port="veth0", mac="02:00:5e:10:00:01", addresses=("fd42::5", "10.1.0.5"),
    link_local="fe80::5eff:fe10:1", guard=GUARD_FULL, ingress=PUBLISHED, masquerade=("10.1.0.5",),
    snat=(("fd42::5", "2001:db8::5"),), keep=("10.0.0.0/8", "fd00::/8"), inbound=(("2001:db8::5", "fd42::5"),),
    ports=(Port("tcp", 8080, 80), Port("udp", 53, 53, "::1")),
    egress=(Allowed("::/0"), Allowed("10.0.0.0/8", "tcp", (443, 443))),
    prefixes=(("fd42:1:2:3:1::/80", MASQUERADED), ("fd42:1:2:3:2::/80", ""), ("fd42:1:2:3:3::/96", "2001:db8::5")),
)

SIX = st.integers(1 << 120, (1 << 128) - 1).map(lambda value: to_text(6, value))
PORT = st.integers(1, 65535)
POLICIES = st.builds(
    lambda own, outside, **rest: Policy(
        addresses=tuple(own), masquerade=tuple(own[:1]), snat=tuple(zip(own, outside)),
        inbound=tuple(zip(outside, own)), **rest,
    ),
    st.lists(SIX, max_size=3), st.lists(SIX, max_size=3),
    home=st.sampled_from(["cni0", "cni0.7"]), port=st.sampled_from(["veth1a", "v"]),
    mac=st.sampled_from(["", "02:00:5e:10:00:01"]), link_local=st.sampled_from(["", "fe80::1"]),
    guard=st.sampled_from([GUARD_OFF, GUARD_MAC, GUARD_LINK, GUARD_FULL]),
    ingress=st.sampled_from([OPEN, PUBLISHED, ISOLATED]),
    prefixes=st.lists(st.tuples(
        st.sampled_from(["fd42:1:2:3:1::/80", "2001:db8::/127"]), st.sampled_from(["", MASQUERADED]) | SIX,
    )).map(tuple),
    keep=st.lists(st.sampled_from(["10.0.0.0/8", "fd00::/8", "::/0"])).map(tuple),
    ports=st.lists(st.builds(
        Port, st.sampled_from(["tcp", "udp", "sctp"]), PORT, PORT, st.sampled_from(["", "0.0.0.0", "::", "192.0.2.7"]),
    )).map(tuple),
    egress=st.none() | st.lists(st.builds(
        Allowed, st.sampled_from(["0.0.0.0/0", "fd00::/8"]), st.sampled_from(["", "tcp"]),
        st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(lambda two: (min(two), max(two))),
    )).map(tuple),
)


@given(POLICIES)
def test_it_comes_back(policy: Policy) -> None:
    assert from_json(json.loads(json.dumps(to_json(policy)))) == policy


def test_the_least_and_the_most_come_back() -> None:
    for policy in (Policy(home="cni0", port="veth0"), FULL):
        assert from_json(json.loads(json.dumps(to_json(policy)))) == policy


@pytest.mark.parametrize("raw", [None, 7, [], {}, "x", {"home": "cni0"}])
def test_what_is_no_policy(raw: object) -> None:
    with pytest.raises(ValueError, match="not"):
        from_json(raw)


def test_another_versions_is_taken_for_what_it_says() -> None:
    """A container outlives an upgrade, and its protection with it."""
    assert from_json(to_json(FULL) | {"more": 1}) == FULL
    older = {key: value for key, value in to_json(FULL).items() if key not in ("stale", "prefixes")}
    assert from_json(older) == replace(FULL, stale=(), prefixes=())


@pytest.mark.parametrize(("key", "value"), [
    ("home", ""), ("home", None), ("home", "a/b"), ("home", "x" * 16), ("port", 7), ("port", "all"),
    ("mac", "02:00:5E:10:00:01"), ("mac", "01:00:5e:10:00:01"), ("mac", None), ("linkLocal", "fe80::0:1"),
    ("linkLocal", "link"), ("guard", "some"), ("guard", []), ("ingress", ""), ("ingress", 7),
    ("addresses", "fd42::5"), ("addresses", ["fd42::5/64"]), ("addresses", ["FD42::5"]), ("addresses", [5]),
    ("addresses", ["::ffff:10.1.0.5"]), ("addresses", []), ("masquerade", ["10.1.0.6"]), ("masquerade", None),
    ("snat", [["fd42::5"]]), ("snat", [["fd42::5", "192.0.2.7"]]), ("snat", ["fd42::5"]),
    ("snat", [["fd42::6", "2001:db8::5"]]), ("inbound", [["2001:db8::5", "fd42::6"]]), ("inbound", {}),
    ("keep", ["10.0.0.1/8"]), ("keep", ["10.0.0.0"]), ("ports", [["tcp", 1, 1]]), ("ports", [["icmp", 1, 1, ""]]),
    ("ports", [["TCP", 1, 1, ""]]), ("ports", [["tcp", 0, 1, ""]]), ("ports", [["tcp", 1, 65536, ""]]),
    ("ports", [["tcp", True, 1, ""]]), ("ports", [["tcp", "1", 1, ""]]), ("ports", [["tcp", 1.0, 1, ""]]),
    ("ports", [["tcp", 1, 1, "fe80::1"]]), ("ports", [["tcp", 1, 1, None]]), ("egress", {}),
    ("egress", [["::/0", "tcp", 2, 1]]), ("egress", [["::/0", "tcp", 1, 65536]]), ("egress", [["::/0", "any", 1, 2]]),
    ("egress", [["::/0", "tcp", -1, 2]]), ("egress", [["::", "tcp", 1, 2]]), ("egress", [["::/0"]]),
    ("prefixes", [["10.0.0.0/8", ""]]), ("prefixes", [["fd42::/80", "10.1.0.5"]]), ("prefixes", ["fd42::/80"]),
    ("prefixes", [["fd42::1/80", ""]]), ("prefixes", [["fd42::/80", "all"]]), ("prefixes", [["fd42::", ""]]),
])
def test_anything_odd_is_refused(key: str, value: object) -> None:
    raw: dict[str, Any] = to_json(FULL) | {key: value}
    with pytest.raises(ValueError):
        from_json(raw)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2), max_leaves=6,
)


@given(key=st.sampled_from(sorted(to_json(FULL))), value=VALUES)
def test_whatever_stands_there(key: str, value: object) -> None:
    try:
        policy = from_json(to_json(FULL) | {key: value})
    except ValueError:
        return
    assert to_json(policy) == to_json(FULL) | {key: value}
