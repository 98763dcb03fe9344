"""Configurations: what comes out of good ones, what is said about bad ones, and that nothing else can happen."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from cni_v6.allocation.policy import AFTER, DEFAULT, NEVER, RANDOM, SEQUENTIAL, STABLE, AllocationPolicy
from cni_v6.allocation.ranges import Range, RangeSet
from cni_v6.config.bridge import BridgeConf, parse_bridge
from cni_v6.config.firewall import FirewallConf
from cni_v6.config.formats import FORMS
from cni_v6.config.ipam import IpamConf
from cni_v6.config.json_schema import levels
from cni_v6.config.keys import Key, Text
from cni_v6.config.keys.bridge import BRIDGE as BRIDGE_KEYS, MAIN_OF_IPAM
from cni_v6.config.keys.ipam import DEFAULT_DATA_DIR
from cni_v6.config.main import (
    IPAM_PLUGIN,
    KEPT,
    KEPT_BYTES,
    ForeignIpam,
    RemovalConf,
    once,
    parse_ipam,
    parse_removal,
)
from cni_v6.errors import ADDRESS_UNAVAILABLE, CniError
from cni_v6.firewall.policy import OPEN
from cni_v6.net.addresses import from_text, to_text
from cni_v6.protocol.invocation import Args, Invocation
from cni_v6.protocol.result import Dns, Route
from cni_v6.protocol.versions import SUPPORTED_VERSIONS
from tests.unit.config_tables import BAD, BRIDGE, GOOD, V4, V6, Bad, call, config, ipam, parse, with_ipam, with_ranges


def bridge(raw: dict[str, Any], args: Args = Args()) -> BridgeConf:
    return parse_bridge(call(raw, args=args))


def own_ipam(raw: dict[str, Any], args: Args = Args()) -> IpamConf:
    conf = bridge(raw, args).ipam
    assert isinstance(conf, IpamConf)
    return conf


def only(raw: dict[str, Any]) -> Range:
    """The one range of a configuration."""
    (ranges,) = own_ipam(raw).sets
    (one,) = ranges.ranges
    return one


def bounds(one: Range) -> tuple[str, str, str]:
    return to_text(one.family, one.first), to_text(one.family, one.last), one.gateway


def test_defaults_are_the_references() -> None:
    assert bridge(config()) == BridgeConf(
        network="pods", bridge="cni0", is_gateway=False, is_default_gateway=False, force_address=False, mtu=0,
        allow_overlap=False, bandwidth=None, tuning=None, source_routing=None,
        ndp_proxy="", hairpin=False, promisc=False, vlan=0, vlan_trunk=(), preserve_default_vlan=True, enable_dad=False,
        disable_container_interface=False, port_isolation=False, multicast_snooping=False, netfilter=False, mac="",
        dns=None, ipam=None,
        firewall=FirewallConf(ingress=OPEN),
    )


def test_every_key_of_the_bridge() -> None:
    raw = config(
        bridge="br0", isGateway=True, isDefaultGateway=True, forceAddress=True, overlap="allow", mtu=9000,
        hairpinMode=True, vlan=7,
        ndpProxy="ens1",
        vlanTrunk=[{"minID": 100, "maxID": 200}, {"id": 50}, {"minID": 150, "maxID": 300}, {"id": 51}, {}],
        preserveDefaultVlan=False, enabledad=True, disableContainerInterface=True, portIsolation=True,
        multicastSnooping=True, netfilter=True,
        dns={"nameservers": ["fd42::1"], "domain": "a", "search": ["b"], "options": ["c"]},
    )
    assert bridge(raw) == BridgeConf(
        network="pods", bridge="br0", is_gateway=True, is_default_gateway=True, force_address=True, mtu=9000,
        allow_overlap=True, bandwidth=None, tuning=None, source_routing=None,
        ndp_proxy="ens1", hairpin=True, promisc=False, vlan=7, vlan_trunk=((50, 51), (100, 300)),
        preserve_default_vlan=False, enable_dad=True, disable_container_interface=True, port_isolation=True,
        multicast_snooping=True, netfilter=True, mac="", dns=Dns(("fd42::1",), "a", ("b",), ("c",)), ipam=None,
        firewall=FirewallConf(ingress=OPEN),
    )
    assert bridge(config(promiscMode=True)).promisc


def sent(raw: dict[str, Any], args: Args = Args()) -> Invocation:
    """A call as it comes over stdin."""
    return replace(call(raw, args=args), stdin=json.dumps(raw).encode())


def test_the_same_bytes_are_read_once() -> None:
    raw = with_ranges([V6], bridge="remembered")
    first = parse_bridge(sent(raw))
    assert parse_bridge(sent(raw)) is first
    assert parse_bridge(sent(with_ranges([V4], bridge="remembered"))) != first


def test_what_else_a_configuration_depends_on_tells_calls_apart() -> None:
    raw = with_ranges([V6], bridge="asked")
    plain = parse_bridge(sent(raw))
    address, mac = "fd42:1:2:3::5", "02:00:5e:10:00:01"
    assert parse_bridge(sent(raw, Args(ip=address))) == replace(
        plain, ipam=replace(own_ipam(raw), requested=(address,))
    )
    assert parse_bridge(sent(raw, Args(mac=mac))) == replace(plain, mac=mac)
    assert parse_bridge(sent(raw, Args(kubernetes={"K8S_POD_NAME": "a"}))) is plain


RESERVING = {"shop/db": ["fd42:1:2:3::d0", "10.1.0.100"], "proxy": "10.1.0.101"}


def workload(name: str, namespace: str = "", ip: str = "") -> Args:
    return Args(ip=ip, kubernetes={"K8S_POD_NAME": name, "K8S_POD_NAMESPACE": namespace})


@pytest.mark.parametrize(("args", "expected"), [
    (workload("db", "shop"), ("fd42:1:2:3::d0", "10.1.0.100")),
    (workload("db", "shop", "10.1.0.100"), ("fd42:1:2:3::d0", "10.1.0.100")),
    (workload("proxy"), ("10.1.0.101",)), (workload("proxy", "shop"), ()), (workload("db"), ()), (Args(), ()),
    (workload("proxy", ip="fd42:1:2:3::9"), ("fd42:1:2:3::9", "10.1.0.101")),
])
def test_who_gets_what_is_reserved(args: Args, expected: tuple[str, ...]) -> None:
    """From one reading of the configuration, whoever it was made for."""
    raw = with_ipam(reserve=RESERVING)
    if not args.ip:
        parse_bridge(sent(raw, workload("db", "shop")))
    conf = parse_bridge(sent(raw, args)).ipam
    assert isinstance(conf, IpamConf) and conf.requested == expected
    alone = parse_ipam(call(raw, IPAM_PLUGIN, args=args))
    assert alone.requested == expected
    free = [to_text(each.family, each.ranges[0].last) for each in alone.sets]
    assert free == ["fd42:1:2:3::cf", "10.1.0.99"]


def test_a_container_without_a_name_is_its_id() -> None:
    raw = with_ipam(reserve={"c1": "10.1.0.7"})
    conf = parse_bridge(replace(sent(raw), container_id="c1")).ipam
    assert isinstance(conf, IpamConf) and conf.requested == ("10.1.0.7",)


def test_what_is_reserved_since_is_no_matter_of_check() -> None:
    """It comes with the request of the ADD."""
    raw = with_ipam(reserve=RESERVING)
    conf = parse_bridge(replace(sent(raw, Args(ip="10.1.0.100")), command="CHECK")).ipam
    assert isinstance(conf, IpamConf) and conf.requested == ("10.1.0.100",)


def test_the_identity_is_no_other_containers() -> None:
    raw = with_ipam(allocation="stable")
    places = (("a", "eth0"), ("b", "eth0"), ("a", "x"))
    calls = [replace(sent(raw, workload(name)), ifname=ifname) for name, ifname in places]
    confs = [parse_bridge(each).ipam for each in calls]
    assert [conf.policy.identity for conf in confs if isinstance(conf, IpamConf)] == ["a eth0", "b eth0", "a x"]
    assert own_ipam(with_ipam()).policy == DEFAULT


@pytest.mark.parametrize(("keys", "expected"), [
    ({}, DEFAULT), ({"allocation": "random"}, AllocationPolicy(order=RANDOM)),
    ({"reuse": "never"}, AllocationPolicy(reuse=NEVER)),
    ({"reuse": "after", "reuseAfter": "0s"}, AllocationPolicy(SEQUENTIAL, AFTER, 0.0)),
    ({"reuseAfter": "30s"}, AllocationPolicy(wait=30.0)), ({"reuseAfter": "10m"}, AllocationPolicy(wait=600.0)),
    ({"reuseAfter": "10min"}, AllocationPolicy(wait=600.0)), ({"reuseAfter": "7d"}, AllocationPolicy(wait=604800.0)),
    ({"reuseAfter": "3650d"}, AllocationPolicy(wait=315360000.0)),
    ({"allocation": "stable", "reuseAfter": "2h"}, AllocationPolicy(order=STABLE, wait=7200.0)),
])
def test_how_addresses_are_handed_out(keys: dict[str, Any], expected: AllocationPolicy) -> None:
    assert replace(own_ipam(with_ipam(**keys)).policy, identity="") == expected


def test_where_the_secret_is() -> None:
    assert own_ipam(with_ipam(allocation="stable", secretFile="/etc//cni/x")).secret_file == "/etc/cni/x"


@pytest.mark.parametrize(("required", "optional"), [
    (None, set()), (["ipv6"], {4}), (["ipv4"], {6}), (["ipv4", "ipv6"], set()), (["ipv6", "ipv6"], {4}),
])
def test_what_a_container_may_go_without(required: list[str] | None, optional: set[int]) -> None:
    assert own_ipam(with_ipam(required=required)).optional == optional


def test_a_remark_is_made_every_time() -> None:
    raw = config(strange=1)
    for _ in range(2):
        asked = sent(raw)
        parse_bridge(asked)
        assert "strange" in asked.log.text()


def test_an_error_is_raised_every_time() -> None:
    for _ in range(2):
        with pytest.raises(CniError, match="bridge"):
            parse_bridge(sent(config(bridge="a/b")))


def test_only_so_much_is_remembered() -> None:
    long = config(bridge="long") | {"cni.dev/padding": "x" * KEPT_BYTES}
    assert parse_bridge(sent(long)) is not parse_bridge(sent(long))
    first = parse_bridge(sent(config(bridge="first")))
    for number in range(KEPT):
        parse_bridge(sent(config(bridge=f"br{number}")))
    assert parse_bridge(sent(config(bridge="first"))) is not first


def test_a_default_gateway_is_a_gateway() -> None:
    assert bridge(config(isDefaultGateway=True)).is_gateway


def test_dual_stack() -> None:
    v6, v4 = from_text("fd42:1:2:3::")[1], from_text("10.1.0.0")[1]
    assert own_ipam(with_ranges([V6], [V4])) == IpamConf(
        network="pods", data_dir=DEFAULT_DATA_DIR, routes=(), requested=(), resolv_conf="",
        sets=(
            RangeSet((Range(6, v6, 64, v6 + 1, v6 + 2**64 - 1, "fd42:1:2:3::1"),)),
            RangeSet((Range(4, v4, 16, v4 + 1, v4 + 2**16 - 2, "10.1.0.1"),)),
        ),
    )


@pytest.mark.parametrize(("one", "expected"), [
    (V4, ("10.1.0.1", "10.1.255.254", "10.1.0.1")),
    ({"subnet": "10.1.0.0/30"}, ("10.1.0.1", "10.1.0.2", "10.1.0.1")),
    ({"subnet": "fd42::/126"}, ("fd42::1", "fd42::3", "fd42::1")),
    (V4 | {"rangeStart": "10.1.0.5", "rangeEnd": "10.1.0.9", "gateway": "10.1.0.254"},
     ("10.1.0.5", "10.1.0.9", "10.1.0.254")),
    (V4 | {"rangeStart": "10.1.0.0", "rangeEnd": "10.1.255.255"}, ("10.1.0.1", "10.1.255.254", "10.1.0.1")),
    (V4 | {"rangeStart": "::ffff:10.1.0.5"}, ("10.1.0.5", "10.1.255.254", "10.1.0.1")),
    (V6 | {"rangeStart": "FD42:1:2:3:0::5", "gateway": "FD42:1:2:3::FF"},
     ("fd42:1:2:3::5", "fd42:1:2:3:ffff:ffff:ffff:ffff", "fd42:1:2:3::ff")),
    (V6 | {"gateway": "link-local"}, ("fd42:1:2:3::1", "fd42:1:2:3:ffff:ffff:ffff:ffff", "fe80::1")),
    (V6 | {"gateway": "fe80::0:abcd"}, ("fd42:1:2:3::1", "fd42:1:2:3:ffff:ffff:ffff:ffff", "fe80::abcd")),
    (V6 | {"gateway": "febf::1"}, ("fd42:1:2:3::1", "fd42:1:2:3:ffff:ffff:ffff:ffff", "febf::1")),
    (V6 | {"gateway": "fd42:1:2:3::"}, ("fd42:1:2:3::1", "fd42:1:2:3:ffff:ffff:ffff:ffff", "fd42:1:2:3::")),
])
def test_bounds_of_a_range(one: dict[str, str], expected: tuple[str, str, str]) -> None:
    assert bounds(only(with_ranges([one]))) == expected


def test_ends_that_are_no_hosts_are_cut_and_logged() -> None:
    invocation = call(with_ranges([V4 | {"rangeStart": "10.1.0.0"}]))
    parse_bridge(invocation)
    assert "ipam.ranges[0][0]: network and broadcast address are not handed out" in invocation.log.text()


def test_the_order_of_sets_is_the_references() -> None:
    raw = config(
        ipam={"type": "host-local", "subnet": "10.2.0.0/16", "rangeStart": "10.2.0.9", "ranges": [[V4], [V6]]},
        runtimeConfig={"ipRanges": [[{"subnet": "10.3.0.0/16"}]]},
    )
    firsts = [to_text(one.family, one.ranges[0].first) for one in own_ipam(raw).sets]
    assert firsts == ["10.3.0.1", "10.2.0.9", "10.1.0.1", "fd42:1:2:3::1"]


def test_parts_of_one_subnet_do_not_overlap() -> None:
    low, high = V4 | {"rangeEnd": "10.1.0.99"}, V4 | {"rangeStart": "10.1.0.100"}
    assert len(own_ipam(with_ranges([low, high])).sets[0].ranges) == 2
    assert len(own_ipam(with_ranges([low], [high])).sets) == 2


def test_many_ranges_are_compared_without_comparing_each_with_each() -> None:
    many = [{"subnet": f"10.{high}.{low}.0/24"} for high in range(40) for low in range(256)]
    assert len(own_ipam(with_ranges(many)).sets[0].ranges) == 10240


def test_two_addresses_a_family_since_0_3_0() -> None:
    raw = with_ranges([V4], [{"subnet": "10.2.0.0/16"}])
    assert isinstance(parse(call(raw, version="0.3.0")), BridgeConf)
    assert isinstance(parse(call(with_ranges([V4], [V6]), version="0.1.0")), BridgeConf)


def test_routes() -> None:
    routes = [
        {"dst": "0:0::/0"},
        {"dst": "10.0.0.0/8", "gw": "10.1.0.9", "mtu": 1400, "advmss": 1300, "priority": 5, "table": 0, "scope": 0},
        {"dst": "fd00::/8", "gw": "", "mtu": 0, "table": 100},
    ]
    assert own_ipam(with_ipam(routes=routes)).routes == (
        Route("::/0"), Route("10.0.0.0/8", "10.1.0.9", 1400, 1300, 5, 0, 0), Route("fd00::/8", table=100),
    )


def test_routes_of_a_template_for_both_families() -> None:
    asked = call(config(ipam={**ipam([V6]), "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.9"}, {"dst": "::/0"}]}))
    conf = parse_bridge(asked).ipam
    assert isinstance(conf, IpamConf) and conf.routes == (Route("::/0"),)
    assert asked.log.lines == [
        "cni-v6: warning: ipam.routes[0].dst: 0.0.0.0/0 is left out: it is IPv4, and no range is",
    ]


def test_host_bits_of_a_route_are_cleared() -> None:
    asked = call(with_ipam(routes=[{"dst": "10.9.0.1/16"}, {"dst": "FD42:9::1/64"}]))
    conf = parse_bridge(asked).ipam
    assert isinstance(conf, IpamConf) and conf.routes == (Route("10.9.0.0/16"), Route("fd42:9::/64"))
    assert asked.log.lines == [
        "cni-v6: warning: ipam.routes[0].dst: 10.9.0.1/16 has host bits set: taken as 10.9.0.0/16",
        "cni-v6: warning: ipam.routes[1].dst: fd42:9::1/64 has host bits set: taken as fd42:9::/64",
    ]


def test_paths_are_made_plain() -> None:
    conf = own_ipam(with_ipam(dataDir="//var//lib/./x/", resolvConf="/etc/resolv.conf"))
    assert (conf.data_dir, conf.resolv_conf) == ("/var/lib/x", "/etc/resolv.conf")
    assert own_ipam(with_ipam(dataDir="")).data_dir == DEFAULT_DATA_DIR


@pytest.mark.parametrize(("raw", "expected"), [
    (config(), None), (config(ipam=None), None), (config(ipam={}), None), (config(ipam={"type": None}), None),
    (config(ipam={"type": "dhcp", "ranges": "x", "typo": 1}), ForeignIpam("dhcp")),
])
def test_no_ipam_or_another_ones(raw: dict[str, Any], expected: ForeignIpam | None) -> None:
    assert bridge(raw).ipam == expected


def test_ranges_without_a_type_are_remarked_on() -> None:
    invocation = call(config(ipam={"ranges": [[V6]]}))
    assert parse_bridge(invocation).ipam is None
    assert "warning: ipam has keys but no type: layer 2 only" in invocation.log.text()


def test_requested_addresses_are_gathered_and_each_counted_once() -> None:
    raw = with_ranges(
        [V6], [V4], args={"cni": {"ips": ["10.1.0.5"]}}, runtimeConfig={"ips": ["10.1.0.5/16", "FD42:1:2:3:0::5/64"]},
    )
    assert own_ipam(raw, Args(ip="10.1.0.5")).requested == ("10.1.0.5", "fd42:1:2:3::5")


def test_several_requested_addresses_of_the_environment() -> None:
    assert own_ipam(with_ranges([V6], [V4]), Args(ip="10.1.0.5/16,FD42:1:2:3::5")).requested == (
        "10.1.0.5", "fd42:1:2:3::5",
    )


def test_which_requested_address_counts() -> None:
    raw = with_ranges(
        [V6], [V4], args={"cni": {"ips": ["10.1.0.6"]}}, runtimeConfig={"ips": ["fd42:1:2:3::5"]},
    )
    asked = call(raw, args=Args(ip="10.1.0.7,fd42:1:2:3::7"))
    conf = parse_bridge(asked).ipam
    assert isinstance(conf, IpamConf) and set(conf.requested) == {"10.1.0.6", "fd42:1:2:3::5"}
    assert asked.log.lines == [
        "cni-v6: warning: CNI_ARGS: IP: 10.1.0.7 is ignored: args.cni.ips[0] asks for 10.1.0.6 of the same range set",
        "cni-v6: warning: CNI_ARGS: IP: fd42:1:2:3::7 is ignored: runtimeConfig.ips[0] asks for fd42:1:2:3::5 of the "
        "same range set",
    ]


def test_a_requested_address_in_the_form_of_a_mapped_one() -> None:
    assert own_ipam(with_ranges([V4]), Args(ip="::ffff:10.1.0.7")).requested == ("10.1.0.7",)


def test_which_mac_counts() -> None:
    first, second, third = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"
    args = {"cni": {"mac": second}}
    assert bridge(config(args=args, runtimeConfig={"mac": first}), Args(mac=third)).mac == first
    assert bridge(config(args=args), Args(mac=third)).mac == second
    assert bridge(config(), Args(mac=third)).mac == third


@pytest.mark.parametrize("text", ["0A-1B-2C-3D-4E-5F", "0a1b.2c3d.4e5f", "0a:1b:2C:3d:4e:5F"])
def test_macs_as_go_reads_them(text: str) -> None:
    assert bridge(config(runtimeConfig={"mac": text})).mac == "0a:1b:2c:3d:4e:5f"


@pytest.mark.parametrize(("dns", "runtime", "expected"), [
    ({}, {}, None),
    ({"domain": ""}, {"servers": []}, None),
    ({"domain": "a"}, {}, Dns(domain="a")),
    ({"nameservers": []}, {}, Dns()),
    ({"nameservers": ["fd42::1"]}, {"servers": [], "searches": []}, Dns(("fd42::1",))),
    ({"nameservers": ["fd42::1"]}, {"servers": ["fd42::2"], "searches": ["b"], "options": ["c"]},
     Dns(("fd42::2",), "", ("b",), ("c",))),
    ({"nameservers": ["fd42::1"]}, {"Servers": ["fd42::2"], "Searches": None, "Options": []}, Dns(("fd42::2",))),
])
def test_name_service(dns: dict[str, Any], runtime: dict[str, Any], expected: Dns | None) -> None:
    assert bridge(config(dns=dns, runtimeConfig={"dns": runtime})).dns == expected


def test_containerd_writes_ranges_with_gos_own_names() -> None:
    ranges = [[{"Subnet": "10.9.0.0/16", "RangeStart": "10.9.1.0", "RangeEnd": "", "Gateway": ""}]]
    conf = own_ipam(config(ipam=ipam(), runtimeConfig={"ipRanges": ranges}))
    assert bounds(conf.sets[0].ranges[0]) == ("10.9.1.0", "10.9.255.254", "10.9.0.1")


def test_ipam_alone_leaves_the_main_plugins_keys_alone() -> None:
    raw = {
        "type": "macvlan", "mastr": 1, "mtu": "any", "isGatway": 1, "dns": 7, "strict": True,
        "args": {"cni": {"mac": 7}},
        "ipam": ipam([V6]), "runtimeConfig": {"infinibandGUID": "x", "portMappings": [1], "ips": ["fd42:1:2:3::9"]},
    }
    conf = parse_ipam(call(raw, IPAM_PLUGIN))
    assert (conf.requested, conf.sets) == (("fd42:1:2:3::9",), own_ipam(with_ranges([V6])).sets)


def test_unknown_keys_are_logged_and_passed_on() -> None:
    invocation = call(config(podman=1, ipam=ipam([V6], usePodCidr=1)))
    parse_bridge(invocation)
    assert invocation.log.lines == [
        'cni-v6: unknown key "podman" passed on', 'cni-v6: unknown key "usePodCidr" in ipam passed on',
    ]


@pytest.mark.parametrize(("stdin", "repeated"), [
    (b'{"strict": true, "name": "pods", "mtu": 1, "mtu": 1400}', "mtu"),
    (b'{"strict": true, "name": "pods", "ipam": {}, "vlanTrunk": [{"id": 1}, {"id": 2, "id": 2}]}', "vlanTrunk[1].id"),
])
def test_a_key_that_is_written_twice(stdin: bytes, repeated: str) -> None:
    with pytest.raises(CniError, match=re.escape(f"'{repeated}' is written twice: strict is true")):
        parse_bridge(replace(call(json.loads(stdin)), stdin=stdin))
    lenient = stdin.replace(b"true", b"false")
    assert parse_bridge(replace(call(json.loads(lenient)), stdin=lenient)).network == "pods"


@pytest.mark.parametrize("raw", GOOD.values(), ids=GOOD)
def test_good_ones(raw: dict[str, Any]) -> None:
    assert bridge(raw).network == "pods"


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_bad_ones(bad: Bad) -> None:
    with pytest.raises(CniError) as caught:
        parse(bad.call)
    assert caught.value.code == bad.code
    assert caught.value.details, "what to do"
    for part in bad.says:
        assert part in str(caught.value)
    assert str(caught.value).isprintable()


def test_every_key_of_the_table_has_an_example_that_is_taken() -> None:
    for level in levels(BRIDGE_KEYS):
        for key in level.keys:
            if isinstance(key.kind, Text) and key.example is not None:
                assert FORMS[key.kind.form].parse(str(key.example))


@pytest.mark.parametrize("key", [
    pytest.param(key, id=key.name) for key in BRIDGE_KEYS.keys if key.refusal is None and key.example is not None
])
def test_every_example_of_the_bridge_is_taken(key: Key) -> None:
    base = config() if key.name in ("disableContainerInterface", "ipam") else with_ranges([V6], [V4])
    if key.name == "snat":
        base["ipMasq"] = True  # of which it is the address
    if key.name == "ndpProxy":
        base["isGateway"] = True
    assert bridge(base | {key.name: key.example})


# What DEL and GC read.

ORDINARY = RemovalConf("pods", "cni0", DEFAULT_DATA_DIR, "")


@pytest.mark.parametrize(("raw", "expected", "warns"), [
    (config(), ORDINARY, ""),
    (with_ranges([V6]), ORDINARY, ""),
    (config(bridge="br0", ipam={"type": "dhcp"}), RemovalConf("pods", "br0", DEFAULT_DATA_DIR, "dhcp"), ""),
    (config(ipam={"type": "host-local", "dataDir": "/run/x"}), RemovalConf("pods", "cni0", "/run/x", ""), ""),
    (config(isGatway=7, vlan="x", ipMasq=True, ipam={"ranges": 7, "type": "dhcp"}),
     RemovalConf("pods", "cni0", DEFAULT_DATA_DIR, "dhcp"), ""),
    (config(bridge="", ipam={"dataDir": ""}), ORDINARY, ""),
    (config(bridge="../../etc"), ORDINARY, 'bridge: "../../etc" is not an interface name; "cni0" is used'),
    (config(bridge=7), ORDINARY, 'bridge: 7 is not a string; "cni0" is used'),
    (config(ipam=7), ORDINARY, "ipam: 7 is not an object, taken as absent"),
    (config(ipam={"type": "../sh"}), ORDINARY, 'ipam.type: "../sh" is not the plain name'),
    (
        config(ipam={"type": "host-local", "dataDir": "../x"}), ORDINARY,
        f'ipam.dataDir: "../x" is not an absolute path; "{DEFAULT_DATA_DIR}"',
    ),
    (config(ipam={"type": "host-local", "dataDir": "/var/../x"}), ORDINARY, "leads upwards"),
])
def test_removal_is_lenient(raw: dict[str, Any], expected: RemovalConf, warns: str) -> None:
    invocation = call(raw)
    assert parse_removal(invocation) == expected
    assert warns in invocation.log.text() and bool(warns) == ("warning" in invocation.log.text())


def test_removal_of_ipam_alone_delegates_to_nobody() -> None:
    assert parse_removal(call({"type": "macvlan", "ipam": {"type": "dhcp"}}, IPAM_PLUGIN)).foreign_ipam == ""


# Whatever comes.

TEXTS = st.text(max_size=20) | st.sampled_from(
    ["", "fd42::/64", "10.0.0.0/24", "fd42::5", "10.0.0.9", "link-local", "host-local", "dhcp", "/x", "..",
     "02:00:00:00:00:01"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
NAMES = sorted({key.name for level in levels(BRIDGE_KEYS, MAIN_OF_IPAM) for key in level.keys})
ANY_OBJECT = st.recursive(
    st.dictionaries(st.sampled_from(NAMES) | TEXTS, VALUES, max_size=4),
    lambda inner: st.dictionaries(st.sampled_from(NAMES), inner | VALUES | st.lists(inner, max_size=2), max_size=4),
    max_leaves=6,
)


def spots(raw: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value within a configuration."""
    inner = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    return [path, *(spot for key, value in inner for spot in spots(value, (*path, key)))]


