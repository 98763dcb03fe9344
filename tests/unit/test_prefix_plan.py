"""A site's prefix split over its nodes and networks: what fits, what does not, and for how long."""

from __future__ import annotations

import re
from fractions import Fraction
from ipaddress import IPv6Network, collapse_addresses
from typing import Any

import pytest
from hypothesis import assume, given, strategies as st

from cni_v6.allocation.ranges import LARGE, size
from cni_v6.config.bridge import BridgeConf, parse_bridge
from cni_v6.config.ipam import IpamConf
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.planning.prefix_plan import (
    MOST,
    PrefixPlan,
    Wanted,
    duration,
    ntp_time,
    parse_count,
    parse_rate,
    parse_site,
    sample,
    split,
    ula,
)
from tests.unit.config_tables import call


def planned(site: str, nodes: int = 1, networks: int = 1, pods: int = 110, rate: str = "1/s") -> PrefixPlan:
    return split(parse_site(site), Wanted(nodes, networks, pods, parse_rate("--churn", rate)))


def refused(raised: pytest.ExceptionInfo[CniError]) -> str:
    assert raised.value.code == INVALID_CONFIG
    return str(raised.value)


# The split


@pytest.mark.parametrize(("site", "nodes", "networks", "node", "network", "nodes_fit", "networks_fit"), [
    ("2001:db8::/48", 1000, 1, 60, 64, 4096, 16),
    ("2001:db8::/48", 4096, 16, 60, 64, 4096, 16),
    ("2001:db8::/48", 4097, 1, 64, 64, 65536, 1),
    ("2001:db8::/48", 4096, 17, 60, 68, 4096, 256),
    ("2001:db8::/48", 65537, 1, 68, 68, 2**20, 1),
    ("2001:db8::/48", 1, 1, 48, 64, 1, 65536),
    ("2001:db8::/48", 1, 65537, 48, 68, 1, 2**20),
    ("2001:db8::/29", 8, 1, 32, 64, 8, 2**32),
    ("2001:db8::/29", 9, 1, 36, 64, 128, 2**28),
    ("2001:db8::/64", 1, 1, 64, 64, 1, 1),
    ("2001:db8::/64", 10, 3, 68, 72, 16, 16),
])
def test_split(
    site: str, nodes: int, networks: int, node: int, network: int, nodes_fit: int, networks_fit: int,
) -> None:
    plan = planned(site, nodes, networks)
    assert (plan.node_length, plan.network_length) == (node, network)
    assert (plan.nodes_fit, plan.networks_fit) == (nodes_fit, networks_fit)


def test_nodes_and_networks_are_numbered_from_one() -> None:
    plan = planned("2001:db8::/48", 1000, 16)
    assert [str(plan.node(number)) for number in (1, 2, 1000)] == [
        "2001:db8::/60", "2001:db8:0:10::/60", "2001:db8:0:3e70::/60",
    ]
    assert [str(plan.network(2, number)) for number in (1, 2, 16)] == [
        "2001:db8:0:10::/64", "2001:db8:0:11::/64", "2001:db8:0:1f::/64",
    ]


COUNTS = st.one_of(st.integers(1, 40), st.integers(1, MOST))


@st.composite
def sites(draw: st.DrawFn) -> str:
    length = draw(st.integers(3, 128))
    bits = draw(st.integers(0, 2**125 - 1)) | 1 << 125  # 2000::/3
    return str(IPv6Network((bits >> 128 - length << 128 - length, length)))


def plan_or_nothing(site: str, nodes: int, networks: int, pods: int) -> PrefixPlan:
    try:
        return planned(site, nodes, networks, pods)
    except CniError:
        assume(False)
        raise


@given(sites(), COUNTS, COUNTS, COUNTS)
def test_what_is_planned_fits(site: str, nodes: int, networks: int, pods: int) -> None:
    plan = plan_or_nothing(site, nodes, networks, pods)
    assert plan.node_length % 4 == plan.network_length % 4 == 0
    assert plan.nodes_fit >= nodes
    assert plan.networks_fit >= networks
    assert 2 ** (128 - plan.network_length) - 2 >= pods
    assert IPv6Network(site).num_addresses == plan.nodes_fit * plan.networks_fit * 2 ** (128 - plan.network_length)
    # The node's prefix is no larger than its nibble boundary asks for, and a network is a /64 wherever it can be.
    assert plan.nodes_fit < 16 * nodes
    assert plan.network_length == 64 or plan.networks_fit < 16 * networks


