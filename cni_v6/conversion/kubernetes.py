"""flannel's and Calico's plugins: pods of a node, whose ranges are not in the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cni_v6.conversion import main_plugins
from cni_v6.conversion.addresses import CALICO, GIVE, HOST_LOCAL, of_reference, ranges, subnet
from cni_v6.conversion.report import BRIDGE, ROUTED, Report, Wanted, mapping, refused

SUBNET_FILE = "/run/flannel/subnet.env"  # what flanneld writes
LINE = re.compile(r"^\s*(FLANNEL_\w+)=(.*?)\s*$", re.MULTILINE)
GATEWAY = "169.254.1.1"  # the next hop of IPv4 in a pod of Calico
OF_CALICO: Mapping[str, str] = {
    "policy": "network policies are not enforced by the plugin: run a policy controller beside it",
    "policy_setup_timeout_seconds": "an ADD waits for nothing but the kernel",
    "feature_control": "the annotations of Calico on pods are not read: use args.cni, or CNI_ARGS",
    "container_settings": "forwarding in a container is what its namespace says: chain tuning for its sysctls",
    "floating_ips": "the annotations of Calico on pods are not read",
    "windows_use_single_network": "it is for Windows",
}
_DRAIN = ("kubectl drain NODE --ignore-daemonsets --delete-emptydir-data", "cni-v6ctl install", "cni-v6ctl lint {new}",
          "mv {file} {file}.before && install -m 644 {new} {folder}/", "kubectl uncordon NODE")
MOVES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "flannel": (
        "flannel keeps the leases of its pods as host-local does, so they stay where they are, and running pods keep "
        "their addresses. flanneld must go on: it makes the routes between the nodes. Take the CNI configuration out "
        "of its ConfigMap, or it writes its file again",
        ("cni-v6ctl install", "cni-v6ctl lint {new}", "mv {file} {file}.before && install -m 644 {new} {folder}/",
         "cni-v6ctl doctor"),
    ),
    "calico": (
        "Calico's blocks have no lease files: the pods of the node must be started again. Routes between nodes are "
        "Calico's (calico-node): keep it for them with its CNI installer off, or have others",
        _DRAIN,
    ),
}


def flannel(entry: Mapping[str, Any], name: str, wanted: Wanted, report: Report, path: str) -> dict[str, Any]:
    """What the plugin ``flannel`` would give to the plugin that it calls: ``delegate``, and flanneld's file.

    :raises CniError: INVALID_CONFIG where the node's ranges are not known.
    """
    delegate = dict(mapping(entry.get("delegate"), f"{path}.delegate"))
    kind = str(delegate.setdefault("type", "bridge"))
    if kind not in main_plugins.NEAREST:
        raise refused(f"{path}.delegate.type: {kind} has no counterpart", "only bridge and ptp have one")
    values = dict(LINE.findall(wanted.environment))
    subnets = wanted.subnets or tuple(
        str(subnet(values[key], key)) for key in ("FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET") if values.get(key)
    )
    if not subnets:
        raise refused(f"{path}: the node's ranges are in {entry.get('subnetFile') or SUBNET_FILE}, which is not here",
                      f"convert the file on the node, or {GIVE}")
    if kind == "bridge":
        delegate.setdefault("isGateway", True)
    delegate.setdefault("ipMasq", values.get("FLANNEL_IPMASQ", "true") != "true")  # flanneld does it, or the plugin
    if values.get("FLANNEL_MTU"):
        delegate.setdefault("mtu", int(values["FLANNEL_MTU"]))
    network = [values[key] for key in ("FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK") if values.get(key)]
    delegate["ipam"] = {"type": HOST_LOCAL, "ranges": ranges(subnets), "routes": [{"dst": text} for text in network],
                        **mapping(entry.get("ipam"), f"{path}.ipam")}
    words = f"flannel: its delegate, with {' and '.join(subnets)}; the ranges no longer follow flanneld's file"
    report.changed(path, words)
    return main_plugins.convert(delegate, name, wanted, report, f"{path}.delegate")


def calico(entry: Mapping[str, Any], _: str, wanted: Wanted, report: Report, path: str) -> dict[str, Any]:
    """Calico routes each pod by itself, as ``cni-v6-routed`` does.

    :raises CniError: INVALID_CONFIG where the node's ranges are not known, or for ``--to bridge``.
    """
    if wanted.to == BRIDGE:
        raise refused(f"{path}: Calico routes each pod, and a bridge would need other addresses", "leave --to out")
    report.changed(f"{path}.type", f"calico: {main_plugins.TYPES[ROUTED]}")
    found: dict[str, Any] = {
        "type": main_plugins.TYPES[ROUTED], "masquerade": {"ipv4": "auto", "ipv6": "auto"}, "ipv4Gateway": GATEWAY,
    }
    report.changed(f"{path}.masquerade", "auto, in place of natOutgoing of Calico's pools; write the cluster's pod "
                                         "ranges into nonMasquerade")
    if entry.get("mtu"):
        found["mtu"] = entry["mtu"]
    if entry.get("capabilities"):
        found["capabilities"] = entry["capabilities"]
    for key in sorted(entry.keys() - {"type", "mtu", "ipam", "capabilities"}):
        if entry[key]:
            report.lost(f"{path}.{key}", OF_CALICO.get(key, "it is about Calico's own datastore and logs"))
    ipam = mapping(entry.get("ipam"), f"{path}.ipam") or {"type": CALICO}
    found["ipam"] = of_reference(ipam, wanted, report, f"{path}.ipam")
    return found
