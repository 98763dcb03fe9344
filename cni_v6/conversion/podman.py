"""podman's networks of netavark: a file of ``/etc/containers/networks``, or ``podman network inspect NAME``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cni_v6.config.main import IPAM_PLUGIN
from cni_v6.conversion.addresses import bare, subnet
from cni_v6.conversion.main_plugins import BRIDGE_NAME, CAPABILITIES, CAPABILITIES_ON_A_LINK, ON_A_LINK, OPEN, TYPES
from cni_v6.conversion.report import BRIDGE, ROUTED, Conversion, Report, Wanted, items, mapping, refused, text

DATA_DIR = "/run/cni-v6/networks"  # podman calls no DEL for what ended with a reboot, see docs/runtimes.md
LEASES = (
    "netavark's leases (ipam.db) are not read: the containers of the network must be made again, which podman 4 does "
    "with the CNI backend alone. Addresses that podman run --ip and --ip6 name are asked for again"
)
COMMANDS = (
    "podman ps --all --filter network={name}", "podman rm --force CONTAINER...", "podman network rm {name}",
    "cni-v6ctl install", "cni-v6ctl lint {new}", "install -m 644 {new} {folder}/",
    "podman info --format '{{{{.Host.NetworkBackend}}}}'", "podman run --network {name} ...",
)
LOST: Mapping[str, str] = {
    "dns_enabled": "names of containers are not resolved: aardvark-dns belongs to netavark. CNI has the plugin dnsname",
    "labels": "a CNI network has none",
}
BACKEND = 'network_backend = "cni" below [network] in containers.conf: podman 4 has it, podman 5 does not'


def is_podman(document: object) -> bool:
    return isinstance(document, Mapping) and isinstance(document.get("driver"), str) and (
        "network_interface" in document or "ipam_options" in document or "subnets" in document
    )


def convert(document: Mapping[str, Any], wanted: Wanted) -> Conversion:
    """
    :raises CniError: INVALID_CONFIG for a driver that has no counterpart.
    """
    report = Report()
    name, driver = text(document.get("name"), "name"), str(document["driver"])
    options = {str(key): str(value) for key, value in mapping(document.get("options"), "options").items()}
    if driver in ON_A_LINK:
        plugin = _on_a_link(document, driver, options, wanted, report)
    elif driver == BRIDGE:
        plugin = _bridge(document, name, options, wanted, report)
    else:
        raise refused(f"driver: {driver} has no counterpart", "bridge, macvlan and ipvlan have one")
    for key in ("dns_enabled", "labels"):
        if document.get(key):
            report.lost(key, LOST[key])
    report.look("(podman)", BACKEND)
    network = {"cniVersion": "1.0.0", "name": name, "plugins": [plugin]}
    return Conversion(f"podman's network {name} ({driver})", network, tuple(report.remarks), LEASES, COMMANDS)


def _bridge(
    document: Mapping[str, Any], name: str, options: dict[str, str], wanted: Wanted, report: Report
) -> dict[str, Any]:
    to = wanted.to or BRIDGE
    found: dict[str, Any] = {"type": TYPES[to]}
    internal = document.get("internal") is True
    if to == BRIDGE:
        found["bridge"] = text(document.get("network_interface"), "network_interface") or f"cni-{name}"[:BRIDGE_NAME]
        is_default = not (internal or _is_true(options.pop("no_default_route", "")))
        found["isDefaultGateway" if is_default else "isGateway"] = True
    elif options.get("vlan"):
        raise refused("options.vlan: only a bridge has it", "leave it on a bridge: --to bridge")
    _isolation(found, internal, options, report)
    for key, read in OPTIONS.items():
        if key in options:
            read(options.pop(key), found, report)
    for key in sorted(options):
        report.lost(f"options.{key}", "no such key")
    servers = items(document.get("network_dns_servers"), "network_dns_servers")
    if servers:
        found["dns"] = {"nameservers": servers}
    found["capabilities"] = CAPABILITIES
    ipam = _ipam(document, report)
    if ipam.get("type") != IPAM_PLUGIN and to == ROUTED:
        raise refused("ipam_options.driver: a routed container needs an address", "leave it on a bridge: --to bridge")
    return {**found, "ipam": ipam}


def _isolation(found: dict[str, Any], internal: bool, options: dict[str, str], report: Report) -> None:
    isolate = options.pop("isolate", "false")
    if internal:
        found["ingress"], found["egress"] = "published", []
        report.changed("internal", 'egress []: a container reaches its network only; ingress "published"')
        return
    found["ingress"] = "open" if isolate == "false" else "published"
    found["ipMasq"] = True
    report.changed("(masquerade)", "netavark masquerades what leaves the network: ipMasq, which is both families")
    if isolate == "false":
        report.look("options.isolate", f"ingress: {OPEN}")
    else:
        report.changed("options.isolate", f'{isolate}: ingress "published"; it closes the network to the outside too')


def _mtu(value: str, found: dict[str, Any], _: Report) -> None:
    found["mtu"] = _number(value, "options.mtu")


def _vlan(value: str, found: dict[str, Any], report: Report) -> None:
    found["vlan"] = _number(value, "options.vlan")
    report.look("options.vlan", 'of the port; "preserveDefaultVlan": false takes it out of the bridge\'s default VLAN')


def _mode(value: str, found: dict[str, Any], report: Report) -> None:
    if value == "unmanaged":
        for key in ("isGateway", "isDefaultGateway", "ipMasq"):
            found.pop(key, None)
        report.changed("options.mode", "unmanaged: without isGateway and ipMasq, the bridge is somebody else's")


OPTIONS: Mapping[str, Callable[[str, dict[str, Any], Report], None]] = {"mtu": _mtu, "vlan": _vlan, "mode": _mode}


def _on_a_link(
    document: Mapping[str, Any], driver: str, options: dict[str, str], wanted: Wanted, report: Report
) -> dict[str, Any]:
    if wanted.to:
        raise refused(f"driver: {driver} stays, so there is no --to {wanted.to}", "leave --to out")
    kind = ON_A_LINK[driver]
    report.changed("driver", f"{driver}: {kind}")
    found: dict[str, Any] = {"type": kind}
    parent = options.pop("parent", "") or text(document.get("network_interface"), "network_interface")
    if parent:
        found["master"] = parent
    if "mode" in options:
        found["mode"] = options.pop("mode")
    if "mtu" in options:
        found["mtu"] = _number(options.pop("mtu"), "options.mtu")
    for key in sorted(options):
        report.lost(f"options.{key}", "no such key")
    ipam = _ipam(document, report)
    families = sorted({":" in part["subnet"] for members in ipam.get("ranges", []) for part in members})
    if families and document.get("internal") is not True:
        ipam["routes"] = [{"dst": "::/0" if is_ipv6 else "0.0.0.0/0"} for is_ipv6 in families]
    return {**found, "capabilities": CAPABILITIES_ON_A_LINK[kind], "ipam": ipam}


def _ipam(document: Mapping[str, Any], report: Report) -> dict[str, Any]:
    driver = mapping(document.get("ipam_options"), "ipam_options").get("driver", "host-local")
    if driver == "none":
        return {}
    if driver == "dhcp":
        report.look("ipam_options.driver", "dhcp: the reference plugin dhcp, whose daemon must run")
        return {"type": "dhcp"}
    ranges = []
    for at, written in enumerate(items(document.get("subnets"), "subnets")):
        part = mapping(written, f"subnets[{at}]")
        found: dict[str, Any] = {"subnet": str(subnet(part.get("subnet"), f"subnets[{at}].subnet"))}
        lease = mapping(part.get("lease_range"), f"subnets[{at}].lease_range")
        for key, ours in (("start_ip", "rangeStart"), ("end_ip", "rangeEnd")):
            if lease.get(key):
                found[ours] = lease[key]
        if part.get("gateway"):
            found["gateway"] = bare(str(part["gateway"]))
        ranges.append([found])
    if not ranges:
        raise refused("subnets: there is none", "write the network's, as podman network inspect shows them")
    ipam: dict[str, Any] = {"type": IPAM_PLUGIN, "dataDir": DATA_DIR, "ranges": ranges}
    routes = [_route(mapping(route, f"routes[{at}]"), f"routes[{at}]", report)
              for at, route in enumerate(items(document.get("routes"), "routes"))]
    return {**ipam, "routes": routes} if routes else ipam


def _route(route: Mapping[str, Any], path: str, report: Report) -> dict[str, Any]:
    names = {"destination": "dst", "gateway": "gw", "metric": "priority"}
    for key in sorted(route.keys() - names):
        report.lost(f"{path}.{key}", "no such key")
    return {ours: route[key] for key, ours in names.items() if route.get(key)}


def _number(value: str, path: str) -> int:
    if not value.isdecimal():
        raise refused(f"{path}: {value} is not a number", "write digits")
    return int(value)


def _is_true(value: str) -> bool:
    return value.lower() in ("1", "t", "true", "yes")