@given(sites(), st.integers(1, 40), st.integers(1, 40))
def test_nodes_and_networks_are_apart_and_inside(site: str, nodes: int, networks: int) -> None:
    plan = plan_or_nothing(site, nodes, networks, 110)
    prefixes = [IPv6Network(str(plan.node(number))) for number in range(1, nodes + 1)]
    assert all(each.subnet_of(IPv6Network(site)) for each in prefixes)
    last = [IPv6Network(str(plan.network(nodes, number))) for number in range(1, networks + 1)]
    assert all(each.subnet_of(prefixes[-1]) for each in last)
    for group in (prefixes, last):
        assert len(set(group)) == len(group)
        together = sum(each.num_addresses for each in collapse_addresses(group))
        assert together == sum(each.num_addresses for each in group)


# What does not fit


@pytest.mark.parametrize(("site", "nodes", "networks", "says"), [
    ("2001:db8::/116", 1000, 1, (
        "--nodes: 1000 do not fit in 2001:db8::/116", "at least a /120, of which it has 16", "take a /108 or larger",
        "or 16 nodes at most",
    )),
    ("2001:db8::/116", 10, 300, (
        "--networks: 300 do not fit in a node's /120 of 2001:db8::/116", "take a /104 or larger",
        "or 1 networks at most",
    )),
    ("2001:db8::/124", 1, 1, ("--pods: 250 do not fit in 2001:db8::/124", "take a /120 or larger")),
    ("2001:db8::/121", 1, 1, ("--pods: 250 do not fit", "at least a /120", "take a /120 or larger")),
    ("2001:db8::/128", 5, 5, ("--pods: 250 do not fit", "take a /112 or larger")),
])
def test_what_does_not_fit(site: str, nodes: int, networks: int, says: tuple[str, ...]) -> None:
    with pytest.raises(CniError) as raised:
        planned(site, nodes, networks, 250)
    message = refused(raised)
    assert [words for words in says if words not in message] == []


@given(sites(), COUNTS, COUNTS, COUNTS)
def test_what_is_said_to_fit_fits(site: str, nodes: int, networks: int, pods: int) -> None:
    try:
        planned(site, nodes, networks, pods)
    except CniError as error:
        remedy = error.details
    else:
        assume(False)
    found = re.fullmatch(r"take a /(\d+) or larger(?:, or (\d+) (nodes|networks) at most)?", remedy)
    assert found
    length = int(found[1])
    assert length <= int(site.partition("/")[2])
    if length >= 3:
        assert planned(f"2000::/{length}", nodes, networks, pods)
    if found[3]:
        most = int(found[2])
        pairs = [(nodes, each) if found[3] == "networks" else (each, 1) for each in (most, most + 1)]
        assert planned(site, *pairs[0], pods)
        with pytest.raises(CniError):
            planned(site, *pairs[1], pods)


# How long it lasts


def test_the_classic() -> None:
    """Every host a /64, ten million addresses a second."""
    plan = planned("2001:db8::/64", rate="10000000/s")
    assert int(plan.years) == 58494
    assert duration(plan.years) == "58,494 years"
    assert not plan.reused
    assert plan.notes() == ()


@pytest.mark.parametrize(("text", "rate"), [
    ("100/s", Fraction(100)), ("20/min", Fraction(1, 3)), ("5000/h", Fraction(25, 18)), ("0.5/d", Fraction(1, 172800)),
])
def test_rates(text: str, rate: Fraction) -> None:
    assert parse_rate("--churn", text) == rate


@pytest.mark.parametrize("text", [
    "", "100", "0/s", "0.0/s", "-1/s", "1/y", "1 /s", "1e3/s", "1/0", "\u0661/s", "1/s\n",
])
def test_no_rates(text: str) -> None:
    with pytest.raises(CniError, match="^--churn: .* is not a rate: write ") as raised:
        parse_rate("--churn", text)
    refused(raised)


@pytest.mark.parametrize(("seconds", "words"), [
    (0, "0.0 seconds"), ("0.25", "0.2 seconds"), (59, "59 seconds"), (60, "1.0 minutes"), (3599, "59 minutes"),
    (3600 * 5, "5.0 hours"), (86400 * 364, "364 days"), (86400 * 365, "1.0 years"), (86400 * 3649, "9.9 years"),
    (86400 * 365 * 1234, "1,234 years"),
])
def test_durations(seconds: int | str, words: str) -> None:
    assert duration(Fraction(seconds) / 86400 / 365) == words


@pytest.mark.parametrize(("site", "reused"), [("2001:db8::/92", False), ("2001:db8::/96", True)])
def test_small_networks_are_told_of(site: str, reused: bool) -> None:
    """As the allocator has it: ``size`` of the very set that the sample gives it."""
    plan = planned(site)
    assert plan.reused is reused
    assert (size(allocated(plan).sets[0]) < LARGE) is reused
    slaac, *again = plan.notes()
    assert "smaller than a /64" in slaac and "a site of a /64 has room" in slaac
    assert bool(again) is reused


# The sample


