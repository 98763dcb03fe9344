"""Configurations, good and bad, for the parser's tests and the schema's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cni_v6.config.bridge import BridgeConf, parse_bridge
from cni_v6.config.child import ChildConf
from cni_v6.config.ipam import IpamConf
from cni_v6.config.ipvlan import parse_ipvlan
from cni_v6.config.macvlan import parse_macvlan
from cni_v6.config.main import IPAM_PLUGIN, parse_ipam
from cni_v6.config.routed import RoutedConf, parse_routed
from cni_v6.config.vlan import parse_vlan
from cni_v6.errors import ADDRESS_UNAVAILABLE, INVALID_CONFIG, INVALID_ENVIRONMENT, UNSUPPORTED_FIELD
from cni_v6.protocol.invocation import IPVLAN, MACVLAN, ROUTED, VLAN, Args, Invocation

BRIDGE = "cni-v6"

V6 = {"subnet": "fd42:1:2:3::/64"}
V4 = {"subnet": "10.1.0.0/16"}


def config(**keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": "pods", "type": BRIDGE, **keys}


def ipam(*sets: list[dict[str, Any]], **keys: Any) -> dict[str, Any]:
    return {"type": IPAM_PLUGIN, "ranges": [*sets], **keys}


def with_ranges(*sets: list[dict[str, Any]], **keys: Any) -> dict[str, Any]:
    return config(ipam=ipam(*sets), **keys)


def with_ipam(**keys: Any) -> dict[str, Any]:
    """One IPv6 and one IPv4 set, and these keys of ``ipam``."""
    return config(ipam={**ipam([V6], [V4]), **keys})


def call(raw: dict[str, Any], plugin: str = BRIDGE, version: str = "1.0.0", args: Args = Args()) -> Invocation:
    return Invocation(plugin=plugin, command="ADD", version=version, network="pods", config=raw, args=args)


CHILD_PARSERS = {MACVLAN: parse_macvlan, IPVLAN: parse_ipvlan, VLAN: parse_vlan}


def parse(one: Invocation) -> BridgeConf | RoutedConf | ChildConf | IpamConf:
    if one.plugin in CHILD_PARSERS:
        return CHILD_PARSERS[one.plugin](one)
    if one.plugin == ROUTED:
        return parse_routed(one)
    return parse_ipam(one) if one.plugin == IPAM_PLUGIN else parse_bridge(one)


@dataclass(frozen=True)
class Bad:
    """A configuration that is refused; ``says``: what the message must have. ``schema``: the schema refuses it too."""

    name: str
    raw: dict[str, Any]
    says: tuple[str, ...]
    code: int = INVALID_CONFIG
    schema: bool = False
    plugin: str = BRIDGE
    version: str = "1.0.0"
    args: Args = field(default_factory=Args)

    @property
    def call(self) -> Invocation:
        return call(self.raw, self.plugin, self.version, self.args)


GOOD: dict[str, dict[str, Any]] = {
    "least": config(),
    "null is absent": config(bridge=None, isGateway=None, mtu=None, vlanTrunk=None, dns=None, ipam=None, args=None,
                             runtimeConfig=None, capabilities=None, strict=None),
    "dual stack": with_ranges([V6], [V4]),
    "blank is absent": with_ranges([V6 | {"rangeStart": "", "rangeEnd": "", "gateway": ""}],
                                   runtimeConfig={"mac": "", "infinibandGUID": ""}, ipMasqBackend=""),
    "false is fine": config(ipMasq=False, macspoofchk=False, guard=False, runtimeConfig={"portMappings": []}),
    "the references' firewall": with_ranges(
        [V6], [V4], ipMasq=True, ipMasqBackend="nftables", macspoofchk=True, runtimeConfig={
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}],
        },
    ),
    "null is absent in the firewall": with_ranges(
        [V6], ipMasq=None, masquerade=None, nonMasquerade=None, snat=None, nptv6=None, ingress=None, guard=None,
        egress=None, runtimeConfig={"portMappings": None}, args={"cni": {"egress": None}},
    ),
    "the whole firewall": with_ranges(
        [V6], [V4], masquerade={"ipv4": "on"}, nonMasquerade=["10.0.0.0/8"], snat={"ipv4": "192.0.2.7"}, guard=True,
        nptv6={"internal": "fd42:1:2:3::/64", "external": "2001:db8:1:2::/64"}, ingress="isolated",
        egress=[{"to": "::/0", "ports": ["tcp/443", "udp/5000-5010", "sctp"]}, {"to": "10.9.0.0/16"}],
        args={"cni": {"egress": [{"to": "2001:db8::/32"}]}},
        runtimeConfig={"portMappings": [
            {"HostPort": 53, "ContainerPort": 53, "Protocol": "UDP", "HostIP": "::1"},
            {"hostPort": 53, "containerPort": 53, "protocol": "tcp", "hostIP": "0.0.0.0", "more": 1},
        ]},
    ),
    "layer 2, empty ipam": config(ipam={}),
    "layer 2, blank type": config(ipam={"type": ""}),
    "foreign ipam": config(ipam={"type": "dhcp", "ranges": 7, "rangess": []}),
    "foreign ipam in strict": config(ipam={"type": "whereabouts", "range": "2001:db8::/64"}, strict=True),
    "host-local by its name": config(ipam={"type": "host-local", "subnet": "10.1.0.0/16"}),
    "trunk": config(vlan=10, vlanTrunk=[{"minID": 100, "maxID": 200}, {"id": 50}, {"minID": 150, "maxID": 300}]),
    "mtu of the uplinks": with_ranges([V6], mtu="auto"),
    "neighbours of the uplink": with_ranges([V6], isDefaultGateway=True, ndpProxy="auto"),
    "neighbours of an interface": with_ranges([V6], isGateway=True, ndpProxy="ens1"),
    "every bridge flag": config(
        isGateway=True, isDefaultGateway=True, forceAddress=True, hairpinMode=True, preserveDefaultVlan=False,
        enabledad=True, disableContainerInterface=True, portIsolation=True, multicastSnooping=True, netfilter=True,
    ),
    "capabilities": config(capabilities={"ips": True, "mac": False, "io.kubernetes.cri.pod-annotations": True}),
    "the specification's keys in strict": config(
        strict=True, prevResult={"ips": []}, cniVersions=["1.0.0"], disableCheck=True, disableGC=False, plugins=[],
        loadOnlyInlinedPlugins=True, args={"anything": 1, "cni": {"labels": []}}, runtimeConfig={"cgroupPath": "/x"},
        **{"cni.dev/valid-attachments": [], "cni.dev/attachments": []},
    ),
    "unknown keys": config(podman_labels={}, delegate={}, ipam={"type": "host-local", **V6, "usePodCidr": 1}),
    "resolver with a zone": config(dns={"nameservers": ["fe80::53%eth0", "192.0.2.1"], "options": ["ndots:5"]}),
    "a prefix for each container": with_ranges([V6], isGateway=True) | {"ipam": ipam([V6], delegate=80)},
    "a prefix for a container": with_ranges(
        [V6], isGateway=True, runtimeConfig={"delegate": 112}, args={"cni": {"delegate": None}},
        capabilities={"delegate": True},
    ),
    "exclusions": with_ipam(exclude=["fd42:1:2:3::/112", "10.1.0.53", "::ffff:10.1.0.54", "10.1.0.53/32", "fd42:9::"]),
    "no exclusions": with_ipam(exclude=None), "an empty list of exclusions": with_ipam(exclude=[]),
    "reservations": with_ipam(
        reserve={"shop/db-0": ["fd42:1:2:3::d0", "10.1.0.100"], "proxy": "::ffff:10.1.0.101"}, exclude=["10.1.0.102"],
    ),
    "no reservations": with_ipam(reserve=None), "an empty table of reservations": with_ipam(reserve={}),
    "random and never again": with_ipam(allocation="random", reuse="never"),
    "stable": with_ipam(allocation="stable", secretFile="/etc/cni/secret", reuse="after", reuseAfter="10min"),
    "all of it blank": with_ipam(allocation="", secretFile="", reuse="", reuseAfter="", required=None),
    "one family required": with_ipam(required=["ipv6", "ipv6"]), "both required": with_ipam(required=["ipv4", "ipv6"]),
    "a gateway that another set excludes": config(ipam=ipam(
        [V4 | {"rangeEnd": "10.1.0.99"}], [V4 | {"rangeStart": "10.1.0.100", "gateway": "10.1.0.9"}],
        exclude=["10.1.0.9"],
    )),
    "routes": with_ipam(routes=[{"dst": "::/0"}, {"dst": "10.0.0.0/8", "gw": "10.1.0.9", "table": 0, "scope": 253}]),
}

_NO_RANGE = "no range to allocate from"
_TYPES = [
    ("isGateway", "true", '"true" is not a boolean'), ("isGateway", 1, "1 is not a boolean"),
    ("hairpinMode", 0, "0 is not a boolean"), ("strict", "yes", '"yes" is not a boolean'),
    ("engine", "on", '"on" is neither auto nor off'), ("engineIdle", 0, "0 is not between 1 and 31536000"),
    ("log", True, "true is not a string"), ("log", "/var/log/syslog", '"/var/log/syslog" does not end with a name and'),
    ("log", "/var/log/.jsonl", '"/var/log/.jsonl" does not end'), ("log", "a.jsonl", '"a.jsonl" is not an absolute'),
    ("mtu", "1500", '"1500" is not an integer'),
    ("mtu", "", '"" is not an integer'), ("ndpProxy", "", '"" is not an interface name'), ("ndpProxy", True, "true is"),
    ("mtu", True, "true is not an integer"),
    ("vlan", 4095, "4095 is not between 0 and 4094"),
    ("vlan", -1, "-1 is not between 0 and 4094"), ("mtu", 65536, "65536 is not between 0 and 65535"),
    ("mtu", 10**40, "a number of more than 64 bits is not between"),
    ("bridge", 7, "7 is not a string"), ("bridge", "", "is not an interface name"),
    ("bridge", "a-bridge-too-far", "is longer than the 15 characters"), ("bridge", "br/0", "is not an interface name"),
    ("bridge", "br 0", "is not an interface name"), ("bridge", "br:0", "is not an interface name"),
    ("bridge", "br%d", "is not an interface name"), ("bridge", "brücke", "is not an interface name"),
    ("vlanTrunk", {}, "an object is not a list"), ("vlanTrunk", [7], "[0]: 7 is not an object"),
    ("vlanTrunk", [{"id": 0}], "[0].id: 0 is not between 1 and 4094"),
    ("dns", [], "a list is not an object"), ("dns", {"nameservers": "::1"}, '.nameservers: "::1" is not a list'),
    ("dns", {"nameservers": ["dns.example"]}, '.nameservers[0]: "dns.example" is not an IP address'),
    ("dns", {"nameservers": [None]}, ".nameservers[0]: null is not a string"),
    ("dns", {"search": ["a b"]}, '.search[0]: "a b" is not a single word'),
    ("dns", {"options": ["ndots:5\nnameserver ::"]}, ".options[0]"),
    ("ipam", "host-local", '"host-local" is not an object'), ("ipam", {"type": 7}, ".type: 7 is not a string"),
    ("ipam", {"type": "../bin/sh"}, '.type: "../bin/sh" is not the plain name of a plugin'),
    ("capabilities", [], "a list is not an object"), ("capabilities", {"ips": 1}, ".ips: 1 is not a boolean"),
    ("args", "x", '"x" is not an object'), ("args", {"cni": []}, ".cni: a list is not an object"),
    ("runtimeConfig", 1, "1 is not an object"), ("runtimeConfig", {"mac": 1}, ".mac: 1 is not a string"),
    ("runtimeConfig", {"ips": "::1"}, '.ips: "::1" is not a list'),
    ("runtimeConfig", {"dns": {"servers": [1]}}, ".dns.servers[0]: 1 is not a string"),
    ("ipMasq", "true", '"true" is not a boolean'), ("guard", 1, "1 is not a boolean"),
    ("ipMasqBackend", "nft", '"nft" is none of nftables, iptables'), ("macspoofchk", 0, "0 is not a boolean"),
    ("masquerade", True, "true is not an object"), ("masquerade", {"ipv4": True}, ".ipv4: true is not a string"),
    ("masquerade", {"ipv6": "yes"}, '.ipv6: "yes" is none of auto, on, off'),
    ("nonMasquerade", ["10.0.0.0"], '[0]: "10.0.0.0" is not a prefix'), ("snat", "192.0.2.7", "is not an object"),
    ("snat", {"ipv4": "eth0"}, '.ipv4: "eth0" is not an IP address'),
    ("nptv6", {"internal": "fd42::"}, '.internal: "fd42::" is not a prefix'),
    ("ingress", "close", '"close" is none of published, open, isolated'), ("egress", {}, "an object is not a list"),
    ("egress", [{}], "[0].to is missing"), ("egress", [{"to": "example.org"}], '[0].to: "example.org" is not a prefix'),
    ("egress", [{"to": "::/0", "ports": [443]}], "[0].ports[0]: 443 is not a string"),
    ("egress", [{"to": "::/0", "ports": ["443"]}], '[0].ports[0]: "443" is no protocol with ports'),
    ("egress", [{"to": "::/0", "ports": ["icmp"]}], '[0].ports[0]: "icmp" is no protocol with ports'),
    ("args", {"cni": {"egress": [{"to": 1}]}}, ".cni.egress[0].to: 1 is not a string"),
    ("runtimeConfig", {"portMappings": [1]}, ".portMappings[0]: 1 is not an object"),
    ("runtimeConfig", {"portMappings": [{"hostPort": 0, "containerPort": 1}]}, ".portMappings[0].hostPort: 0 is not"),
    ("runtimeConfig", {"portMappings": [{"hostPort": 1, "containerPort": 65536}]},
     ".portMappings[0].containerPort: 65536 is not between 1 and 65535"),
    ("runtimeConfig", {"portMappings": [{"hostPort": 1, "containerPort": 1, "protocol": "icmp"}]},
     '.portMappings[0].protocol: "icmp" is none of tcp, udp, sctp'),
]
_IPAM_TYPES: list[tuple[str, Any, str]] = [
    ("ranges", {}, "an object is not a list"), ("ranges", [V6], "[0]: an object is not a list"),
    ("ranges", [[7]], "[0][0]: 7 is not an object"), ("ranges", [[{}]], "[0][0].subnet is missing"),
    ("ranges", [[{"subnet": 7}]], "[0][0].subnet: 7 is not a string"),
    ("ranges", [[{"subnet": ""}]], "[0][0].subnet"),
    ("ranges", [[{"subnet": "10.1.0.0"}]], "is not a prefix"),
    ("ranges", [[{"subnet": "10.1/16"}]], '"10.1/16" is not an IP address'),
    ("ranges", [[V6 | {"gateway": "router"}]], '[0][0].gateway: "router" is not an IP address'),
    ("ranges", [[V6 | {"rangeStart": "fe80::1%eth0"}]], '.rangeStart: "fe80::1%eth0" is not an IP address'),
    ("routes", [None], "[0]: null is not an object"), ("routes", [{}], "[0].dst is missing"),
    ("routes", [{"dst": "default"}], '[0].dst: "default" is not a prefix'),
    ("routes", [{"dst": "::/0", "mtu": -1}], "[0].mtu: -1 is not between"),
    ("routes", [{"dst": "::/0", "scope": 256}], "[0].scope: 256 is not between 0 and 255"),
    ("routes", [{"dst": "::/0", "table": "main"}], '[0].table: "main" is not an integer'),
    ("dataDir", "leases", '"leases" is not an absolute path'), ("dataDir", 7, "7 is not a string"),
    ("resolvConf", "resolv.conf", "is not an absolute path"),
    ("exclude", "10.1.0.5", '"10.1.0.5" is not a list'), ("exclude", [7], "[0]: 7 is not a string"),
    ("exclude", ["10.1.0.5", "router"], '[1]: "router" is not an IP address'),
    ("exclude", [""], '[0]: "" is not an IP address'), ("exclude", ["10.1.0.1-9"], '[0]: "10.1.0.1-9" is not an IP'),
    ("exclude", ["fe80::1%eth0"], '[0]: "fe80::1%eth0" is not an IP address'),
    ("reserve", ["10.1.0.5"], "a list is not an object"), ("reserve", {"a": 7}, '["a"]: 7 is not a string'),
    ("reserve", {"a": None}, '["a"]: null is not a string'), ("reserve", {"a": {}}, '["a"]: an object is not a string'),
    ("reserve", {"a": ["10.1.0.5", "10.1.0.0/16"]}, '["a"][1]: "10.1.0.0/16" is not an IP address'),
    ("reserve", {"a": ""}, '["a"]: "" is not an IP address'), ("reserve", {"a": [""]}, '["a"][0]: "" is not an IP'),
    ("allocation", "lowest", '"lowest" is none of sequential, random, stable'), ("allocation", 1, "1 is not a string"),
    ("reuse", "always", '"always" is none of never, after, auto'), ("reuse", False, "false is not a string"),
    ("reuseAfter", 60, "60 is not a string"), ("reuseAfter", "1 h", '"1 h" is no duration: write a number and s, m, h'),
    ("reuseAfter", "-1h", '"-1h" is no duration'), ("reuseAfter", "1w", '"1w" is no duration'),
    ("secretFile", "secret", '"secret" is not an absolute path'), ("required", "ipv6", '"ipv6" is not a list'),
    ("required", [6], "[0]: 6 is not a string"), ("required", ["IPv6"], '[0]: "IPv6" is none of ipv4, ipv6'),
    ("required", [""], '[0]: "" is none of ipv4, ipv6'),
]
_IPAM_VALUES: list[tuple[str, Any, str]] = [
    ("ranges", [[]], "[0]: a list is an empty range set"),
    ("dataDir", "/var/lib/../../etc", "leads upwards by .."), ("dataDir", "/var\n", "cannot be printed"),
    ("resolvConf", "/etc/../x", "leads upwards by .."),
    ("rangeStart", "10.2.0.1", "has no effect: there is no subnet beside it"),
    ("gateway", "10.2.0.1", "has no effect"), ("rangeEnd", "10.2.0.1", "has no effect"),
    ("routes", [{"dst": "10.0.0.0/8", "gw": "fd42::1"}], '[0].gw: "fd42::1" is not of the family of dst 10.0.0.0/8'),
    ("routes", [{"dst": "::ffff:10.0.0.0/104"}], "IPv4-mapped"),
    ("exclude", ["10.1.0.5/24"], "write 10.1.0.0/24"), ("exclude", ["10.1.0.0/33"], "at most 32 bits"),
    ("exclude", ["::ffff:10.1.0.0/112"], "IPv4-mapped"), ("exclude", ["10.1.0.0/"], '"10.1.0.0/" is not a prefix'),
    ("exclude", ["10.1.0.5"] * 513, " a list has 513 entries, more than 512"),
    ("exclude", ["10.0.0.0/8"],
     " leaves no address of the set of ipam.ranges[1][0]: 10.1.0.0/16 (10.1.0.1 to 10.1.255.254)"),
    ("reserve", {"a b": "10.1.0.5"}, ': "a b" is no workload: write a pod as namespace/name'),
    ("reserve", {"": "10.1.0.5"}, ': "" is no workload'), ("reserve", {"a/b/c": "10.1.0.5"}, "is no workload"),
    ("reserve", {"a/": "10.1.0.5"}, "is no workload"), ("reserve", {"a": []}, '["a"]: a list reserves nothing'),
    ("reserve", {"a": "10.2.0.5"}, '["a"]: "10.2.0.5" is in none of the ranges: fd42:1:2:3::/64'),
    ("reserve", {"a": ["fd42:1:2:3::5", "10.1.0.1"]}, '["a"][1]: "10.1.0.1" is the gateway'),
    ("reserve", {"a": "10.1.0.0"}, "is in none of the ranges"),
    ("reserve", {"a": "10.1.0.5", "b": ["10.1.0.6", "10.1.0.5"]},
     '["b"][1]: "10.1.0.5" is reserved by ipam.reserve["a"] already: reserve it once'),
    ("reserve", {"a": ["10.1.0.5", "::ffff:10.1.0.5"]}, 'is reserved by ipam.reserve["a"][0] already'),
    ("reserve", {"a": ["10.1.0.5", "10.1.0.6"]}, '["a"][1]: "10.1.0.6" is in the same range set as 10.1.0.5'),
    ("reserve", {"a": [f"10.1.{low}.{high}" for low in range(1, 4) for high in range(200)]},
     ": an object and ipam.exclude have 600 addresses and prefixes, more than 512"),
    ("reuseAfter", "3651d", '"3651d" is longer than ten years: write a shorter one'),
    ("secretFile", "/etc/secret", 'has no effect: ipam.allocation is "sequential": set allocation to "stable"'),
    ("required", [], " is empty: a container needs an address of one family"),
    ("exclude", ["::/1", "8000::/1"], " leaves no address of the set of ipam.ranges[0][0]: fd42:1:2:3::/64"),
]
_RANGES: list[tuple[dict[str, str], str]] = [
    ({"subnet": "10.1.0.1/16"}, "write 10.1.0.0/16"), ({"subnet": "fd42::1/64"}, "write fd42::/64"),
    ({"subnet": "10.1.0.0/31"}, "is too small to allocate from: take a /30"),
    ({"subnet": "10.1.0.0/32"}, "is too small"),
    ({"subnet": "fd42::/127"}, "is too small to allocate from: take a /126"),
    ({"subnet": "10.1.0.0/33"}, "an IPv4 prefix has at most 32 bits"),
    ({"subnet": "fd42::/129"}, "an IPv6 prefix has at most 128 bits"),
    ({"subnet": "010.1.0.0/16"}, "is not an IP address"), ({"subnet": "fd42::%eth0/64"}, "is not an IP address"),
    ({"subnet": "10.1.0.0/255.255.0.0"}, "is not a prefix"), ({"subnet": "::ffff:10.1.0.0/112"}, "IPv4-mapped"),
    ({"subnet": "127.1.0.0/16"}, "loopback"), ({"subnet": "0.0.0.0/0"}, "addresses no container can have"),
    ({"subnet": "239.1.0.0/16"}, "multicast"), ({"subnet": "ff02::/64"}, "multicast"),
    ({"subnet": "::/64"}, "loopback"),
    (V4 | {"gateway": "10.2.0.1"}, '.gateway: "10.2.0.1" is not in 10.1.0.0/16: write an address of the subnet'),
    (V6 | {"gateway": "fd42::1"}, 'is not in fd42:1:2:3::/64: write an address of the subnet, or "link-local"'),
    (V4 | {"gateway": "link-local"}, '"fe80::1" is not in 10.1.0.0/16'),
    (V4 | {"gateway": "10.1.0.0"}, "is the network or broadcast address"),
    (V4 | {"gateway": "10.1.255.255"}, "is the network or broadcast address"),
    (V6 | {"gateway": "10.1.0.1"}, "is not in fd42:1:2:3::/64"),
    (V4 | {"rangeStart": "10.2.0.1"}, '.rangeStart: "10.2.0.1" is not in network 10.1.0.0/16'),
    (V4 | {"rangeEnd": "fd42::1"}, '.rangeEnd: "fd42::1" is not in network 10.1.0.0/16'),
    (V4 | {"rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}, '.rangeStart: "10.1.0.9" is after rangeEnd 10.1.0.8'),
    (V4 | {"rangeStart": "10.1.0.0", "rangeEnd": "10.1.0.0"}, "has no address to hand out"),
    (V4 | {"rangeStart": "10.1.0.1", "rangeEnd": "10.1.0.1"}, "has no address besides its gateway"),
]
_UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"ipMasqBackend": "iptables"}, 'ipMasqBackend: "iptables" is not supported: write "nftables", or leave it out'),
    ({"runtimeConfig": {"infinibandGUID": "c2:11:22:33:44:55:66:77"}}, "runtimeConfig.infinibandGUID"),
]
_SLIPS: list[tuple[dict[str, Any], str]] = [
    ({"isGatway": True}, 'unknown key "isGatway", did you mean "isGateway"?'),
    ({"isgateway": True}, 'unknown key "isgateway", did you mean "isGateway"?'),
    ({"MTU": 1500}, 'did you mean "mtu"?'), ({"vlann": 7}, 'did you mean "vlan"?'),
    ({"birdge": "br0"}, 'did you mean "bridge"?'), ({"ipMask": True}, 'did you mean "ipMasq"?'),
    ({"dns": {"nameserver": []}}, 'unknown key "nameserver" in dns, did you mean "nameservers"?'),
    ({"vlanTrunk": [{"minId": 1, "maxId": 2}]}, 'unknown key "minId" in vlanTrunk[0], did you mean "minID"?'),
    ({"ipam": ipam([{"subnet": "fd42::/64", "rangestart": ""}])},
     'unknown key "rangestart" in ipam.ranges[0][0], did you mean "rangeStart"?'),
    ({"ipam": ipam([V6], route=[])}, 'unknown key "route" in ipam, did you mean "routes"?'),
    ({"ipam": ipam([V6], routes=[{"dts": "::/0"}])}, 'in ipam.routes[0], did you mean "dst"?'),
    ({"capabilities": {"ipRange": True}}, 'unknown key "ipRange" in capabilities, did you mean "ipRanges"?'),
    ({"masqerade": {}}, 'did you mean "masquerade"?'), ({"maskerade": {}}, 'did you mean "masquerade"?'),
    ({"hairPinnMod": True}, 'did you mean "hairpinMode"?'), ({"ipam": ipam([V6], rangStrt="")}, '"rangeStart"?'),
    ({"ingres": "open"}, 'did you mean "ingress"?'),
    ({"egress": [{"to": "::/0", "port": ["tcp"]}]}, 'unknown key "port" in egress[0], did you mean "ports"?'),
    ({"args": {"cni": {"egress": [{"to": "::/0", "port": []}]}}}, 'in args.cni.egress[0], did you mean "ports"?'),
    ({"strict": True, "podman": 1}, 'unknown key "podman": strict is true'),
    ({"strict": True, "ipam": ipam([V6], podman=1)}, 'unknown key "podman" in ipam: strict is true'),
]
_REQUESTS: list[tuple[dict[str, Any], str]] = [
    ({"runtimeConfig": {"ips": ["10.9.0.1"]}},
     'runtimeConfig.ips[0]: "10.9.0.1" is in none of the ranges: fd42:1:2:3::/64'),
    ({"args": {"cni": {"ips": ["10.9.0.1/16"]}}}, 'args.cni.ips[0]: "10.9.0.1" is in none of the ranges'),
    ({"args": {"cni": {"ips": ["10.1"]}}}, 'args.cni.ips[0]: "10.1" is not an IP address'),
    ({"runtimeConfig": {"ips": ["10.1.0.5/33"]}}, "at most 32 bits"),
    ({"runtimeConfig": {"ips": ["fd42:1:2:3::1"]}}, '"fd42:1:2:3::1" is the gateway'),
    ({"runtimeConfig": {"ips": ["10.1.0.5", "10.1.0.6"]}}, '[1]: "10.1.0.6" is in the same range set as 10.1.0.5'),
    ({"runtimeConfig": {"mac": "01:00:5e:00:00:01"}}, "is a multicast MAC address"),
    ({"runtimeConfig": {"mac": "00:00:00:00:00:00"}}, "is the empty MAC address"),
    ({"args": {"cni": {"mac": "02:00:5e:10:00"}}}, "args.cni.mac"),
    ({"runtimeConfig": {"mac": "02:00-5e:10:00:01"}}, "is not a MAC address of 6 bytes"),
]

_OUTSIDE = "2001:db8:1:2::/64"
_PORT = {"hostPort": 80, "containerPort": 8080}


def _ports(*ports: dict[str, Any]) -> dict[str, Any]:
    return {"runtimeConfig": {"portMappings": [_PORT | port for port in ports]}}


_LAYER2: list[tuple[dict[str, Any], str]] = [
    ({"ipMasq": True}, "ipMasq has no effect: there is no ipam"), ({"masquerade": {}}, "masquerade has no effect"),
    ({"egress": []}, "egress has no effect"), ({"ingress": "isolated"}, "ingress has no effect"),
    ({"ingress": "published"}, "ingress has no effect"), ({"nptv6": {}}, "nptv6 has no effect"),
    (_ports({}), "runtimeConfig.portMappings has no effect: there is no ipam"),
    ({"args": {"cni": {"egress": []}}}, "args.cni.egress has no effect"),
]
_FIREWALL: list[tuple[dict[str, Any], str]] = [
    ({"ipMasq": True, "masquerade": {}}, "ipMasq: true and masquerade exclude each other"),
    ({"nonMasquerade": ["10.0.0.1/8"]}, "write 10.0.0.0/8"),
    ({"snat": {"ipv4": "192.0.2.7"}}, 'snat.ipv4: "192.0.2.7" has no effect: IPv4 is not masqueraded'),
    ({"snat": {"ipv6": "192.0.2.7"}, "ipMasq": True}, 'snat.ipv6: "192.0.2.7" is not IPv6'),
    ({"snat": {"ipv4": "::ffff:192.0.2.7"}, "ipMasq": True}, "is an IPv4-mapped address: write 192.0.2.7"),
    ({"snat": {"ipv6": "fe80::1"}, "ipMasq": True}, "is no address to be seen as (link-local, fe80::/10)"),
    ({"snat": {"ipv4": "127.0.0.1"}, "ipMasq": True}, "is no address to be seen as (loopback, 127.0.0.0/8)"),
    ({"nptv6": {"internal": "fd42:1:2:3::/64"}}, "nptv6.external is missing"),
    ({"nptv6": {"external": _OUTSIDE}}, "nptv6.internal is missing"),
    *(({"nptv6": {"internal": inside, "external": outside}, **more}, says) for inside, outside, more, says in (
        ("10.1.0.0/16", _OUTSIDE, {}, "is IPv4, and prefixes are translated in IPv6 only"),
        ("::/0", "::/0", {}, "is no prefix to translate"), ("fd42::5/128", _OUTSIDE, {}, "is no prefix to translate"),
        ("fe80::/64", _OUTSIDE, {}, "link-local, fe80::/10"), ("c000::/2", _OUTSIDE, {}, "multicast, ff00::/8"),
        ("fd42:1:2::/48", _OUTSIDE, {}, 'nptv6.external: "2001:db8:1:2::/64" is not as long as internal fd42:1:2::/48'),
        ("fd42:1:2:3::/64", "fd42:1:2:3::/64", {}, "overlaps with internal fd42:1:2:3::/64"),
        ("fd42:1:2:3::/64", _OUTSIDE, {"ipMasq": True}, "nptv6 and ipMasq exclude each other"),
        ("fd42:1:2:3::/64", _OUTSIDE, {"masquerade": {"ipv6": "on"}}, "nptv6 and masquerade.ipv6 exclude each other"),
        ("fd42:1:2:3::/64", _OUTSIDE, {"masquerade": {}, "snat": {"ipv6": "2001:db8::7"}},
         "nptv6 and snat.ipv6 exclude each other"),
        ("fd42:9::/64", _OUTSIDE, {}, "nptv6.internal: \"fd42:9::/64\" holds no range"),
        ("fd42:1:2:3::/80", "2001:db8::/80", {}, "holds only a part of the range fd42:1:2:3::/64"),
        ("fd42:1:2:3:1::/80", "2001:db8::/80", {}, "holds only a part of the range fd42:1:2:3::/64"),
        ("fd42:1:2:3:ffff::/80", "2001:db8::/80", {}, "holds only a part of the range fd42:1:2:3::/64"),
        ("fd43::/64", "fd42:1:2:3::/64", {}, "overlaps with the range fd42:1:2:3::/64"),
    )),
    ({"egress": [{"to": "10.0.0.1/8"}]}, "write 10.0.0.0/8"),
    ({"egress": [{"to": "::/0", "ports": []}]}, "egress[0].ports: a list allows nothing"),
    *(({"egress": [{"to": "::/0", "ports": [ports]}]}, "has no ports from 1 to 65535, the lower one first")
      for ports in ("tcp/0", "udp/65536", "tcp/9-8")),
    ({"egress": [{"to": "::/0", "ports": [f"tcp/{port}" for port in range(1, 1000)]}]},
     "egress comes to more than 512 combinations of prefix and ports"),
    ({"egress": [{"to": "::/0", "ports": ["tcp/1", "tcp/2", "tcp/3", "tcp/4", "udp"]}, {"to": "fd42::5/128"}]},
     "egress comes to more than 512"),
    ({"egress": [{"to": "::/0", "ports": [f"tcp/{port}-{port + 4}" for port in range(1, 2000, 5)]}],
      "args": {"cni": {"egress": [{"to": f"{first}000::/4", "ports": ["tcp"]} for first in "0123456789abcdef"]}}},
     "args.cni.egress comes to more than 512"),
    (_ports({"hostIP": "node"}), 'portMappings[0].hostIP: "node" is not an IP address'),
    (_ports({"hostIP": "::ffff:192.0.2.7"}), "portMappings[0].hostIP: \"::ffff:192.0.2.7\" is an IPv4-mapped address"),
    (_ports({"hostIP": "fe80::1"}), "is link-local, which says nothing without its interface"),
    *((_ports({"hostIP": address}), "is no address a node can have")
      for address in ("224.0.0.1", "255.255.255.255", "0.0.0.1", "ff02::1")),
    (_ports({}, {"hostIP": "192.0.2.7"}, {"protocol": "TCP", "containerPort": 1}),
     "runtimeConfig.portMappings[2]: tcp port 80 is published by runtimeConfig.portMappings[0] already"),
    (_ports({}, {"hostIP": "0.0.0.0", "containerPort": 1}),
     "portMappings[1]: tcp port 80 at 0.0.0.0 is published by runtimeConfig.portMappings[0] already, for another port"),
    (_ports({"hostIP": "192.0.2.7"}, {"hostIP": "192.0.2.7", "containerPort": 1}),
     "tcp port 80 at 192.0.2.7 is published by"),
    ({"runtimeConfig": {"portMappings": [{"containerPort": 80}]}}, "portMappings[0].hostPort is missing"),
    ({"runtimeConfig": {"portMappings": [{"HostPort": 80}]}}, "portMappings[0].containerPort is missing"),
]

BAD: list[Bad] = [
    *(Bad(f"{key}={value!r}"[:60], config(**{key: value}), (key + says if says[:1] in ".[" else f"{key}: {says}",)
          if not says.startswith("is ") else (key, says), schema=True) for key, value, says in _TYPES),
    *(Bad(f"ipam.{key}={value!r}"[:60], with_ipam(**{key: value}), (f"ipam.{key}", says), schema=True)
      for key, value, says in _IPAM_TYPES),
    *(Bad(f"ipam.{key}={value!r}"[:60], with_ipam(**{key: value}), (f"ipam.{key}", says))
      for key, value, says in _IPAM_VALUES),
    *(Bad(f"range {one}", with_ranges([V6 | {"subnet": "fd42:9::/64"}], [one]), ("ipam.ranges[1][0]", says))
      for one, says in _RANGES),
    *(Bad(f"unsupported {says[:30]}", config(**keys), (says,), UNSUPPORTED_FIELD, schema=True)
      for keys, says in _UNSUPPORTED),
    *(Bad(f"layer 2 {says[:50]}", config(**keys), (says, "remove it, or add an ipam")) for keys, says in _LAYER2),
    *(Bad(f"firewall {at} {says[:50]}", with_ranges([V6], [V4], **keys), (says,))
      for at, (keys, says) in enumerate(_FIREWALL)),
    Bad("a port of IPv4 without IPv4", with_ranges([V6], **_ports({}, {"hostIP": "0.0.0.0", "hostPort": 81})),
        ("runtimeConfig.portMappings[1]: tcp port 81 at 0.0.0.0", "the container has no IPv4 address")),
    *(Bad(f"slip {says[:60]}", config(**keys), (says,)) for keys, says in _SLIPS),
    *(Bad(f"request {says[:60]}", with_ranges([V6], [V4], **keys), (says,)) for keys, says in _REQUESTS),
    Bad("1.0 is no integer", config(mtu=1500.0), ("mtu: 1500.0 is not an integer",)),
    Bad("type", config(type="a b"), ('type: "a b" is not the plain name of a plugin',)),
    Bad("bridge all", config(bridge="all"), ("bridge: \"all\" is not an interface name",)),
    Bad("bridge dots", config(bridge=".."), ("is not an interface name",)),
    Bad("control characters", config(name="a\x7f"), ("name", "has control characters")),
    Bad("a long value is cut", config(bridge="x" * 500), ("xxx... is longer",), schema=True),
    Bad("zone without a name", config(dns={"nameservers": ["fe80::1% "]}), ("dns.nameservers[0]", "zone"), schema=True),
    Bad("trunk without maxID", config(vlanTrunk=[{"minID": 5}]), ("vlanTrunk[0].maxID is missing",)),
    Bad("trunk without minID", config(vlanTrunk=[{"maxID": 5}]), ("vlanTrunk[0].minID is missing",)),
    Bad("trunk backwards", config(vlanTrunk=[{"minID": 5, "maxID": 4}]), ("minID: 5 is greater than maxID 4",)),
    Bad("vlan in its trunk", config(vlan=5, vlanTrunk=[{"minID": 4, "maxID": 6}]), ("vlan: 5 is in vlanTrunk too",)),
    Bad("no room for the gateway in the vlan", config(bridge="containers00", vlan=100, isGateway=True),
        ('bridge: "containers00" leaves no room', "containers00.100", "15 characters")),
    Bad("hairpin and promiscuous", config(hairpinMode=True, promiscMode=True), ("hairpinMode", "promiscMode")),
    Bad("interface down with ipam", with_ranges([V6], disableContainerInterface=True), ("disableContainerInterface",)),
    Bad("interface down with dhcp", config(ipam={"type": "dhcp"}, disableContainerInterface=True), ("exclude each",)),
    Bad("neighbours without a gateway", config(ndpProxy="auto"), ('ndpProxy: "auto" needs isGateway',)),
    Bad("mtu below IPv4's", config(mtu=67), ("mtu: 67 is below 68",)),
    Bad("mtu below IPv6's", with_ranges([V6], mtu=1279), ("mtu: 1279 is below 1280",)),
    Bad("no range", with_ranges(), ("ipam.ranges", _NO_RANGE)),
    Bad("no ranges key", config(ipam={"type": "host-local"}), (_NO_RANGE,)),
    Bad("link-local IPv4", with_ranges([V4 | {"gateway": "169.254.0.1"}]), ("is not in 10.1.0.0/16",)),
    Bad("mixed families", with_ranges([V6, V4]), ("mixed address families", "ipam.ranges[0][1] 10.1.0.0/16")),
    Bad("overlap in a set", with_ranges([V4, {"subnet": "10.1.2.0/24"}]),
        ("ipam.ranges[0][1]: subnets 10.1.0.0/16 and 10.1.2.0/24 overlap",)),
    Bad("overlap of sets", with_ranges([V4], [V6], [{"subnet": "10.1.2.0/24"}]),
        ("range set 0 overlaps with 2 (10.1.0.0/16 and 10.1.2.0/24)", "that ipam.ranges[0][0] does not have")),
    Bad("overlap with the older range", config(ipam={"type": "host-local", **V4, "ranges": [[V4]]}),
        ("range set 0 overlaps with 1",)),
    Bad("overlap with the runtime's", with_ranges([V4], runtimeConfig={"ipRanges": [[V4]]}),
        ("ipam.ranges[0][0]: range set 0 overlaps with 1", "runtimeConfig.ipRanges[0][0]")),
    Bad("a gateway another set hands out",
        with_ranges([V4 | {"rangeEnd": "10.1.0.99"}],
                    [V4 | {"rangeStart": "10.1.0.100", "gateway": "10.1.0.9"}]),
        ('ipam.ranges[1][0].gateway: "10.1.0.9" would be handed out by ipam.ranges[0][0]',)),
    Bad("two of a family in 0.2.0", with_ranges([V4], [{"subnet": "10.2.0.0/16"}]),
        ("2 range sets of IPv4", "CNI version 0.2.0", "1 address per family"), version="0.2.0"),
    Bad("CNI_ARGS IP", with_ranges([V6]), ('CNI_ARGS: IP "10.1" is not an IP address',), INVALID_ENVIRONMENT,
        args=Args(ip="10.1")),
    Bad("CNI_ARGS IP of one set twice", with_ranges([V6]),
        ('CNI_ARGS: IP "fd42:1:2:3::6" is in the same range set as fd42:1:2:3::5',), INVALID_ENVIRONMENT,
        args=Args(ip="fd42:1:2:3::5,fd42:1:2:3::6")),
    Bad("CNI_ARGS IP with an end that is none", with_ranges([V6]), ('CNI_ARGS: IP "" is not an IP address',),
        INVALID_ENVIRONMENT, args=Args(ip="fd42:1:2:3::5,")),
    Bad("CNI_ARGS IP elsewhere", with_ranges([V6]), ('CNI_ARGS: IP "10.1.0.5" is in none of the ranges',),
        INVALID_ENVIRONMENT, args=Args(ip="10.1.0.5/16")),
    Bad("a request that is excluded",
        with_ipam(exclude=["fd42::", "10.1.0.0/28"]) | {"runtimeConfig": {"ips": ["10.1.0.5"]}},
        ('runtimeConfig.ips[0]: "10.1.0.5" is excluded by ipam.exclude[1] (10.1.0.0/28)',)),
    Bad("CNI_ARGS IP that is excluded", with_ipam(exclude=["fd42:1:2:3::/112"]),
        ('CNI_ARGS: IP "fd42:1:2:3::5" is excluded by ipam.exclude[0] (fd42:1:2:3::/112)', "ask for another"),
        INVALID_ENVIRONMENT, args=Args(ip="fd42:1:2:3::5")),
    Bad("nothing left but the gateway", config(ipam=ipam([{"subnet": "10.1.0.0/30"}], exclude=["10.1.0.2"])),
        ("ipam.exclude leaves no address of the set of ipam.ranges[0][0]: 10.1.0.0/30", "exclude less of it")),
    Bad("nothing left but what is reserved",
        config(ipam=ipam([{"subnet": "10.1.0.0/29"}], exclude=["10.1.0.4/30"],
                         reserve={"a": "10.1.0.2", "b": "10.1.0.3"})),
        ("ipam.exclude and ipam.reserve leave no address of the set of ipam.ranges[0][0]: 10.1.0.0/29",)),
    Bad("reserved and excluded", with_ipam(exclude=["fd42::", "10.1.0.0/28"], reserve={"a/b": "10.1.0.5"}),
        ('ipam.reserve["a/b"]: "10.1.0.5" is excluded by ipam.exclude[1] (10.1.0.0/28)', "take it out of one")),
    Bad("reserved, but another set's gateway", with_ranges(
        [V4 | {"rangeEnd": "10.1.0.99"}], [V4 | {"rangeStart": "10.1.0.100", "gateway": "10.1.0.9"}],
    ) | {"ipam": ipam(
        [V4 | {"rangeEnd": "10.1.0.99"}], [V4 | {"rangeStart": "10.1.0.100", "gateway": "10.1.0.9"}],
        reserve={"a": "10.1.0.9"},
    )}, ('ipam.reserve["a"]: "10.1.0.9" is the gateway',)),
    Bad("a request of what is another's", with_ipam(reserve={"a/b": "10.1.0.5"}),
        ('10.1.0.5 is reserved: ipam.reserve["a/b"]', 'this workload is "b"'), ADDRESS_UNAVAILABLE,
        args=Args(ip="10.1.0.5", kubernetes={"K8S_POD_NAME": "b"})),
    Bad("a request beside what is reserved", with_ipam(reserve={"a/b": ["fd42:1:2:3::5", "10.1.0.5"]}),
        ('10.1.0.6 is asked for, and 10.1.0.5 of the same range set is reserved: ipam.reserve["a/b"]',),
        ADDRESS_UNAVAILABLE,
        args=Args(ip="10.1.0.6", kubernetes={"K8S_POD_NAMESPACE": "a", "K8S_POD_NAME": "b"})),
    Bad("stable but never again", with_ipam(allocation="stable", reuse="never"),
        ('ipam.reuse: "never" contradicts ipam.allocation: "stable", which gives a workload its address again',
         "remove reuse")),
    Bad("never again, but after a time", with_ipam(reuse="never", reuseAfter="1h"),
        ('ipam.reuseAfter: "1h" has no effect: ipam.reuse is "never"', "remove one of them")),
    Bad("a family without a range", with_ranges([V6]) | {"ipam": ipam([V6], required=["ipv6", "ipv4"])},
        ('ipam.required[1]: "ipv4" is a family that no range is of', "add a range of it")),
    Bad("CNI_ARGS MAC", config(), ('CNI_ARGS: MAC "02" is not a MAC',), INVALID_ENVIRONMENT, args=Args(mac="02")),
    Bad("IPAM alone without ipam", {"type": "macvlan"}, ("ipam is missing",), plugin=IPAM_PLUGIN),
    Bad("IPAM alone without type", {"type": "macvlan", "ipam": {"ranges": [[V6]]}}, ("ipam.type is missing",),
        plugin=IPAM_PLUGIN),
    Bad("IPAM alone with a slip", {"type": "ptp", "ipam": ipam([V6], dataDirr="/x")}, ('did you mean "dataDir"?',),
        plugin=IPAM_PLUGIN),
    Bad("IPAM alone, bad range", {"type": "ptp", "ipam": ipam([{"subnet": 1}])}, ("ipam.ranges[0][0].subnet",),
        plugin=IPAM_PLUGIN, schema=True),
]
