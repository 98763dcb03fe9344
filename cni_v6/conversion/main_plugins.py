"""The reference main plugins ``bridge`` and ``ptp`` to ``cni-v6`` and ``cni-v6-routed``, key by key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cni_v6.config.keys.bridge import BRIDGE as BRIDGE_KEYS
from cni_v6.config.keys.routed import ROUTED as ROUTED_KEYS
from cni_v6.conversion.addresses import of_reference
from cni_v6.conversion.report import BRIDGE, ROUTED, Report, Wanted, items, mapping, refused, renamed
from cni_v6.protocol.invocation import BRIDGE as OUR_BRIDGE, IPVLAN, MACVLAN, ROUTED as OUR_ROUTED

NEAREST: Mapping[str, str] = {"bridge": BRIDGE, "ptp": ROUTED}
TYPES: Mapping[str, str] = {BRIDGE: OUR_BRIDGE, ROUTED: OUR_ROUTED}
KEYS: Mapping[str, frozenset[str]] = {BRIDGE: BRIDGE_KEYS.names, ROUTED: ROUTED_KEYS.names}
BRIDGE_NAME = 15  # linux/if.h: IFNAMSIZ, less the zero
ON_A_LINK: Mapping[str, str] = {"macvlan": MACVLAN, "ipvlan": IPVLAN}  # drivers of podman and Docker
CAPABILITIES = {"ips": True, "mac": True, "portMappings": True}  # what podman and Docker ask for without a word
CAPABILITIES_ON_A_LINK = {MACVLAN: {"ips": True, "mac": True}, IPVLAN: {"ips": True}}
# Why a key of a bridge has no place where each container has a link of its own.
WITHOUT_BRIDGE: Mapping[str, str] = {
    "bridge": "there is no bridge",
    "isGateway": "the node always is the gateway",
    "isDefaultGateway": "a family without routes in ipam.routes gets a default route",
    "forceAddress": "there is no bridge whose address could differ",
    "hairpinMode": "packets of a container to itself are routed",
    "promiscMode": "there is no bridge",
    "macspoofchk": "the guard checks the addresses of each link",
    "enabledad": "nobody else is on the link",
    "preserveDefaultVlan": "there is no bridge",
    "netfilter": "packets between containers pass the node's rules in any case",
}
ONLY_BRIDGED = ("vlan", "vlanTrunk", "disableContainerInterface")  # a configuration with one of them stays on a bridge
OPEN = ('written "open", as it was: whoever has a route to a container reaches all its ports. "published" closes it to '
        "all but replies and published ports")
GUARD = ("on, which is new: a container sends only from its own addresses. One that routes or bridges for others needs "
         '"guard": false')

STALE_MASQUERADE = (
    "the reference's rules for running containers (chains CNI-...) stay when these end: they do no harm, and a reboot "
    "removes them"
)


def convert(entry: Mapping[str, Any], name: str, wanted: Wanted, report: Report, path: str) -> dict[str, Any]:
    """The configuration of our plugin for one of ``bridge`` or ``ptp``.

    :raises CniError: INVALID_CONFIG for a bridge that cannot be routed.
    """
    source = str(entry["type"])
    to = wanted.to or NEAREST[source]
    found = renamed(entry, BRIDGE_KEYS.names, f"{path}.", report)
    report.changed(f"{path}.type", f"{source}: {TYPES[to]}")
    if found.get("ipMasq"):
        report.look(f"{path}.ipMasq", STALE_MASQUERADE)
    if found.pop("ipMasqBackend", "nftables") != "nftables":
        report.changed(f"{path}.ipMasqBackend", "left out: the rules are nftables, in tables of our own")
    for key in sorted(found.keys() - BRIDGE_KEYS.names):
        del found[key]
        report.lost(f"{path}.{key}", "no such key")
    if to == ROUTED and source == "bridge":
        _leave_bridge(found, report, path)
    if to == BRIDGE:
        _at_bridge(found, source, name, report, path)
    found["type"] = TYPES[to]
    ipam = mapping(found.pop("ipam", None), f"{path}.ipam")
    if ipam:
        found["ipam"] = of_reference(ipam, wanted, report, f"{path}.ipam")
    elif to == ROUTED:
        raise refused(f"{path} has no ipam: a routed container needs an address", "leave it on a bridge: --to bridge")
    if to == ROUTED and not _routes(ipam):
        report.look(f"{path}.ipam.routes", "a family without routes gets a default route")
    return found


def without_bridge(entry: Mapping[str, Any], report: Report, path: str) -> dict[str, Any]:
    """The configuration of our routed plugin for one of our bridge plugin.

    :raises CniError: INVALID_CONFIG for a bridge that cannot be routed.
    """
    found = dict(entry)
    report.changed(f"{path}.type", f"{OUR_BRIDGE}: {OUR_ROUTED}")
    if not found.get("ipam"):
        raise refused(f"{path} has no ipam: a routed container needs an address", "leave it on the bridge")
    if not found.get("isDefaultGateway") and not _routes(mapping(found["ipam"], f"{path}.ipam")):
        report.look(f"{path}.ipam.routes", "a family without routes gets a default route")
    if not (found.get("isGateway") or found.get("isDefaultGateway")):
        report.look(f"{path}.isGateway", "the node becomes the gateway of the network, and forwards")
    _leave_bridge(found, report, path)
    return found | {"type": OUR_ROUTED}


def finish(found: dict[str, Any], report: Report, path: str) -> dict[str, Any]:
    """A main plugin's configuration, with what our defaults would change, in the order of our samples."""
    ingress = {}
    if "ipam" in found and "ingress" not in found:
        ingress = {"ingress": "open"}
        report.look(f"{path}.ingress", OPEN)
    if "ipam" in found and "guard" not in found:
        report.look(f"{path}.guard", GUARD)
    ends = {"type": 0, "bridge": 1, "ipam": 3}
    return dict(sorted((found | ingress).items(), key=lambda pair: ends.get(pair[0], 2)))


def _leave_bridge(found: dict[str, Any], report: Report, path: str) -> None:
    """Take out the keys of a bridge."""
    for key in ONLY_BRIDGED:
        if found.get(key):
            raise refused(f"{path}.{key}: only a bridge has it", "leave it on a bridge: --to bridge")
    if found.pop("portIsolation", False):
        found["ingress"] = "isolated"
        report.changed(f"{path}.portIsolation", 'ingress "isolated": containers do not reach each other')
    for key in sorted(found.keys() - ROUTED_KEYS.names):
        if found.pop(key):
            report.lost(f"{path}.{key}", WITHOUT_BRIDGE.get(key, "there is no bridge"))


def _at_bridge(found: dict[str, Any], source: str, name: str, report: Report, path: str) -> None:
    if source != "bridge":
        found["bridge"] = f"cni-{name}"[:BRIDGE_NAME]
        found["isGateway"] = True
        report.changed(f"{path}.bridge", f"{found['bridge']}: the containers of the network become neighbours on it")
    if (found.get("vlan") or found.get("vlanTrunk")) and "preserveDefaultVlan" not in found:
        words = "absent means true here, and false to the reference since 1.8: write it"
        report.look(f"{path}.preserveDefaultVlan", words)


def _routes(ipam: Mapping[str, Any]) -> list[Any]:
    return items(next((value for key, value in ipam.items() if key.lower() == "routes"), None), "ipam.routes")