def accepted(plan: PrefixPlan, node: int = 1, number: int = 1) -> BridgeConf:
    """The sample, as libcni hands it to the plugin, read by the plugin's own parser; every key must be known."""
    document = sample(plan, node, number)
    raw: dict[str, Any] = {
        **document["plugins"][0], "name": document["name"], "cniVersion": document["cniVersion"], "strict": True,
    }
    invocation = call(raw)
    conf = parse_bridge(invocation)
    assert invocation.log.lines == []
    return conf


def allocated(plan: PrefixPlan, node: int = 1, number: int = 1) -> IpamConf:
    ipam = accepted(plan, node, number).ipam
    assert isinstance(ipam, IpamConf)
    return ipam


def test_the_sample_is_a_configuration() -> None:
    plan = planned("2001:db8::/48", 1000, 4)
    conf = accepted(plan, 7, 2)
    assert (conf.bridge, conf.is_default_gateway, conf.firewall.masquerade6) == ("cni1", True, "off")
    [only] = allocated(plan, 7, 2).sets[0].ranges
    assert f"{only.network:x}" == "20010db8000000610000000000000000"
    assert only.prefixlen == 64
    assert only.gateway == "2001:db8:0:61::1"
    assert [sample(plan, 7, number)["name"] for number in (1, 2)] == ["pods", "pods2"]


def test_the_sample_of_unique_local_addresses_is_masqueraded_beyond_the_site() -> None:
    raw = sample(planned("fd42:1:2::/48", 10), 3, 1)["plugins"][0]
    assert raw["masquerade"] == {"ipv6": "auto"}
    assert raw["nonMasquerade"] == ["fd42:1:2::/48"]
    firewall = accepted(planned("fd42:1:2::/48", 10), 3).firewall
    assert (firewall.masquerade6, firewall.keep) == ("auto", ("fd42:1:2::/48",))


@given(sites(), COUNTS, COUNTS, COUNTS)
def test_every_sample_is_accepted(site: str, nodes: int, networks: int, pods: int) -> None:
    plan = plan_or_nothing(site, nodes, networks, pods)
    assert size(allocated(plan, nodes, networks).sets[0]) >= pods


# What is given


@pytest.mark.parametrize(("text", "says"), [
    ("10.0.0.0/8", "is an IPv4 prefix"), ("2001:db8::", "is not a prefix"), ("2001:db8::/129", "at most 128 bits"),
    ("2001:db8::1/48", "write 2001:db8::/48"), ("pods", "is not a prefix"), ("fe80::/64", "link-local"),
    ("ff00::/8", "multicast"), ("::/0", "no site has"), ("::ffff:10.0.0.0/104", "write it as IPv4"),
])
def test_no_sites(text: str, says: str) -> None:
    with pytest.raises(CniError) as raised:
        parse_site(text)
    assert refused(raised).startswith("PREFIX: ")
    assert says in str(raised.value)


def test_counts() -> None:
    assert [parse_count("--nodes", text) for text in ("1", "0250", "4294967296")] == [1, 250, MOST]


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "4294967297", "1_000", "\u0661", "9" * 5000])
def test_no_counts(text: str) -> None:
    with pytest.raises(CniError, match="^--nodes: .* write one from 1 to 4294967296") as raised:
        parse_count("--nodes", text)
    refused(raised)


# Unique local addresses


def test_time_as_ntp_has_it() -> None:
    assert ntp_time(0) == 0x83AA_7E80 << 32
    assert ntp_time(1_760_812_544_500_000_000) == 0xEC9E_5C80_8000_0000
    assert ntp_time((2**32 - 2_208_988_800) * 10**9) == 0  # the next era, from 2036


def test_unique_local_prefix() -> None:
    """The same by hand: ``printf '\\xec\\x9e\\x5c\\x80\\x80\\0\\0\\0\\x02\\0\\x5e\\xff\\xfe\\x10\\0\\x01' | sha1sum``
    prints 36062581b6d2485778be5dbbbccdd74ecb647d3d, of which the last 40 bits count."""
    prefix = ula(0xEC9E_5C80_8000_0000, bytes.fromhex("02005efffe100001"))
    assert str(prefix) == "fd4e:cb64:7d3d::/48"
    assert prefix.is_ula


@given(st.integers(0, 2**64 - 1), st.binary(min_size=8, max_size=16))
def test_unique_local_prefixes_can_be_split(timestamp: int, identifier: bytes) -> None:
    prefix = ula(timestamp, identifier)
    assert IPv6Network(str(prefix)).subnet_of(IPv6Network("fd00::/8"))
    assert prefix.length == 48
    assert parse_site(str(prefix)) == prefix


@pytest.mark.parametrize(("site", "is_ula"), [("fc00::/7", True), ("fdff::/16", True), ("2001:db8::/32", False)])
def test_which_are_unique_local(site: str, is_ula: bool) -> None:
    assert parse_site(site).is_ula is is_ula
