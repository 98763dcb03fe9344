"""Policies from the firewall's own elements: what went in comes out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cni_v6.firewall.elements import COMMENT_BYTES, elements
from cni_v6.firewall.policy import (
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
from cni_v6.firewall.recovered import policies
from cni_v6.firewall.sets import Element
from cni_v6.kernel.netfilter import keys
from cni_v6.protocol.names import Owner

OWNER = Owner("pods", "c1", "eth0")
WHOLE = Policy(
    "cni0", "veth1", "02:00:00:00:00:01", ("fd42::2", "10.1.0.2"), "fe80::ff:fe00:1", "full", PUBLISHED,
    masquerade=("10.1.0.2",), snat=(("fd42::2", "2001:db8::2"),), keep=("10.9.0.0/16", "10.8.0.1/32", "fd00::/8"),
    inbound=(("2001:db8::2", "fd42::2"),), stale=("10.1.0.2", "fd42::2"),
    ports=(Port("tcp", 80, 8080), Port("udp", 53, 53, "0.0.0.0"), Port("sctp", 9, 9, "2001:db8::7")),
    egress=(Allowed("2001:db8:5::/48", "tcp", (443, 443)), Allowed("10.9.0.0/16", "udp", (5000, 5010)),
            Allowed("fd00::1/128")),
    prefixes=(("fd42:0:0:1::/80", MASQUERADED), ("fd42:0:0:2::/80", ""), ("fd42:0:0:3::/80", "2001:db8::9")),
)


def as_the_kernel_spells(element: Element) -> Element:
    """As ``read_elements`` reads it: a prefix of one address is an address."""
    declared = keys.set_of(element)
    if not declared.intervals:
        return element
    first, last = (keys.split(declared.key, value) for value in keys.key(element))
    return replace(element, key=tuple(map(keys.span_text, declared.key, first, last)))


@pytest.mark.parametrize("policy", [
    WHOLE, replace(WHOLE, ingress=ISOLATED, guard=GUARD_LINK, ports=(), egress=()),
    replace(WHOLE, ingress=OPEN, guard=GUARD_MAC, egress=None, prefixes=(), snat=(), inbound=(), stale=("10.1.0.2",),
            keep=("10.9.0.0/16",)),
    Policy("cni0", "", addresses=("10.1.0.2",), guard=GUARD_OFF, ingress=PUBLISHED, ports=(Port("tcp", 1, 2),)),
    Policy("", "veth1", "02:00:00:00:00:01", guard=GUARD_LINK),
])
def test_what_went_in_comes_out(policy: Policy) -> None:
    other = Owner("others", "c1", "eth0")  # with the same address, behind another interface
    beside = Policy("cni1", "veth2", "02:00:00:00:00:02", ("10.1.0.2",), "", "full", ISOLATED)
    held = [as_the_kernel_spells(each) for each in (*elements(OWNER, policy), *elements(other, beside))]
    found = policies(held)
    assert found[other] == beside
    assert {replace(each, comment="") for each in elements(OWNER, found[OWNER])} == {
        replace(each, comment="") for each in elements(OWNER, policy)
    }
    assert set(found[OWNER].keep) == set(policy.keep) and set(found[OWNER].egress or ()) == set(policy.egress or ())
    assert replace(found[OWNER], keep=(), egress=None) == replace(policy, keep=(), egress=None)


def test_a_comment_that_is_cut_or_another_ones_names_nobody() -> None:
    long = Owner("pods", "c" * COMMENT_BYTES, "eth0")
    assert policies(elements(long, WHOLE)) == {}
    assert policies([Element("inet", "home4", ("10.1.0.2", "cni0"), comment="somebody")]) == {}