FULL: dict[str, Any] = {key.name: key.example for key in BRIDGE_KEYS.keys if key.refusal is None and key.example}
FULL |= {"promiscMode": False, "disableContainerInterface": False, "ipMasq": False}
FULL["vlanTrunk"] = [{"id": 200, "minID": 300, "maxID": 310}]
FULL["ipam"] = ipam(
    [V6 | {"rangeStart": "fd42:1:2:3::1", "rangeEnd": "fd42:1:2:3::ff", "gateway": "link-local"}], [V4],
    subnet="10.2.0.0/16", rangeStart="10.2.0.5", rangeEnd="10.2.0.9", gateway="10.2.0.1", dataDir="/x", resolvConf="/y",
    exclude=["fd42:1:2:3::80/121", "10.2.0.7"], reserve={"a/b": ["fd42:1:2:3::70", "10.1.0.70"], "c": "10.1.0.71"},
    allocation="stable", secretFile="/z", reuse="after", reuseAfter="30s", required=["ipv4", "ipv6"],
    routes=[{"dst": "::/0", "gw": "fd42:1:2:3::2", "mtu": 1, "advmss": 1, "priority": 1, "table": 1, "scope": 1}],
)
FULL["runtimeConfig"] = {
    "ips": ["fd42:1:2:3::5"], "mac": "02:00:00:00:00:01", "ipRanges": [[{"subnet": "10.9.0.0/16"}]],
    "dns": {"servers": ["::1"], "searches": ["a"], "options": ["b"]}, "infinibandGUID": "",
    "portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp", "hostIP": "::1"}],
}
FULL["args"] = {"cni": {"ips": ["fd42:1:2:3::5"], "egress": [{"to": "::/0", "ports": ["tcp/443"]}]}}
SPOTS = [spot for spot in spots(FULL) if spot]


