"""``cni-v6ctl convert``: each mapping from other plugins, podman and Docker. What comes out, our own parser accepts."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.conversion.convert import convert
from cni_v6.conversion.report import CHANGED, LOOK, LOST, Conversion, Wanted
from cni_v6.ctl import conf_dir, convert as command, main
from cni_v6.ctl.plan import configurations
from cni_v6.errors import CniError
from cni_v6.kernel import ops
from cni_v6.kernel.facts import Link
from cni_v6.kernel.ops import HOST
from tests.unit.fake_context import FakeContext

Document = dict[str, Any]
RANGES = [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00:1::/64"}]]
HOST_LOCAL = {"type": "host-local", "ranges": RANGES}
OURS = {"type": "cni-v6-ipam", "ranges": RANGES}
BRIDGE = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "ipam": HOST_LOCAL}
PTP = {"type": "ptp", "ipMasq": True, "ipam": {**HOST_LOCAL, "routes": [{"dst": "0.0.0.0/0"}]}}
FLANNEL = {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}}
CALICO = {"type": "calico", "ipam": {"type": "calico-ipam"}}
ENVIRONMENT = """FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.1.1/24
FLANNEL_IPV6_NETWORK=fd00:10:244::/56
FLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
"""
NETAVARK: Document = {
    "name": "web", "id": "a" * 64, "driver": "bridge", "network_interface": "podman1", "created": "2026-01-01T00:00Z",
    "subnets": [{"subnet": "10.89.0.0/24", "gateway": "10.89.0.1"},
                {"subnet": "fd00:89::/64", "gateway": "fd00:89::1"}],
    "ipv6_enabled": True, "internal": False, "dns_enabled": False, "ipam_options": {"driver": "host-local"},
}
DOCKER: Document = {
    "Name": "web", "Id": "b" * 64, "Driver": "bridge", "EnableIPv6": True, "Internal": False,
    "IPAM": {"Driver": "default", "Options": {}, "Config": [
        {"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}, {"Subnet": "fd00:18::/64", "Gateway": "fd00:18::1/64"},
    ]},
    "Containers": {}, "Options": {}, "Labels": {},
}


def listed(*plugins: object, **keys: object) -> Document:
    return {"cniVersion": "1.0.0", "name": "web", "plugins": list(plugins), **keys}


def converted(document: object, tmp_path: Path, **wanted: Any) -> tuple[Document, Conversion]:
    """Our main plugin's configuration, which our parser accepts, and all the rest."""
    found = convert(document, Wanted(**wanted))
    path = tmp_path / "10-web.conflist"
    path.write_text(json.dumps(found.document))
    fake = FakeContext(files={"/etc/cni/tuning/allowlist.conf": FileNotFoundError()})
    fake.kernel.add_link(HOST, Link("up0", "02:00:00:00:01:01", 1500, up=True))  # a master where none is named
    fake.kernel.apply([ops.AddAddress(HOST, "up0", "10.1.0.9/24"), ops.AddRoute(HOST, "up0", "0.0.0.0/0", "10.1.0.1")])
    for config in configurations(path):
        conf_dir.checked(config, fake.context())
    plugins = found.document["plugins"]
    return next(each for each in plugins if "ipam" in each or each["type"].startswith("cni-v6")), found


def said(found: Conversion, kind: str) -> dict[str, str]:
    return {remark.path: remark.words for remark in found.remarks if remark.kind == kind}


# The reference plugins


def test_a_bridge_stays_as_it_is_but_for_its_names(tmp_path: Path) -> None:
    keys = {"isDefaultGateway": True, "forceAddress": True, "hairpinMode": True, "mtu": 1400, "vlan": 5,
            "enabledad": True, "macspoofchk": True, "preserveDefaultVlan": False, "dns": {"nameservers": ["fd00::53"]}}
    ipam = {**HOST_LOCAL, "routes": [{"dst": "::/0"}], "dataDir": "/run/leases", "resolvConf": ""}
    main, found = converted(listed({**BRIDGE, **keys, "ipam": ipam}), tmp_path)
    assert main == {**BRIDGE, **keys, "type": "cni-v6", "ingress": "open", "ipam": {**ipam, "type": "cni-v6-ipam"}}
    assert list(main)[0] == "type" and list(main)[-1] == "ipam"
    assert said(found, CHANGED).keys() == {"plugins[0].type", "plugins[0].ipam.type"} and not said(found, LOST)
    assert "running containers keep their addresses" in found.leases and found.is_in_place
    assert found.source == "a CNI network of bridge"


