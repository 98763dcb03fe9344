"""Remarks about the document: its form, its plugins, what runtimes are to write for them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cni_v6.config.keys.runtime import BRIDGE_RUNTIME, CAPABILITIES, IPAM_RUNTIME
from cni_v6.plan.lint.remark import ERROR, WARNING, Remark
from cni_v6.protocol.invocation import BRIDGE, IPAM, IPVLAN, MACVLAN, ROUTED, VLAN
from cni_v6.protocol.json_reader import shown

LIST, SINGLE = (".conflist",), (".conf", ".json")
# What the reference plugins read of runtimeConfig (containernetworking/plugins); of others nothing is known.
TAKES: Mapping[str, frozenset[str]] = {
    BRIDGE: frozenset(key.name for key in BRIDGE_RUNTIME.keys),
    ROUTED: frozenset(key.name for key in BRIDGE_RUNTIME.keys),
    MACVLAN: frozenset({"mac", "ips", "ipRanges", "dns"}),  # the others ask for an interface on the node
    IPVLAN: frozenset({"ips", "ipRanges", "dns"}),
    VLAN: frozenset({"mac", "ips", "ipRanges", "dns"}),
    IPAM: frozenset(key.name for key in IPAM_RUNTIME.keys),
    "bridge": frozenset({"mac", "ips", "ipRanges"}),
    "ptp": frozenset({"ips", "ipRanges"}),
    "macvlan": frozenset({"mac", "ips", "ipRanges"}),
    "ipvlan": frozenset({"ips", "ipRanges"}),
    "vlan": frozenset({"ips", "ipRanges"}),
    "portmap": frozenset({"portMappings"}),
    "bandwidth": frozenset({"bandwidth"}),
    "tuning": frozenset({"mac"}),
    "firewall": frozenset(),
    "loopback": frozenset(),
}
PORTS = "portMappings"
LEAVE_MAC = 'leave "mac" out there, and request the MAC with the capability "mac", args.cni.mac or CNI_ARGS'


def form(name: str, document: Mapping[str, Any]) -> Iterator[Remark]:
    """What libcni expects of a file with this name."""
    is_list = "plugins" in document
    suffix = name[name.rfind("."):] if "." in name else ""
    if suffix not in LIST + SINGLE:
        yield Remark("file-name", WARNING, f"no runtime reads a file named {name}", "call it NN-NAME.conflist")
    elif is_list != (suffix in LIST):
        has = "a list of plugins" if is_list else "one plugin"
        remedy = f"call it {name.removesuffix(suffix)}{LIST[0] if is_list else SINGLE[0]}"
        yield Remark("file-name", ERROR, f"{name} has {has}, which its name does not say", remedy,
                     "plugins" if is_list else "type")
    if not document.get("cniVersion"):
        words = "cniVersion is missing: for Multus, and runtimes before libcni 1.2, that means 0.1.0"
        yield Remark("version", WARNING, words, 'write "cniVersion": "1.0.0", beside cniVersions too', "name")
    if is_list:
        yield from _entries(document["plugins"])


def _entries(listed: object) -> Iterator[Remark]:
    """What libcni refuses of a list before it calls a plugin (libcni/conf.go, ConfListFromBytes, ConfFromBytes)."""
    if not isinstance(listed, list) or not listed:
        remedy = 'write [{"type": "cni-v6", ...}]'
        yield Remark("plugins", ERROR, "plugins is not a list with a plugin in it", remedy, "plugins")
        return
    for at, entry in enumerate(listed):
        kind = entry.get("type") if isinstance(entry, dict) else None
        if not isinstance(kind, str) or not kind:
            words = f"plugins[{at}] is not an object with a type, which is a string"
            yield Remark("plugins", ERROR, words, 'write {"type": ...}, or remove it', "plugins")


def plugins(entries: Sequence[Mapping[str, Any]], kubernetes: bool) -> Iterator[Remark]:
    """What the plugins of a list are to each other.

    :param kubernetes: the file is for pods.
    """
    own = next((entry for entry in entries if entry.get("type") == BRIDGE), None)
    for entry in entries:
        kind = entry.get("type")
        takes = TAKES.get(kind) if isinstance(kind, str) else None
        for capability in _capabilities(entry) if takes is not None else ():
            if takes is not None and capability not in takes and capability in CAPABILITIES:  # others are refused
                words = f"capability {shown(capability)} goes nowhere: {kind} does not read it"
                remedy = "remove it, or write it at the plugin that reads it"
                yield Remark("capability", WARNING, words, remedy, capability)
    takers = [str(entry.get("type")) for entry in entries if PORTS in _capabilities(entry)]
    if own is not None and kubernetes and not takers:
        words = "no plugin of the list has the capability portMappings: hostPort of a pod is lost"
        remedy = 'write "capabilities": {"portMappings": true} at cni-v6'
        yield Remark("no-ports", WARNING, words, remedy, "capabilities")
    if own is not None and len(takers) > 1:
        yield Remark("ports-twice", WARNING, f"{' and '.join(takers)} have the capability portMappings",
                     "keep it at cni-v6, and remove portmap", PORTS)
    shapers = [str(entry.get("type")) for entry in entries if "bandwidth" in _capabilities(entry)]
    if own is not None and len(shapers) > 1:
        yield Remark("bandwidth-twice", WARNING, f"{' and '.join(shapers)} have the capability bandwidth",
                     "keep it at cni-v6, and remove the plugin bandwidth", "bandwidth")
    if own is not None and kubernetes and "ingress" not in own:
        yield Remark("ingress", WARNING, "ingress is not written",
                     'write "ingress": "open" for pods that other nodes reach, or "published" to say that it is meant')
    yield from macs(entries)


def _capabilities(entry: Mapping[str, Any]) -> list[str]:
    found = entry.get("capabilities")
    return [name for name, wanted in found.items() if wanted is True] if isinstance(found, dict) else []


def macs(entries: Sequence[Mapping[str, Any]]) -> Iterator[Remark]:
    """A later ``tuning`` that changes the MAC which the guard has bound."""
    at = next((number for number, entry in enumerate(entries) if entry.get("type") == BRIDGE), len(entries))
    for number, entry in enumerate(entries[at:], at):
        changes = entry.get("mac") or ("mac" in _capabilities(entry) and "mac" not in _capabilities(entries[at]))
        if entry.get("type") == "tuning" and changes and entries[at].get("guard", True):
            words = f"plugins[{number}]: tuning changes the MAC, which the guard does not let pass"
            yield Remark("mac", WARNING, words, LEAVE_MAC, "tuning")