def replaced(raw: Any, spot: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value in one spot."""
    if not spot:
        return value
    copy = raw.copy()
    copy[spot[0]] = replaced(copy[spot[0]], spot[1:], value)
    return copy


def answer(raw: dict[str, Any], plugin: str, version: str, args: Args) -> None:
    """One of the two things that may come out, and a removal that always does."""
    invocation = call(raw, plugin, version, args)
    try:
        conf = parse(invocation)
    except CniError as error:
        assert error.code in (2, 4, 7, ADDRESS_UNAVAILABLE) and error.details
        assert "\n" not in str(error) and len(str(error)) < 1000
    else:
        assert isinstance(conf, IpamConf if plugin == IPAM_PLUGIN else BridgeConf)
    removal = parse_removal(invocation)
    assert removal.data_dir.startswith("/") and "/.." not in removal.data_dir and "/" not in removal.foreign_ipam
    assert all(line.isprintable() for line in invocation.log.lines)


PLUGINS = st.sampled_from([BRIDGE, IPAM_PLUGIN])
ARGS = st.builds(Args, ip=TEXTS, mac=TEXTS)


def test_the_full_one_is_good() -> None:
    assert isinstance(bridge(FULL).ipam, IpamConf)


@given(raw=ANY_OBJECT, plugin=PLUGINS, version=st.sampled_from(SUPPORTED_VERSIONS), args=ARGS)
def test_anything(raw: dict[str, Any], plugin: str, version: str, args: Args) -> None:
    answer(raw, plugin, version, args)


@given(spot=st.sampled_from(SPOTS), value=VALUES | ANY_OBJECT, plugin=PLUGINS, args=st.just(Args()) | ARGS)
def test_anything_in_any_place_of_a_good_one(spot: tuple[Any, ...], value: Any, plugin: str, args: Args) -> None:
    answer(replaced(FULL, spot, value), plugin, "1.1.0", args)


@given(name=st.text(max_size=12))
def test_any_key(name: str) -> None:
    answer(config(**{name: 7}) if name != "ipam" else config(), BRIDGE, "1.0.0", Args())


def test_what_follows_from_a_configuration_is_derived_once() -> None:
    derived: list[str] = []

    @once
    def network(conf: BridgeConf) -> str:
        derived.append(conf.network)
        return conf.network

    first, *others = [replace(bridge(config()), network=f"n{number}") for number in range(KEPT + 1)]
    assert [network(first), network(first)] == ["n0", "n0"] and derived == ["n0"]
    assert network(replace(first)) == "n0" and derived == ["n0", "n0"]  # another object
    assert [network(other) for other in others] == [other.network for other in others]
    assert network(first) == "n0" and derived.count("n0") == 3  # it was forgotten meanwhile