@pytest.mark.parametrize(("entry", "path", "kind", "words", "key", "value"), [
    ({"ipMasqBackend": "iptables"}, "ipMasqBackend", CHANGED, "the rules are nftables", "ipMasqBackend", None),
    ({"isgateway": True}, "isgateway", CHANGED, "written isGateway", "isGateway", True),
    ({"colour": "red"}, "colour", LOST, "no such key", "colour", None),
    ({"vlan": 5}, "preserveDefaultVlan", LOOK, "absent means true here", "vlan", 5),
    ({"ipMasqBackend": "nftables"}, "guard", LOOK, "is new", "guard", None),
    ({"ingress": "isolated", "guard": True}, "type", CHANGED, "bridge: cni-v6", "ingress", "isolated"),
    ({"mtu": None}, "type", CHANGED, "bridge: cni-v6", "mtu", None),
])
def test_a_key_of_a_bridge(
    tmp_path: Path, entry: Document, path: str, kind: str, words: str, key: str, value: object
) -> None:
    main, found = converted(listed({**BRIDGE, **entry}), tmp_path)
    assert words in said(found, kind)[f"plugins[0].{path}"] and main.get(key) == value


def test_a_bridge_without_addresses(tmp_path: Path) -> None:
    main, found = converted(listed({"type": "bridge", "bridge": "l2", "ipam": {}}), tmp_path)
    assert main == {"type": "cni-v6", "bridge": "l2"} and not said(found, LOOK)
    assert "another plugin's" in found.leases


@pytest.mark.parametrize(("ipam", "expected", "path", "kind"), [
    ({"type": "host-local", "subnet": "10.1.0.0/16", "rangeStart": "10.1.1.0"},
     {"type": "cni-v6-ipam", "subnet": "10.1.0.0/16", "rangeStart": "10.1.1.0"}, "type", CHANGED),
    ({"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/16", "note": 1}]]},
     {"type": "cni-v6-ipam", "ranges": [[{"subnet": "10.1.0.0/16"}]]}, "ranges[0][].note", LOST),
    ({"type": "host-local", "subnet": "10.1.0.0/16", "daemonSocketPath": "/run/x"},
     {"type": "cni-v6-ipam", "subnet": "10.1.0.0/16"}, "daemonSocketPath", LOST),
    ({"provide": []}, {"provide": []}, "", ""),
    ({"type": "dhcp", "provide": []}, {"type": "dhcp", "provide": []}, "type", LOOK),
    ({"type": "cni-v6-ipam", "subnet": "10.1.0.0/16"}, {"type": "cni-v6-ipam", "subnet": "10.1.0.0/16"}, "", ""),
    ({"type": "host-local", "subnet": "usePodCidr"}, {"type": "cni-v6-ipam", "ranges": [[{"subnet": "10.7.0.0/24"}]]},
     "subnet", CHANGED),
    ({"type": "host-local", "ranges": [[{"subnet": "usePodCidr"}]]},
     {"type": "cni-v6-ipam", "ranges": [[{"subnet": "10.7.0.0/24"}]]}, "subnet", CHANGED),
])
def test_addresses(tmp_path: Path, ipam: Document, expected: Document, path: str, kind: str) -> None:
    main, found = converted(listed({**BRIDGE, "ipMasq": False, "ipam": ipam}), tmp_path, subnets=("10.7.0.0/24",))
    assert main["ipam"] == expected
    assert not path or f"plugins[0].ipam.{path}" in said(found, kind)


def test_a_bridge_becomes_routed(tmp_path: Path) -> None:
    entry = {**BRIDGE, "hairpinMode": True, "portIsolation": True, "promiscMode": False, "macspoofchk": True}
    main, found = converted(listed(entry), tmp_path, to="routed")
    assert main == {"type": "cni-v6-routed", "ipMasq": True, "ingress": "isolated", "ipam": OURS}
    lost = ("bridge", "isGateway", "hairpinMode", "macspoofchk")
    assert said(found, LOST).keys() == {f"plugins[0].{key}" for key in lost}
    assert "a family without routes gets a default route" in said(found, LOOK)["plugins[0].ipam.routes"]
    assert "must be started again" in found.leases and "ip link delete {bridge}" in found.commands
    assert found.bridge == "cni0"


