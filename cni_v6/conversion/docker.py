"""Docker's networks: what ``docker network inspect NAME`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netaddr import IPAddress, IPNetwork, IPRange

from cni_v6.config.main import IPAM_PLUGIN
from cni_v6.conversion.addresses import bare, subnet
from cni_v6.conversion.main_plugins import BRIDGE_NAME, CAPABILITIES, CAPABILITIES_ON_A_LINK, ON_A_LINK, TYPES
from cni_v6.conversion.report import BRIDGE, Conversion, Report, Wanted, items, mapping, refused, text

OPTION = "com.docker.network."
LEASES = (
    "Docker's leases are its own. The containers that the network has now keep their addresses if another runtime "
    "starts them under the same names: ipam.reserve holds these addresses for them"
)
COMMANDS = (
    "docker stop $(docker ps --quiet --filter network={name})", "docker network rm {name}", "cni-v6ctl install",
    "cni-v6ctl lint {new}", "install -m 644 {new} {folder}/", "nerdctl run --net {name} --name NAME ...",
)
# Options that mean nothing without Docker, and why.
LOST: Mapping[str, str] = {
    "bridge.default_bridge": "no network is the default by itself: containerd takes the first file by name",
    "bridge.host_binding_ipv4": "the runtime names the address of each published port",
    "bridge.host_binding_ipv6": "the runtime names the address of each published port",
    "bridge.inhibit_ipv4": "the bridge has the gateways of all ranges: leave isGateway out for none",
    "bridge.trusted_host_interfaces": "who may reach containers does not depend on the interface",
    "container_iface_prefix": "the runtime names a container's interface",
    "host_ipv4": 'the address of masqueraded packets: write "snat": {"ipv4": ...}',
    "host_ipv6": 'the address of masqueraded packets: write "snat": {"ipv6": ...}',
    "enable_ipv4": "", "enable_ipv6": "", "endpoint.ifname": "the runtime names a container's interface",
}
DIRECT = ("routed", "nat-unprotected")  # gateway modes in which more than published ports is reachable


def is_docker(document: object) -> bool:
    return isinstance(document, Mapping) and isinstance(document.get("Driver"), str) and "IPAM" in document


def convert(document: Mapping[str, Any], wanted: Wanted) -> Conversion:
    """
    :raises CniError: INVALID_CONFIG for a driver that has no counterpart.
    """
    report = Report()
    name, driver = text(document.get("Name"), "Name"), str(document["Driver"])
    options = {str(key).removeprefix(OPTION): str(value)
               for key, value in mapping(document.get("Options"), "Options").items()}
    if driver in ON_A_LINK:
        plugin = _on_a_link(driver, options, wanted, report)
    elif driver == BRIDGE:
        plugin = _bridge(document, name, options, wanted, report)
    else:
        raise refused(f"Driver: {driver} has no counterpart", "bridge, macvlan and ipvlan have one")
    for key in sorted(options):
        if LOST.get(key, "no such key"):
            report.lost(f"Options.{key}", LOST.get(key, "no such key"))
    if document.get("Labels"):
        report.lost("Labels", "a CNI network has none")
    report.lost("(DNS)", "names of containers are not resolved: that is Docker's own server, 127.0.0.11")
    plugin["ipam"] = _ipam(document, report)
    if driver in ON_A_LINK:
        families = sorted({":" in part["subnet"] for members in plugin["ipam"]["ranges"] for part in members})
        plugin["ipam"]["routes"] = [{"dst": "::/0" if is_ipv6 else "0.0.0.0/0"} for is_ipv6 in families]
    network = {"cniVersion": "1.0.0", "name": name, "plugins": [plugin]}
    return Conversion(f"Docker's network {name} ({driver})", network, tuple(report.remarks), LEASES, COMMANDS)


def _bridge(
    document: Mapping[str, Any], name: str, options: dict[str, str], wanted: Wanted, report: Report
) -> dict[str, Any]:
    to = wanted.to or BRIDGE
    found: dict[str, Any] = {"type": TYPES[to]}
    internal = document.get("Internal") is True
    own = options.pop("bridge.name", "")
    if to == BRIDGE:
        found["bridge"] = f"cni-{name}"[:BRIDGE_NAME]
        found["isGateway" if internal else "isDefaultGateway"] = True
        words = f"{own or 'br-...'}: {found['bridge']}, so that both can be there at once"
        report.changed("Options.bridge.name", words)
    found["ingress"] = "published"
    if options.pop("bridge.enable_icc", "true") == "false":
        found["ingress"] = "isolated"
        report.changed("Options.bridge.enable_icc", 'false: ingress "isolated"')
    if internal:
        found["egress"] = []
        report.changed("Internal", "egress []: a container reaches its network only")
    _masquerade(found, internal, options, report)
    mtu = options.pop("driver.mtu", "")
    if mtu.isdecimal() and int(mtu):
        found["mtu"] = int(mtu)
    found["capabilities"] = CAPABILITIES
    return found


def _masquerade(found: dict[str, Any], internal: bool, options: dict[str, str], report: Report) -> None:
    """By family, as the gateway modes say. Docker masquerades in the mode nat."""
    on = options.pop("bridge.enable_ip_masquerade", "true") == "true" and not internal
    modes = {}
    for family in ("ipv4", "ipv6"):
        mode = options.pop(f"bridge.gateway_mode_{family}", "nat")
        modes[family] = "on" if on and mode.startswith("nat") else "off"
        if mode in DIRECT:
            words = f'{mode}: "ingress": "open" lets others reach all ports'
            report.look(f"Options.bridge.gateway_mode_{family}", words)
    if "on" in modes.values():
        found["masquerade"] = modes


def _on_a_link(driver: str, options: dict[str, str], wanted: Wanted, report: Report) -> dict[str, Any]:
    if wanted.to:
        raise refused(f"Driver: {driver} stays, so there is no --to {wanted.to}", "leave --to out")
    kind = ON_A_LINK[driver]
    report.changed("Driver", f"{driver}: {kind}")
    found: dict[str, Any] = {"type": kind}
    parent, mode = options.pop("parent", ""), options.pop(f"{driver}_mode", "")
    if parent:
        found["master"] = parent
    if mode:
        found["mode"] = mode
    return {**found, "capabilities": CAPABILITIES_ON_A_LINK[kind]}


# Addresses


def _ipam(document: Mapping[str, Any], report: Report) -> dict[str, Any]:
    ipam = mapping(document.get("IPAM"), "IPAM")
    driver = text(ipam.get("Driver"), "IPAM.Driver")
    if driver not in ("", "default"):
        report.lost("IPAM.Driver", f"{driver} is a plugin of Docker")
    ranges: list[list[dict[str, Any]]] = []
    exclude: list[str] = []
    for at, config in enumerate(items(ipam.get("Config"), "IPAM.Config")):
        part = mapping(config, f"IPAM.Config[{at}]")
        ranges.append([_range(part, f"IPAM.Config[{at}]")])
        exclude += mapping(part.get("AuxiliaryAddresses"), f"IPAM.Config[{at}].AuxiliaryAddresses").values()
    if not ranges:
        raise refused("IPAM.Config: the network has no subnet", "inspect a network that has one")
    found: dict[str, Any] = {"type": IPAM_PLUGIN, "ranges": ranges}
    if exclude:
        found["exclude"] = exclude
        report.changed("IPAM.Config.AuxiliaryAddresses", "exclude: no container gets these addresses")
    reserve = _reserved(mapping(document.get("Containers"), "Containers"), ranges, report)
    if reserve:
        found["reserve"] = reserve
        report.look("Containers", "reserve: each name keeps its addresses; take out those that nobody counts on")
    return found


def _range(part: Mapping[str, Any], path: str) -> dict[str, Any]:
    found: dict[str, Any] = {"subnet": str(subnet(part.get("Subnet"), f"{path}.Subnet"))}
    if part.get("IPRange"):
        pool = subnet(part["IPRange"], f"{path}.IPRange")
        found["rangeStart"], found["rangeEnd"] = (str(IPAddress(end, pool.version)) for end in (pool.first, pool.last))
    if part.get("Gateway"):
        found["gateway"] = bare(str(part["Gateway"]))
    return found


def _reserved(
    containers: Mapping[str, Any], ranges: list[list[dict[str, Any]]], report: Report
) -> dict[str, list[str]]:
    """The addresses of running containers, by name, as far as they are in the ranges."""
    pools = [_pool(part) for members in ranges for part in members]
    found: dict[str, list[str]] = {}
    for key, container in containers.items():
        entry = mapping(container, f"Containers.{key}")
        name = str(entry.get("Name") or key)
        for address in (bare(str(entry[kind])) for kind in ("IPv4Address", "IPv6Address") if entry.get(kind)):
            if any(address in pool for pool in pools):
                found.setdefault(name, []).append(address)
            else:
                words = f"{address} is outside IPRange, and only addresses of a range are given"
                report.lost(f"Containers.{name}", words)
    return found


def _pool(part: Mapping[str, str]) -> IPNetwork | IPRange:
    return IPRange(part["rangeStart"], part["rangeEnd"]) if "rangeStart" in part else IPNetwork(part["subnet"])
