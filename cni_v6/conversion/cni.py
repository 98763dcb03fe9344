"""CNI configurations, lists and single ones: of the reference plugins, flannel and Calico."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cni_v6.config.keys import Level
from cni_v6.config.keys.ipvlan import IPVLAN as IPVLAN_KEYS
from cni_v6.config.keys.macvlan import MACVLAN as MACVLAN_KEYS
from cni_v6.config.keys.vlan import VLAN as VLAN_KEYS
from cni_v6.conversion import chained, kubernetes, main_plugins
from cni_v6.conversion.addresses import HOST_LOCAL, of_reference
from cni_v6.conversion.report import ROUTED, Conversion, Report, Wanted, items, mapping, refused, renamed, text
from cni_v6.protocol.invocation import BRIDGE, IPVLAN, MACVLAN, MAIN as MAIN_TYPES, VLAN
from cni_v6.protocol.versions import SUPPORTED_VERSIONS

Entry = Mapping[str, Any]
Main = Callable[[Entry, str, Wanted, Report, str], dict[str, Any]]
MAIN: Mapping[str, Main] = {
    "bridge": main_plugins.convert, "ptp": main_plugins.convert,
    "flannel": kubernetes.flannel, "calico": kubernetes.calico,
}
# Those whose configuration we read as it is.
ON_A_MASTER: Mapping[str, tuple[str, Level]] = {
    "macvlan": (MACVLAN, MACVLAN_KEYS), "ipvlan": (IPVLAN, IPVLAN_KEYS), "vlan": (VLAN, VLAN_KEYS),
}
OF_LIST = ("name", "cniVersion", "cniVersions", "disableCheck", "disableGC", "loadOnlyInlinedPlugins")
VERSION = "1.0.0"
IN_PLACE = (
    "running containers keep their addresses, and the runtime's next calls for them are ours: the lease files stay "
    "where they are, and host-local can use them again later"
)
START_AGAIN = (
    "the lease files stay where they are. The containers of the network must be started again, since both forms "
    "cannot have one subnet: delete them, and the old interfaces, before the file is replaced"
)
ONE_BY_ONE = (
    "name and store stay, so no address is given twice. Running containers stay on the bridge, with their addresses, "
    "until each is recreated; until then both forms work, and reach each other"
)
RECREATE = "cni-v6ctl list  # recreate the containers, until none of the network is older than the file"
FOREIGN = "the addresses are another plugin's, which knows them as before"
INSTALL = "cni-v6ctl install"
LINT = "cni-v6ctl lint {new}"
REPLACE = "mv {file} {file}.before && install -m 644 {new} {folder}/"


def is_cni(document: object) -> bool:
    return isinstance(document, Mapping) and ("plugins" in document or isinstance(document.get("type"), str))


def convert(document: Entry, wanted: Wanted) -> Conversion:
    """
    :raises CniError: INVALID_CONFIG for a list without a plugin that is known, or whose ranges are elsewhere.
    """
    report = Report()
    listed = document.get("plugins", [document])
    entries = [(f"plugins[{at}]" if "plugins" in document else "plugin", mapping(entry, f"plugins[{at}]"))
               for at, entry in enumerate(items(listed, "plugins"))]
    kinds = [text(entry.get("type"), f"{path}.type") for path, entry in entries]
    ours = next((kind for kind in kinds if kind in MAIN_TYPES), "")
    name = text(document.get("name"), "name")
    if not name:
        raise refused("name is missing", "a network has one, under which its leases are kept")
    if ours == BRIDGE and wanted.to == ROUTED:
        return _routed(document, entries, kinds.index(ours), report)
    if ours:
        raise refused(f"{ours} is in it already: nothing is to be converted", "to change the type: docs/choosing.md")
    at = next((at for at, kind in enumerate(kinds) if kind in MAIN), None)
    if at is None:
        return _addresses_alone(document, entries, wanted, report)
    path, entry = entries[at]
    main = MAIN[kinds[at]](_without_list(entry), name, wanted, report, path)
    before = [other for _, other in entries[:at]]
    behind = chained.convert(entries[at + 1:], main, report)
    plugins = [*before, main_plugins.finish(main, report, path), *behind]
    source = f"a CNI network of {', '.join(kinds)}"
    network = _list(document, plugins, report)
    leases, commands = _move(kinds[at], main, entry)
    return Conversion(source, network, tuple(report.remarks), leases, commands, str(entry.get("bridge") or "cni0"))


def _routed(
    document: Entry, entries: Sequence[tuple[str, Entry]], at: int, report: Report
) -> Conversion:
    """Our bridge as our routed network: the same name, store and ranges."""
    path, entry = entries[at]
    main = main_plugins.without_bridge(_without_list(entry), report, path)
    plugins = [main if number == at else _without_list(other) for number, (_, other) in enumerate(entries)]
    commands = (INSTALL, LINT, REPLACE, RECREATE, "ip link delete {bridge}", "cni-v6ctl doctor")
    bridge = text(entry.get("bridge"), f"{path}.bridge") or "cni0"
    return Conversion(f"a network of {BRIDGE}", _list(document, plugins, report), tuple(report.remarks), ONE_BY_ONE,
                      commands, bridge)


def _addresses_alone(
    document: Entry, entries: list[tuple[str, Entry]], wanted: Wanted, report: Report
) -> Conversion:
    """The main plugin of others stays; the addresses of host-local become ours."""
    at = next((at for at, (_, entry) in enumerate(entries) if _has_host_local(entry)), None)
    if at is None:
        known = ", ".join(MAIN)
        raise refused(f"no plugin of the list is one of {known}, and none has an ipam of type {HOST_LOCAL}",
                      "see docs/moving-over.md for what can be converted")
    path, entry = entries[at]
    if wanted.to:
        raise refused(f"{path}.type: {entry.get('type')} stays, so there is no --to {wanted.to}", "leave --to out")
    ipam = of_reference(entry["ipam"], wanted, report, f"{path}.ipam")
    main = {**_without_list(entry), "ipam": ipam}
    if entry.get("type") in ON_A_MASTER:
        main = on_a_master(main, report, path)
    else:
        report.look(f"{path}.type", f"{entry.get('type')} stays: only the addresses become ours")
    plugins = [main if number == at else _without_list(other) for number, (_, other) in enumerate(entries)]
    source = f"a CNI network of {entry.get('type')} with {HOST_LOCAL}"
    return Conversion(source, _list(document, plugins, report), tuple(report.remarks), IN_PLACE, _commands())


def on_a_master(entry: Entry, report: Report, path: str) -> dict[str, Any]:
    """The reference macvlan, ipvlan or vlan as ours, which reads the same keys."""
    kind, keys = ON_A_MASTER[entry["type"]]
    found = renamed(entry, keys.names, f"{path}.", report)
    for key in sorted(found.keys() - keys.names):
        del found[key]
        report.lost(f"{path}.{key}", "no such key")
    report.changed(f"{path}.type", f"{entry['type']}: {kind}")
    if kind == VLAN and "vlanId" not in found:
        found["vlanId"] = 0
        report.changed(f"{path}.vlanId", "0, which its absence meant: write the VLAN")
    return {**found, "type": kind}


def _has_host_local(entry: Entry) -> bool:
    ipam = entry.get("ipam")
    return isinstance(ipam, Mapping) and ipam.get("type") == HOST_LOCAL


def _without_list(entry: Entry) -> Entry:
    """A plugin's keys, without those of the list, which a single configuration has beside them."""
    return {key: value for key, value in entry.items() if key not in OF_LIST}