@pytest.mark.parametrize("entry", [
    {"vlan": 5}, {"vlanTrunk": [{"id": 5}]}, {"disableContainerInterface": True}, {"ipam": {}},
])
def test_what_only_a_bridge_can(entry: Document) -> None:
    with pytest.raises(CniError, match="--to bridge"):
        convert(listed({**BRIDGE, **entry}), Wanted(to="routed"))


def test_ptp(tmp_path: Path) -> None:
    main, found = converted(listed(PTP), tmp_path)
    routes = [{"dst": "0.0.0.0/0"}]
    assert main == {"type": "cni-v6-routed", "ipMasq": True, "ingress": "open", "ipam": {**OURS, "routes": routes}}
    assert "ip link delete {bridge}" not in found.commands and "plugins[0].ipam.routes" not in said(found, LOOK)
    main, _ = converted(listed(PTP), tmp_path, to="bridge")
    assert (main["type"], main["bridge"], main["isGateway"]) == ("cni-v6", "cni-web", True)


@pytest.mark.parametrize(("chained", "stays", "main_has", "path", "kind", "words"), [
    ({"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}, None,
     {"capabilities": {"portMappings": True}}, "", CHANGED, "our plugin publishes the ports"),
    ({"type": "portmap", "snat": False}, None, {}, ".snat", LOST, "as with snat true"),
    ({"type": "portmap", "conditionsV4": ["-d", "192.0.2.1"]}, None, {}, ".conditionsV4", LOST, "iptables"),
    ({"type": "firewall"}, None, {"ingress": "open"}, "", CHANGED, "rules of its own"),
    ({"type": "firewall", "ingressPolicy": "open"}, None, {"ingress": "open"}, "", CHANGED, "rules of its own"),
    ({"type": "firewall", "ingressPolicy": "same-bridge"}, None, {"ingress": "published"}, ".ingressPolicy", CHANGED,
     "closes the network to the outside"),
    ({"type": "firewall", "ingressPolicy": "isolated"}, None, {"ingress": "isolated"}, ".ingressPolicy", CHANGED,
     "isolated: ingress"),
    ({"type": "firewall", "ingressPolicy": "new"}, None, {"ingress": "open"}, ".ingressPolicy", LOST, "not known"),
    ({"type": "firewall", "firewalldZone": "z"}, None, {}, ".firewalldZone", LOST, "zone of firewalld"),
    ({"type": "tuning"}, None, {}, "", CHANGED, "nothing is left"),
    ({"type": "tuning", "capabilities": {"mac": True}, "dataDir": "/run/t"}, None, {"capabilities": {"mac": True}},
     ".capabilities.mac", CHANGED, "requested with the capability"),
    ({"type": "tuning", "mac": "02:00:00:00:00:01"}, None, {}, ".mac", LOST, "the same MAC for each"),
    ({"type": "tuning", "mtu": 1400}, None, {"mtu": 1400}, ".mtu", CHANGED, "mtu of our plugin"),
    ({"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "promisc": True, "allmulti": False, "txQLen": 9}, None,
     {"sysctl": {"net.core.somaxconn": "500"}, "promisc": True, "txQLen": 9}, ".sysctl", CHANGED, "sysctl of our"),
    ({"type": "tuning", "sysctl": {"kernel.msgmax": "500"}, "capabilities": {"allmulti": True}},
     {"type": "tuning", "sysctl": {"kernel.msgmax": "500"}, "capabilities": {"allmulti": True}}, {}, "", LOOK,
     "tuning stays"),
    ({"type": "bandwidth", "ingressRate": 80000, "ingressBurst": 160000, "capabilities": {"bandwidth": True}}, None,
     {"bandwidth": {"ingressRate": 80000, "ingressBurst": 160000}, "capabilities": {"bandwidth": True}}, "", CHANGED,
     "our plugin limits the rates"),
    ({"type": "bandwidth", "unshapedSubnets": ["10.0.0.0/8"], "shapedSubnets": []}, None, {}, ".unshapedSubnets", LOST,
     "for all that"),
    ({"type": "sbr"}, {"type": "sbr"}, {}, "", LOOK, "sbr stays"),
    ({"type": "vrf", "vrfname": "red"}, {"type": "vrf", "vrfname": "red"}, {}, "", LOOK, "vrf stays"),
    ({"type": "dnsname"}, {"type": "dnsname"}, {}, "", LOOK, "dnsname is not known"),
])
def test_a_chained_plugin(
    tmp_path: Path, chained: Document, stays: Document | None, main_has: Document, path: str, kind: str, words: str
) -> None:
    main, found = converted(listed(BRIDGE, chained), tmp_path)
    assert found.document["plugins"] == [main, *([stays] if stays else [])]
    assert {key: main.get(key) for key in main_has} == main_has
    assert words in said(found, kind)[f"plugins[1]{path}"]


def test_source_routing_behind_a_routed_container(tmp_path: Path) -> None:
    _, found = converted(listed(PTP, {"type": "sbr"}), tmp_path)
    assert "fe80::1" in said(found, LOOK)["plugins[1]"]


def test_a_single_configuration_becomes_a_list(tmp_path: Path) -> None:
    main, found = converted({"name": "web", **BRIDGE}, tmp_path)
    assert found.document == {"cniVersion": "0.1.0", "name": "web", "plugins": [main]} and "name" not in main
    assert "plugin" in said(found, CHANGED)
    document = listed(BRIDGE, cniVersion="2.0.0", cniVersions=["1.0.0"], nerdctlID="x")
    _, found = converted(document, tmp_path)
    assert list(found.document) == ["cniVersion", "name", "cniVersions", "nerdctlID", "plugins"]
    assert found.document["cniVersion"] == "1.0.0" and "cniVersion" in said(found, CHANGED)


def test_the_addresses_alone_of_another_main_plugin(tmp_path: Path) -> None:
    moved = {"type": "host-device", "device": "eth1", "ipam": HOST_LOCAL}
    main, found = converted(listed(moved, {"type": "tuning"}), tmp_path)
    assert main == {**moved, "ipam": OURS} and found.document["plugins"][1] == {"type": "tuning"}
    assert "only the addresses" in said(found, LOOK)["plugins[0].type"] and found.is_in_place
    with pytest.raises(CniError, match="there is no --to bridge"):
        convert(listed(moved), Wanted(to="bridge"))


@pytest.mark.parametrize(("kind", "keys"), [
    ("macvlan", {"mode": "bridge"}), ("ipvlan", {"mode": "l3"}), ("vlan", {"vlanId": 5}),
])
def test_what_has_a_master_becomes_ours(tmp_path: Path, kind: str, keys: Document) -> None:
    entry = {"type": kind, "master": "eth0", **keys, "colour": "red"}
    main, found = converted(listed({**entry, "ipam": HOST_LOCAL}), tmp_path)
    assert main == {"type": f"cni-v6-{kind}", "master": "eth0", **keys, "ipam": OURS}
    assert said(found, CHANGED)["plugins[0].type"] == f"{kind}: cni-v6-{kind}"
    assert "plugins[0].colour" in said(found, LOST)


def test_a_vlan_without_its_id(tmp_path: Path) -> None:
    """To the reference it is 0."""
    main, found = converted(listed({"type": "vlan", "master": "eth0", "ipam": HOST_LOCAL}), tmp_path)
    assert main["vlanId"] == 0 and "plugins[0].vlanId" in said(found, CHANGED)


# flannel and Calico


def test_flannel_on_its_node(tmp_path: Path) -> None:
    document = listed(FLANNEL, {"type": "portmap", "capabilities": {"portMappings": True}})
    main, found = converted(document, tmp_path, environment=ENVIRONMENT)
    assert main == {
        "type": "cni-v6", "hairpinMode": True, "isDefaultGateway": True, "isGateway": True, "ipMasq": False,
        "mtu": 1450, "capabilities": {"portMappings": True}, "ingress": "open",
        "ipam": {"type": "cni-v6-ipam", "ranges": [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:10:244:1::/64"}]],
                 "routes": [{"dst": "10.244.0.0/16"}, {"dst": "fd00:10:244::/56"}]},
    }
    assert "flanneld must go on" in found.leases


def test_flannel_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(CniError, match="/run/flannel/subnet.env, which is not here"):
        convert(listed(FLANNEL), Wanted())
    entry = {"type": "flannel", "delegate": {"type": "ptp"}}
    main, _ = converted(listed(entry), tmp_path, subnets=("10.244.1.0/24",))
    assert main["type"] == "cni-v6-routed" and main["ipMasq"] is False and "mtu" not in main
    with pytest.raises(CniError, match="ipvlan has no counterpart"):
        convert(listed({"type": "flannel", "delegate": {"type": "ipvlan"}}), Wanted())
    with pytest.raises(CniError, match="FLANNEL_SUBNET: x is not a prefix"):
        convert(listed(FLANNEL), Wanted(environment="FLANNEL_SUBNET=x"))


def test_calico(tmp_path: Path) -> None:
    entry = {**CALICO, "mtu": 1440, "log_level": "info", "policy": {"type": "k8s"}, "nodename": "",
             "capabilities": {"portMappings": True}, "ipam": {"type": "calico-ipam", "assign_ipv6": "true"}}
    main, found = converted(listed(entry), tmp_path, subnets=("fd00:7::/64", "10.7.0.0/24"))
    assert main == {
        "type": "cni-v6-routed", "masquerade": {"ipv4": "auto", "ipv6": "auto"}, "ipv4Gateway": "169.254.1.1",
        "mtu": 1440, "capabilities": {"portMappings": True}, "ingress": "open",
        "ipam": {"type": "cni-v6-ipam", "ranges": [[{"subnet": "fd00:7::/64"}], [{"subnet": "10.7.0.0/24"}]]},
    }
    lost = said(found, LOST)
    assert "policy controller" in lost["plugins[0].policy"] and "datastore" in lost["plugins[0].log_level"]
    assert "plugins[0].ipam.assign_ipv6" in lost and "started again" in found.leases
    for wanted, words in ((Wanted(), "--subnet PREFIX"), (Wanted(to="bridge"), "leave --to out")):
        with pytest.raises(CniError, match=words):
            convert(listed({"type": "calico"}), wanted)
    with pytest.raises(CniError, match="usePodCidr"):
        convert(listed({"type": "calico", "ipam": {"type": "host-local", "subnet": "usePodCidr"}}), Wanted())


# podman


def test_a_network_of_podman(tmp_path: Path) -> None:
    main, found = converted([NETAVARK], tmp_path)
    assert main == {
        "type": "cni-v6", "bridge": "podman1", "isDefaultGateway": True, "ingress": "open", "ipMasq": True,
        "capabilities": {"ips": True, "mac": True, "portMappings": True},
        "ipam": {"type": "cni-v6-ipam", "dataDir": "/run/cni-v6/networks",
                 "ranges": [[{"subnet": "10.89.0.0/24", "gateway": "10.89.0.1"}],
                            [{"subnet": "fd00:89::/64", "gateway": "fd00:89::1"}]]},
    }
    assert "podman 5 does not" in said(found, LOOK)["(podman)"] and not found.is_in_place


@pytest.mark.parametrize(("change", "has", "path", "kind"), [
    ({"internal": True}, {"isGateway": True, "egress": [], "ingress": "published", "ipMasq": None}, "internal",
     CHANGED),
    ({"options": {"isolate": "true"}}, {"ingress": "published"}, "options.isolate", CHANGED),
    ({"options": {"no_default_route": "1"}}, {"isGateway": True, "isDefaultGateway": None}, "(masquerade)", CHANGED),
    ({"options": {"mtu": "9000", "vlan": "5", "metric": "10"}}, {"mtu": 9000, "vlan": 5}, "options.metric", LOST),
    ({"options": {"mode": "unmanaged"}}, {"isDefaultGateway": None, "ipMasq": None}, "options.mode", CHANGED),
    ({"options": {"mode": "managed"}}, {"isDefaultGateway": True}, "(podman)", LOOK),
    ({"dns_enabled": True, "labels": {"a": "b"}}, {}, "dns_enabled", LOST),
    ({"network_dns_servers": ["fd00::53"]}, {"dns": {"nameservers": ["fd00::53"]}}, "(podman)", LOOK),
    ({"network_interface": None}, {"bridge": "cni-web"}, "(podman)", LOOK),
    ({"ipam_options": {"driver": "none"}, "options": {"mode": "unmanaged"}}, {"ipam": {}}, "(podman)", LOOK),
    ({"ipam_options": {"driver": "dhcp"}}, {"ipam": {"type": "dhcp"}}, "ipam_options.driver", LOOK),
])
def test_a_key_of_podman(tmp_path: Path, change: Document, has: Document, path: str, kind: str) -> None:
    main, found = converted({**NETAVARK, **change}, tmp_path)
    assert {key: main.get(key) for key in has} == has and path in said(found, kind)


def test_ranges_and_routes_of_podman(tmp_path: Path) -> None:
    lease = {"start_ip": "10.89.0.10", "end_ip": "10.89.0.20"}
    change = {"subnets": [{"subnet": "10.89.0.0/24", "lease_range": lease}],
              "routes": [{"destination": "10.9.0.0/16", "gateway": "10.89.0.9", "metric": 5, "kind": "x"}]}
    main, found = converted({**NETAVARK, **change}, tmp_path, to="routed")
    part = {"subnet": "10.89.0.0/24", "rangeStart": "10.89.0.10", "rangeEnd": "10.89.0.20"}
    assert main["ipam"]["ranges"] == [[part]]
    assert main["ipam"]["routes"] == [{"dst": "10.9.0.0/16", "gw": "10.89.0.9", "priority": 5}]
    assert "routes[0].kind" in said(found, LOST) and main["type"] == "cni-v6-routed" and "bridge" not in main


def test_a_macvlan_of_podman(tmp_path: Path) -> None:
    options = {"parent": "eth0", "mode": "bridge", "mtu": "1400", "bclim": "1"}
    main, found = converted({**NETAVARK, "driver": "macvlan", "options": options}, tmp_path)
    assert {key: main[key] for key in ("type", "master", "mode", "mtu")} == {
        "type": "cni-v6-macvlan", "master": "eth0", "mode": "bridge", "mtu": 1400,
    }
    assert main["ipam"]["routes"] == [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}] and "options.bclim" in said(found, LOST)
    bare = {**NETAVARK, "driver": "ipvlan", "network_interface": None, "internal": True}
    main, _ = converted(bare, tmp_path)
    assert main["type"] == "cni-v6-ipvlan" and "mac" not in main["capabilities"]
    assert "master" not in main and "routes" not in main["ipam"]


@pytest.mark.parametrize(("change", "wanted", "words"), [
    ({"driver": "plugin"}, Wanted(), "plugin has no counterpart"),
    ({"driver": "macvlan"}, Wanted(to="routed"), "no --to routed"),
    ({"options": {"vlan": "5"}}, Wanted(to="routed"), "options.vlan"),
    ({"options": {"mtu": "many"}}, Wanted(), "options.mtu: many is not a number"),
    ({"subnets": []}, Wanted(), "subnets: there is none"),
    ({"subnets": [{"subnet": 5}]}, Wanted(), r"subnets\[0\].subnet: 5 is not a string"),
    ({"subnets": {}}, Wanted(), "subnets: an object is not a list"),
    ({"options": []}, Wanted(), "options: a list is not an object"),
    ({"ipam_options": {"driver": "dhcp"}}, Wanted(to="routed"), "needs an address"),
])
def test_what_podman_has_and_we_do_not(change: Document, wanted: Wanted, words: str) -> None:
    with pytest.raises(CniError, match=words):
        convert({**NETAVARK, **change}, wanted)


# Docker


def test_a_network_of_docker(tmp_path: Path) -> None:
    main, found = converted([DOCKER], tmp_path)
    assert main == {
        "type": "cni-v6", "bridge": "cni-web", "isDefaultGateway": True, "ingress": "published",
        "masquerade": {"ipv4": "on", "ipv6": "on"}, "capabilities": {"ips": True, "mac": True, "portMappings": True},
        "ipam": {"type": "cni-v6-ipam", "ranges": [[{"subnet": "172.18.0.0/16", "gateway": "172.18.0.1"}],
                                                   [{"subnet": "fd00:18::/64", "gateway": "fd00:18::1"}]]},
    }
    assert "127.0.0.11" in said(found, LOST)["(DNS)"] and "docker network rm {name}" in found.commands


@pytest.mark.parametrize(("options", "has", "path", "kind"), [
    ({"bridge.enable_icc": "false"}, {"ingress": "isolated"}, "Options.bridge.enable_icc", CHANGED),
    ({"bridge.enable_ip_masquerade": "false"}, {"masquerade": None}, "(DNS)", LOST),
    ({"bridge.gateway_mode_ipv6": "routed"}, {"masquerade": {"ipv4": "on", "ipv6": "off"}},
     "Options.bridge.gateway_mode_ipv6", LOOK),
    ({"driver.mtu": "1400"}, {"mtu": 1400}, "(DNS)", LOST),
    ({"driver.mtu": "0", "enable_ipv6": "true"}, {"mtu": None}, "(DNS)", LOST),
    ({"bridge.host_binding_ipv4": "192.0.2.1"}, {}, "Options.bridge.host_binding_ipv4", LOST),
    ({"bridge.name": "docker0"}, {"bridge": "cni-web"}, "Options.bridge.name", CHANGED),
    ({"something": "new"}, {}, "Options.something", LOST),
])
def test_an_option_of_docker(tmp_path: Path, options: Document, has: Document, path: str, kind: str) -> None:
    given = {f"com.docker.network.{key}": value for key, value in options.items()}
    main, found = converted({**DOCKER, "Options": given}, tmp_path)
    assert {key: main.get(key) for key in has} == has and path in said(found, kind)
    assert "Options.enable_ipv6" not in said(found, LOST)


def test_containers_of_docker_keep_their_addresses(tmp_path: Path) -> None:
    containers = {
        "c" * 64: {"Name": "db", "IPv4Address": "172.18.1.2/16", "IPv6Address": "fd00:18::2/64"},
        "d" * 64: {"Name": "cache", "IPv4Address": "172.18.1.3/16", "IPv6Address": ""},
        "e" * 64: {"Name": "fixed", "IPv4Address": "172.18.9.9/16"}, "f" * 64: {},
    }
    config = [{"Subnet": "172.18.0.0/16", "IPRange": "172.18.1.0/24", "AuxiliaryAddresses": {"router": "172.18.1.9"}},
              {"Subnet": "fd00:18::/64"}]
    change = {"Containers": containers, "IPAM": {"Driver": "custom", "Config": config}, "Labels": {"a": "b"}}
    main, found = converted({**DOCKER, **change, "Internal": True}, tmp_path, to="routed")
    assert main["type"] == "cni-v6-routed" and "bridge" not in main
    assert main["ipam"]["reserve"] == {"db": ["172.18.1.2", "fd00:18::2"], "cache": ["172.18.1.3"]}
    assert main["ipam"]["exclude"] == ["172.18.1.9"] and main["egress"] == []
    assert {"IPAM.Driver", "Labels", "Containers.fixed"} <= said(found, LOST).keys()


def test_a_macvlan_of_docker(tmp_path: Path) -> None:
    options = {"parent": "eth0.5", "macvlan_mode": "bridge"}
    main, _ = converted({**DOCKER, "Driver": "macvlan", "Options": options}, tmp_path)
    assert (main["type"], main["master"], main["mode"]) == ("cni-v6-macvlan", "eth0.5", "bridge")
    main, _ = converted({**DOCKER, "Driver": "ipvlan"}, tmp_path)
    assert main["type"] == "cni-v6-ipvlan" and "master" not in main and "mode" not in main
    with pytest.raises(CniError, match="no --to bridge"):
        convert({**DOCKER, "Driver": "macvlan"}, Wanted(to="bridge"))


@pytest.mark.parametrize(("change", "words"), [
    ({"Driver": "overlay"}, "overlay has no counterpart"), ({"IPAM": {"Config": None}}, "has no subnet"),
])
def test_what_docker_has_and_we_do_not(change: Document, words: str) -> None:
    with pytest.raises(CniError, match=words):
        convert({**DOCKER, **change}, Wanted())


# What is nobody's


@pytest.mark.parametrize("document", [
    5, None, [], {}, {"kind": "NetworkPolicy"}, [5], {"Driver": "bridge"}, {"driver": "x"},
])
def test_what_is_not_recognized(document: object) -> None:
    with pytest.raises(CniError, match="a program that is known: it can be a CNI configuration") as caught:
        convert(document, Wanted())
    assert caught.value.code == errors.INVALID_CONFIG


@pytest.mark.parametrize(("document", "words"), [
    (listed({"type": "cni-v6"}), "cni-v6 is in it already"),
    (listed({"type": "cni-v6-routed"}), "cni-v6-routed is in it already"),
    (listed({"type": "cni-v6-macvlan"}), "cni-v6-macvlan is in it already"),
    (listed({"type": "cilium-cni"}), "no plugin of the list is one of bridge, ptp, flannel, calico"),
    ({"plugins": [BRIDGE]}, "name is missing"),
    (listed(5), r"plugins\[0\]: 5 is not an object"),
    (listed({"type": 5}), r"plugins\[0\].type: 5 is not a string"),
])
def test_a_list_that_cannot_be_converted(document: Mapping[str, object], words: str) -> None:
    with pytest.raises(CniError, match=words):
        convert(document, Wanted())


def test_one_of_several_networks(tmp_path: Path) -> None:
    both = [NETAVARK, {**NETAVARK, "name": "db"}]
    assert converted(both, tmp_path, network="db")[1].document["name"] == "db"
    for wanted, words in ((Wanted(), "several networks: db, web"), (Wanted(network="x"), "the file has db, web")):
        with pytest.raises(CniError, match=words):
            convert(both, wanted)


# The command


def called(*arguments: str, environment: Path = Path("/nonexistent")) -> int:
    parser = argparse.ArgumentParser()
    command.register(parser.add_subparsers())
    return command.run(parser.parse_args(["convert", *arguments]), FakeContext().context, environment)


def test_the_result_on_stdout_and_the_report_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "87-it's.conf"
    path.write_text(json.dumps({"cniVersion": "1.0.0", "name": "web", **BRIDGE}))
    assert called(str(path)) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["plugins"][0]["type"] == "cni-v6"
    assert "from: a CNI network of bridge" in printed.err and "as 87-it's.conflist:" in printed.err
    assert "install -m 644 '87-it'\"'\"'s.conflist' " in printed.err
    assert max(map(len, printed.err.partition("the move,")[0].splitlines())) <= 80
    assert called("--json", str(path)) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["network"] == json.loads(printed.out) and len(found["notes"]) == 1  # there is no default route
    assert {each["kind"] for each in found["report"]} == {"changed", "look at"}
    assert all(each["key"] and each["message"] for each in found["report"])


def test_flannels_file_and_a_prefix_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, environment = tmp_path / "10-flannel.conflist", tmp_path / "subnet.env"
    path.write_text(json.dumps(listed(FLANNEL)))
    environment.write_text(ENVIRONMENT)
    assert called(str(path), environment=environment) == 0
    assert "10.244.1.0/24" in capsys.readouterr().out
    path.write_text(json.dumps(listed(CALICO)))
    assert called("--subnet", "FD00:7::/64", "--subnet", "10.7.0.0/24", str(path)) == 0
    assert "fd00:7::/64" in capsys.readouterr().out


def test_a_name_that_is_no_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "network.json"
    path.write_text(json.dumps({**DOCKER, "Name": "$(reboot)"}))
    with pytest.raises(CniError, match="the result would be refused"):
        called(str(path))
    assert capsys.readouterr().out == ""


def test_a_document_does_not_move_the_terminals_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ipam = {"type": "host-local", "ranges": [[{"subnet": "fd00:7::/64"}]]}
    file = tmp_path / "10-x.conflist"
    for name, status, says in (("x", 0, "k?[2Jey"), ("x\x1b[2J", 1, "cni-v6ctl: error")):
        plugin = {"type": "bridge", "bridge": "b0", "k\x1b[2Jey": 1, "isGateway": True, "ipam": ipam}
        file.write_text(json.dumps({"cniVersion": "1.0.0", "name": name, "plugins": [plugin]}))
        assert main(["convert", str(file)]) == status
        said = capsys.readouterr().err
        assert says in said and "\x1b" not in said


def test_a_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(tmp_path / "none")]) == 1
    (tmp_path / "text").write_text("{")
    assert main(["convert", str(tmp_path / "text")]) == 1
    words = capsys.readouterr().err
    assert "cannot read" in words and "is not JSON" in words


def test_what_podman_prints_comes_through_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    class Stdin:
        buffer = io.BytesIO(json.dumps([NETAVARK]).encode())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", Stdin())
        assert called("-") == 0
    printed = capsys.readouterr()
    assert "podman network rm web" in printed.err and json.loads(printed.out)["name"] == "web"
    assert "podman info --format '{{.Host.NetworkBackend}}'" in printed.err
