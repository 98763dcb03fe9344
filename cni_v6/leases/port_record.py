"""How a container is connected as JSON, for the record of an attachment: a bridge port, or its link where there is no
bridge; the rules of its namespace. Pure.

What is read back becomes requests to the kernel. So it is accepted only if we could have written it.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

from cni_v6.leases.attachment import CHILD_KINDS, BridgePort, ChildLink, RoutedLink, SourceRules
from cni_v6.net.addresses import is_link_local
from cni_v6.protocol.json_reader import canonical_prefix

_VLANS = range(1, 4095)  # IEEE 802.1Q: 0 and 4095 are reserved
_MAC = re.compile("[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_FLAGS = ("hairpin", "isolated", "preserve_default_vlan", "promisc", "multicast_snooping", "netfilter")
_OF_A_CHILD = {field.name: field.default for field in fields(ChildLink) if field.name not in ("netns", "master")}
_DEFAULTS = {field.name: field.default for field in fields(BridgePort)}


def to_json(port: BridgePort | RoutedLink | ChildLink) -> dict[str, Any]:
    """The port as a JSON object; what has its default value is left out."""
    if isinstance(port, ChildLink):
        found = {name: getattr(port, name) for name in _OF_A_CHILD}
        return {"netns": port.netns, "master": port.master,
                **{name: value for name, value in found.items() if value != _OF_A_CHILD[name]}}
    if isinstance(port, RoutedLink):
        return {"mac": port.mac, **({"ipv4_gateway": port.ipv4_gateway} if port.ipv4_gateway else {})}
    values = {name: getattr(port, name) for name in _DEFAULTS}
    return {name: value for name, value in values.items() if value != _DEFAULTS[name]}


def from_json(raw: Any) -> BridgePort | RoutedLink | ChildLink:
    """Read a port written by any version.

    :raises ValueError: ``to_json`` does not write such a value.
    """
    if "netns" in raw:
        node, kind, mode = (str(raw.get(name, _OF_A_CHILD[name])) for name in ("node", "kind", "mode"))
        in_container = raw.get("in_container", False) is True
        return _child(ChildLink(str(raw["netns"]), str(raw["master"]), in_container, node, kind, mode))
    if "mac" in raw:
        return _routed(str(raw["mac"]), str(raw.get("ipv4_gateway", "")))
    bridge, link_local = str(raw["bridge"]), str(raw.get("link_local", ""))
    flags = {name: raw.get(name, _DEFAULTS[name]) for name in _FLAGS}
    if not _is_interface(bridge):
        raise ValueError("bridge")
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise ValueError("port")
    if link_local and not (is_link_local(link_local) and canonical_prefix(link_local, host_bits=True) == link_local):
        raise ValueError("link_local")
    vlan = raw.get("vlan", 0)
    trunk = tuple((_vlan(first), _vlan(last)) for first, last in raw.get("trunk", ()))
    return BridgePort(bridge, vlan=_vlan(vlan) if vlan else 0, trunk=trunk, link_local=link_local, **flags)


def rules_to_json(rules: SourceRules) -> list[Any]:
    """The rules as a JSON list."""
    return [rules.netns, rules.table, rules.sources, rules.destinations]


def rules_from_json(raw: Any) -> SourceRules:
    """
    :raises ValueError: ``rules_to_json`` does not write such a value.
    """
    netns, table, *prefixes = raw
    sources, destinations = (tuple(map(str, listed)) for listed in prefixes)
    if not _is_path(str(netns)) or type(table) is not int or not 0 < table < 1 << 32:
        raise ValueError("rules")
    if any(canonical_prefix(prefix, host_bits=False) != prefix for prefix in (*sources, *destinations)):
        raise ValueError("prefixes of rules")
    return SourceRules(str(netns), table, sources, destinations)


def _routed(mac: str, gateway: str) -> RoutedLink:
    canonical = canonical_prefix(f"{gateway}/32", host_bits=True) if gateway and ":" not in gateway else None
    if not _MAC.fullmatch(mac) or (gateway and canonical != f"{gateway}/32"):
        raise ValueError("link")
    return RoutedLink(mac, gateway)


def _child(link: ChildLink) -> ChildLink:
    if not _is_path(link.netns):
        raise ValueError("netns")
    if not _is_interface(link.master) or (link.node and not _is_interface(link.node)):
        raise ValueError("master")
    if link.kind not in CHILD_KINDS or not (link.mode.isalnum() or not link.mode):
        raise ValueError("kind")
    return link


def _is_path(text: str) -> bool:
    return text.startswith("/") and "\0" not in text


def _is_interface(name: str) -> bool:
    return name.isprintable() and "/" not in name and 0 < len(name) < 16


def _vlan(raw: object) -> int:
    if not isinstance(raw, int) or raw not in _VLANS:
        raise ValueError("vlan")
    return raw
