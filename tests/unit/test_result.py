"""Results in every version's shape: each file below cases/result holds one result and its document in one version."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings, strategies as st
from netaddr import IPAddress, IPNetwork

from cni_v6.errors import DECODING_FAILURE, CniError
from cni_v6.protocol.result import Address, Dns, Interface, Result, Route, after, from_json, to_json
from cni_v6.protocol.versions import SUPPORTED_VERSIONS

CASES = sorted((Path(__file__).parent / "cases" / "result").glob("*.json"))


def result_of(fields: dict[str, Any]) -> Result:
    return Result(
        tuple(Interface(**item) for item in ({"mac": ""} | item for item in fields.get("interfaces", ()))),
        tuple(Address(**item) for item in fields.get("ips", ())),
        tuple(Route(**item) for item in fields.get("routes", ())),
        dns_of(**fields.get("dns", {})),
    )


def dns_of(domain: str = "", **lists: list[str]) -> Dns:
    return Dns(domain=domain, **{name: tuple(items) for name, items in lists.items()})


def sayable(result: Result, version: str) -> Result:
    """What a version can say of a result, written down independently of the code under test."""
    if version == "1.1.0":
        return result
    result = replace(
        result,
        interfaces=tuple(Interface(item.name, item.mac, item.sandbox) for item in result.interfaces),
        routes=tuple(Route(item.dst, item.gw) for item in result.routes),
    )
    if version not in ("0.1.0", "0.2.0"):
        return result
    firsts = [[ip for ip in result.ips if ip.family == family][:1] for family in (4, 6)]
    ips = tuple(replace(ip, interface=None) for first in firsts for ip in first)
    routes = tuple(route for ip in ips for route in result.routes if route.family == ip.family)
    return Result(ips=ips, routes=routes, dns=result.dns)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = json.loads(path.read_text())
    result, document = result_of(case["result"]), case["document"]
    version = document["cniVersion"]
    assert to_json(result, version) == document
    assert from_json(document, version) == sayable(result, version)


def wrong(document: dict[str, Any], version: str = "1.1.0") -> str:
    with pytest.raises(CniError) as caught:
        from_json(document, version)
    assert caught.value.code == DECODING_FAILURE
    return str(caught.value)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"cniVersion": "3.0.0"}, "cniVersion is '3.0.0', not one of 0.1.0"),
        ({"cniVersion": 1}, "cniVersion is 1, not a string"),
        ({"interfaces": {}}, "interfaces is an object, not a list"),
        ({"interfaces": [[]]}, "interfaces[0] is a list, not an object"),
        ({"interfaces": [{"mac": "02:00:00:00:00:01"}]}, "interfaces[0].name is missing"),
        ({"interfaces": [{"name": "a"}, {"name": 1}]}, "interfaces[1].name is 1, not a string"),
        ({"interfaces": [{"name": "a", "mac": "02:xx"}]}, "interfaces[0].mac is '02:xx'"),
        ({"interfaces": [{"name": "a", "mac": "00" * 33}]}, "interfaces[0].mac is"),
        ({"interfaces": [{"name": "a", "mtu": -1}]}, "interfaces[0].mtu is -1"),
        ({"interfaces": [{"name": "a", "mtu": True}]}, "interfaces[0].mtu is true"),
        ({"interfaces": [{"name": "a", "mtu": 1500.0}]}, "interfaces[0].mtu is 1500.0"),
        ({"interfaces": [{"name": "a", "sandbox": 7}]}, "interfaces[0].sandbox is 7"),
        ({"ips": [{}]}, "ips[0].address is missing"),
        ({"ips": [{"address": "10.0.0.1"}]}, "ips[0].address is '10.0.0.1', not an address with a prefix length"),
        ({"ips": [{"address": "10.0.0.1/33"}]}, "ips[0].address"),
        ({"ips": [{"address": "10.0.0.1/-1"}]}, "ips[0].address"),
        ({"ips": [{"address": "10.0.0.1/٣"}]}, "ips[0].address"),
        ({"ips": [{"address": "10.0.0.01/24"}]}, "ips[0].address"),
        ({"ips": [{"address": "fe80::1%eth0/64"}]}, "ips[0].address"),
        ({"ips": [{"address": "::1\0/64"}]}, "ips[0].address"),
        ({"ips": [{"address": "::1/64", "gateway": "::g"}]}, "ips[0].gateway is '::g', not an IPv4 or IPv6 address"),
        ({"ips": [{"address": "::1/64", "interface": 0}]}, "ips[0].interface is 0, not the index of one of"),
        ({"interfaces": [{"name": "a"}], "ips": [{"address": "::1/64", "interface": 1}]}, "ips[0].interface is 1"),
        ({"routes": [{"gw": "::1"}]}, "routes[0].dst is missing"),
        ({"routes": [{"dst": "::/0"}, {"dst": "::/129"}]}, "routes[1].dst is '::/129'"),
        ({"routes": [{"dst": "::/0", "scope": 256}]}, "routes[0].scope is 256, not an integer from 0 to 255"),
        ({"routes": [{"dst": "::/0", "table": 2**32}]}, "routes[0].table"),
        ({"routes": [{"dst": "::/0", "priority": "1"}]}, "routes[0].priority is '1'"),
        ({"dns": []}, "dns is a list, not an object"),
        ({"dns": {"search": "example.org"}}, "dns.search is 'example.org', not a list"),
        ({"dns": {"nameservers": ["::1", 1]}}, "dns.nameservers has something else than strings"),
        ({"dns": {"domain": ["a"]}}, "dns.domain is a list"),
        ({"dns": {"domain": 10**100}}, "dns.domain is " + "1" + "0" * 79 + "..., not a string"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_key_out_of_shape_is_named(document: dict[str, Any], words: str) -> None:
    assert words in wrong(document)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"ip4": []}, "ip4 is a list, not an object"),
        ({"ip4": {"gateway": "10.0.0.1"}}, "ip4.ip is missing"),
        ({"ip4": {"ip": "::1/64"}}, "ip4.ip is '::1/64', not an IPv4 address"),
        ({"ip6": {"ip": "::1/64", "routes": [{"dst": "10.0.0.0/8"}]}}, "ip6.routes[0].dst is '10.0.0.0/8'"),
    ],
)
def test_the_key_out_of_shape_is_named_in_0_2_0(document: dict[str, Any], words: str) -> None:
    assert words in wrong(document, "0.2.0")


def test_the_family_must_be_the_addresses() -> None:
    document = {"ips": [{"version": "4", "address": "::1/64"}]}
    assert "ips[0].version is '4', not '6', the family of its address" in wrong(document, "0.4.0")
    assert from_json(document, "1.0.0").ips == (Address("::1/64"),)


def test_a_chain_adds_to_what_came_in() -> None:
    earlier = Result(
        (Interface("lan0", "02:00:00:00:00:01"), Interface("net0", "02:00:00:00:00:02", "/run/netns/a")),
        (Address("192.0.2.2/24", "192.0.2.1", 1), Address("192.0.2.3/24")), (Route("192.0.2.0/24"), Route("::/0")),
        Dns(("192.0.2.53",)),
    )
    own = Result(
        (Interface("lan0", "02:00:00:00:00:01", mtu=1400), Interface("eth0", "02:00:00:00:00:03", "/run/netns/a")),
        (Address("10.1.0.2/16", "10.1.0.1", 1),), (Route("::/0"), Route("0.0.0.0/0")),
    )
    assert after(None, own) is own
    both = after(earlier, own)
    assert both == Result(
        (own.interfaces[0], earlier.interfaces[1], own.interfaces[1]),
        (*earlier.ips, Address("10.1.0.2/16", "10.1.0.1", 2)),
        (Route("192.0.2.0/24"), Route("::/0"), Route("0.0.0.0/0")), earlier.dns,
    )
    assert after(earlier, replace(own, dns=Dns(domain="example"))).dns == Dns(domain="example")


def test_a_result_without_version_is_read_as_the_configurations() -> None:
    old = {"ip6": {"ip": "::1/64"}}
    assert from_json(old, "0.2.0").ips == (Address("::1/64"),)
    assert from_json(old, "1.1.0").ips == ()
    assert from_json({"cniVersion": "0.2.0"} | old, "1.1.0").ips == (Address("::1/64"),)


def test_values_become_canonical() -> None:
    document = {
        "interfaces": [{"name": "a", "mac": "02-AB-00-00-00-0F"}, {"name": "b", "mac": "02ab.0000.000f"}],
        "ips": [{"address": "2001:DB8:0::5/064", "gateway": ""}],
        "routes": [{"dst": "10.1.2.3/8", "mtu": 0}, {"dst": "2001:db8::1/32", "gw": "FE80:0::1", "table": 0}],
        "dns": None,
        "unknown": 1,
    }
    result = from_json(document, "1.1.0")
    assert [interface.mac for interface in result.interfaces] == ["02:ab:00:00:00:0f"] * 2
    assert result.ips == (Address("2001:db8::5/64"),)
    assert result.ips[0].ip == "2001:db8::5"
    assert result.routes == (Route("10.0.0.0/8"), Route("2001:db8::/32", "fe80::1", table=0))
    assert result.dns == Dns()


def test_what_1_1_0_brought_is_read_from_older_documents_too() -> None:
    """libcni's types write it there, and a delegated plugin's route MTU must not get lost."""
    document = {"interfaces": [{"name": "a", "mtu": 1400}], "routes": [{"dst": "::/0", "mtu": 1300}]}
    result = from_json(document, "0.4.0")
    assert (result.interfaces[0].mtu, result.routes[0].mtu) == (1400, 1300)


def ips(family: Literal[4, 6]) -> st.SearchStrategy[str]:
    """Addresses in the spelling of netaddr, which the rest of the program writes."""
    return st.integers(0, 2 ** (32 if family == 4 else 128) - 1).map(lambda value: str(IPAddress(value, family)))


def prefixes(family: Literal[4, 6], *, masked: bool) -> st.SearchStrategy[str]:
    lengths = st.integers(0, 32 if family == 4 else 128)
    networks = st.tuples(ips(family), lengths).map(lambda pair: IPNetwork(f"{pair[0]}/{pair[1]}"))
    return networks.map(lambda network: str(network.cidr if masked else network))


TEXT = st.text(min_size=1)
UINTS = st.integers(1, 2**32 - 1)
MACS = st.just("") | st.binary(min_size=6, max_size=6).map(lambda octets: octets.hex(":"))
ANY_IP = ips(4) | ips(6)
INTERFACES = st.builds(
    Interface, TEXT, MACS, st.text(), st.just(0) | UINTS, socket_path=st.text(), pci_id=st.text()
)
ROUTES = st.builds(
    Route,
    prefixes(4, masked=True) | prefixes(6, masked=True),
    gw=st.none() | ANY_IP,
    mtu=st.none() | UINTS,
    advmss=st.none() | UINTS,
    priority=st.none() | UINTS,
    table=st.none() | st.just(0) | UINTS,
    scope=st.none() | st.integers(0, 255),
)
TEXTS = st.lists(st.text(), max_size=3).map(tuple)


@st.composite
def results(draw: st.DrawFn) -> Result:
    interfaces = draw(st.lists(INTERFACES, max_size=3))
    indices = st.none() | st.integers(0, len(interfaces) - 1) if interfaces else st.none()
    address = prefixes(4, masked=False) | prefixes(6, masked=False)
    addresses = draw(st.lists(st.builds(Address, address, st.none() | ANY_IP, indices), max_size=4))
    routes = draw(st.lists(ROUTES, max_size=4))
    dns = draw(st.builds(Dns, TEXTS, st.text(), TEXTS, TEXTS))
    return Result(tuple(interfaces), tuple(addresses), tuple(routes), dns)


@settings(deadline=None)
@given(result=results(), version=st.sampled_from(SUPPORTED_VERSIONS))
def test_round_trip(result: Result, version: str) -> None:
    document = to_json(result, version)
    assert document["cniVersion"] == version
    assert from_json(json.loads(json.dumps(document)), version) == sayable(result, version)
    has_only_the_keys_of(version, document)


def has_only_the_keys_of(version: str, document: dict[str, Any]) -> None:
    old = version in ("0.1.0", "0.2.0")
    assert set(document) <= {"cniVersion", "dns"} | ({"ip4", "ip6"} if old else {"interfaces", "ips", "routes"})
    numbered = version in ("0.3.0", "0.3.1", "0.4.0")
    assert all(("version" in ip) == numbered for ip in document.get("ips", ()))
    if version != "1.1.0":
        assert all(set(item) <= {"name", "mac", "sandbox"} for item in document.get("interfaces", ()))
        assert all(set(item) <= {"dst", "gw"} for item in document.get("routes", ()))