def _list(document: Entry, plugins: Sequence[Entry], report: Report) -> Entry:
    version = text(document.get("cniVersion"), "cniVersion") or "0.1.0"
    if version not in SUPPORTED_VERSIONS:
        report.changed("cniVersion", f"{version}: {VERSION}, which we and every runtime know")
        version = VERSION
    if "plugins" not in document:
        report.changed("plugin", "a list with this one plugin: the file's name must end in .conflist")
    others = {key: value for key, value in document.items() if key not in ("plugins", "name", "cniVersion")}
    kept = others if "plugins" in document else {key: others[key] for key in OF_LIST if key in others}
    return {"cniVersion": version, "name": document["name"], **kept, "plugins": plugins}


def _move(source: str, main: Entry, entry: Entry) -> tuple[str, tuple[str, ...]]:
    if source in kubernetes.MOVES:
        return kubernetes.MOVES[source]
    if main_plugins.TYPES[main_plugins.NEAREST[source]] != main["type"] or source == "ptp":
        return START_AGAIN, _commands(*(() if source == "ptp" else ("ip link delete {bridge}",)))
    ours = _has_host_local(entry)
    return IN_PLACE if ours else FOREIGN, _commands()


def _commands(*before: str) -> tuple[str, ...]:
    return (INSTALL, LINT, *before, REPLACE, "cni-v6ctl doctor")
