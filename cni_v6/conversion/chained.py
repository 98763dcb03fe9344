"""The plugins that are chained behind a main plugin: what our main plugin does itself, and what stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cni_v6.conversion.report import Report, mapping, text
from cni_v6.protocol.invocation import ROUTED

Entry = Mapping[str, Any]
# Takes the entry, our main plugin's configuration, which it may change, the report, and the entry's path. Returns what
# stays of the entry, or None.
Convert = Callable[[Entry, dict[str, Any], Report, str], Entry | None]

INGRESS: Mapping[str, str] = {"same-bridge": "published", "isolated": "isolated"}
PORTMAP: Mapping[str, str] = {
    "conditionsV4": "egress and ingress take no conditions of iptables",
    "conditionsV6": "egress and ingress take no conditions of iptables",
    "markMasqBit": "masquerade uses no mark",
    "externalSetMarkChain": "masquerade uses no mark, and no chain of others",
    "masqAll": "only a container's packets to its own published port are masqueraded",
    "snat": "a container reaches its own published port, as with snat true",
}
FIREWALL: Mapping[str, str] = {
    "firewalldZone": "containers are in no zone of firewalld; its forward policy must let them through",
    "iptablesAdminChainName": "no chain of ours is for rules of others: write them into a table of your own",
}
TUNING = ("mtu", "sysctl", "promisc", "allmulti", "txQLen")
BANDWIDTH = ("ingressRate", "ingressBurst", "egressRate", "egressBurst")
STALE_PORTS = (
    "delete containers with published ports before the move, and start them after it: portmap is no longer called for "
    "their DEL, and its rules would send the ports to whoever has the address next"
)
REQUEST_MAC = 'a MAC is requested with the capability "mac", and is set before the interface is up'


def convert(entries: Sequence[tuple[str, Entry]], main: dict[str, Any], report: Report) -> list[Entry]:
    """What stays of the chain, in its order."""
    return list(_staying(entries, main, report))


def _staying(entries: Sequence[tuple[str, Entry]], main: dict[str, Any], report: Report) -> Iterator[Entry]:
    for path, entry in entries:
        kind = text(entry.get("type"), f"{path}.type")
        stays = CHAINED.get(kind, _unknown)(entry, main, report, path)
        if stays is not None:
            yield stays


def _capability(main: dict[str, Any], name: str) -> None:
    main["capabilities"] = {**main.get("capabilities", {}), name: True}


def _portmap(entry: Entry, main: dict[str, Any], report: Report, path: str) -> None:
    if mapping(entry.get("capabilities"), f"{path}.capabilities").get("portMappings"):
        _capability(main, "portMappings")
        report.look(path, STALE_PORTS)
    report.changed(path, "portmap is left out: our plugin publishes the ports (capabilities.portMappings)")
    for key, why in PORTMAP.items():
        if entry.get(key) and not (key == "snat" and entry[key] is True):
            report.lost(f"{path}.{key}", why)
    if entry.get("snat") is False:
        report.lost(f"{path}.snat", PORTMAP["snat"])


def _firewall(entry: Entry, main: dict[str, Any], report: Report, path: str) -> None:
    policy = text(entry.get("ingressPolicy"), f"{path}.ingressPolicy") or "open"
    report.changed(path, "firewall is left out: our plugin has rules of its own")
    if policy in INGRESS:
        main["ingress"] = INGRESS[policy]
        words = f'{policy}: ingress "{INGRESS[policy]}"; it closes the network to the outside too'
        report.changed(f"{path}.ingressPolicy", words)
    elif policy != "open":
        report.lost(f"{path}.ingressPolicy", f"{policy} is not known")
    for key, why in FIREWALL.items():
        if entry.get(key):
            report.lost(f"{path}.{key}", why)


def _tuning(entry: Entry, main: dict[str, Any], report: Report, path: str) -> Entry | None:
    """Its keys are ours too; without ``mac``, which the guard does not let pass."""
    left = {key: value for key, value in entry.items() if value not in (None, {}, "", False)}
    capabilities = dict(mapping(left.pop("capabilities", None), f"{path}.capabilities"))
    if capabilities.pop("mac", False):
        _capability(main, "mac")
        report.changed(f"{path}.capabilities.mac", REQUEST_MAC)
    if left.pop("mac", None):
        report.lost(f"{path}.mac", f"the same MAC for each container; {REQUEST_MAC}")
    for key in TUNING:
        if key in left and (key != "sysctl" or _is_of_net(mapping(left[key], f"{path}.{key}"))):
            main.setdefault(key, left.pop(key))
            report.changed(f"{path}.{key}", f"{key} of our plugin")
    if capabilities:
        left["capabilities"] = capabilities
    if left.keys() <= {"type", "dataDir"}:
        report.changed(path, "tuning is left out: nothing is left for it to do")
        return None
    report.look(path, "tuning stays: its executable must be in CNI_PATH")
    return left


def _is_of_net(sysctls: Entry) -> bool:
    """Whether all are below net, as those of ours must be."""
    return all(key.replace("/", ".").startswith("net.") for key in sysctls)


def _bandwidth(entry: Entry, main: dict[str, Any], report: Report, path: str) -> None:
    if mapping(entry.get("capabilities"), f"{path}.capabilities").get("bandwidth"):
        _capability(main, "bandwidth")
    rates = {key: entry[key] for key in BANDWIDTH if entry.get(key)}
    if rates:
        main["bandwidth"] = rates
    report.changed(path, "bandwidth is left out: our plugin limits the rates (bandwidth, capabilities.bandwidth)")
    for key in sorted(entry.keys() - {"type", "capabilities", *BANDWIDTH}):
        if entry[key]:
            report.lost(f"{path}.{key}", "the rates are for all that a container sends and receives")


def _routing(entry: Entry, main: dict[str, Any], report: Report, path: str) -> Entry:
    """``sbr`` and ``vrf``, which move a container's routes into a table."""
    words = f"{entry['type']} stays: its executable must be in CNI_PATH"
    if main.get("type") == ROUTED:
        words += ". A routed container's next hop is fe80::1, which it may not expect: try it, or take --to bridge"
    report.look(path, words)
    return entry


def _unknown(entry: Entry, _: dict[str, Any], report: Report, path: str) -> Entry:
    report.look(path, f"{text(entry.get('type'), f'{path}.type') or 'a plugin without a type'} is not known: it stays")
    return entry


CHAINED: Mapping[str, Convert] = {
    "portmap": _portmap, "firewall": _firewall, "tuning": _tuning, "bandwidth": _bandwidth, "sbr": _routing,
    "vrf": _routing,
}
