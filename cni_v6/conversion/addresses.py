"""Address allocation: the ``ipam`` object of a reference plugin, subnets of other programs, to ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from netaddr import AddrFormatError, IPNetwork

from cni_v6.config.keys.ipam import IPAM, RANGE
from cni_v6.config.main import IPAM_PLUGIN
from cni_v6.conversion.report import Report, Wanted, items, mapping, refused, renamed, text

HOST_LOCAL = "host-local"
CALICO = "calico-ipam"
NODE_CIDR = "usePodCidr"  # what Calico's installer writes for the node's range (host-local alone does not know it)
GIVE = "give the ranges of this node: --subnet PREFIX, once for each family"


def of_reference(raw: Mapping[str, Any], wanted: Wanted, report: Report, path: str) -> dict[str, Any]:
    """The ``ipam`` object of a CNI plugin. Another IPAM plugin than host-local stays.

    :raises CniError: INVALID_CONFIG for ranges that are not in the file.
    """
    kind = text(raw.get("type"), f"{path}.type")
    if kind == CALICO:
        report.changed(f"{path}.type", f"{kind}: {IPAM_PLUGIN}; Calico's pools and blocks are not read")
        for key in sorted(raw.keys() - {"type"}):
            report.lost(f"{path}.{key}", "it is about Calico's pools")
        return _given(wanted, f"{path}.type: {CALICO} has its ranges in Calico's datastore")
    if kind not in (HOST_LOCAL, IPAM_PLUGIN):
        if kind:
            report.look(f"{path}.type", f"{kind} stays, and is executed from CNI_PATH: the addresses are not ours")
        return dict(raw)
    found = renamed(raw, IPAM.names, f"{path}.", report)
    for key in sorted(found.keys() - IPAM.names):
        del found[key]
        report.lost(f"{path}.{key}", "no such key")
    if kind == HOST_LOCAL:
        report.changed(f"{path}.type", f"{kind}: {IPAM_PLUGIN}; the lease files are the same")
    found["type"] = IPAM_PLUGIN
    if "ranges" in found:
        found["ranges"] = [
            [_range(part, f"{path}.ranges[{number}][]", report) for part in items(members, f"{path}.ranges[{number}]")]
            for number, members in enumerate(items(found["ranges"], f"{path}.ranges"))
        ]
    if NODE_CIDR in _subnets(found):
        if not wanted.subnets:
            raise refused(f"{path}: {NODE_CIDR} stands for the node's range, which is not in the file", GIVE)
        for key in ("subnet", "rangeStart", "rangeEnd", "gateway", "ranges"):
            found.pop(key, None)
        report.changed(f"{path}.subnet", f"{NODE_CIDR}: {' and '.join(wanted.subnets)}, as you say")
        found["ranges"] = ranges(wanted.subnets)
    return found


def _subnets(ipam: Mapping[str, Any]) -> list[object]:
    return [ipam.get("subnet"), *(part.get("subnet") for members in ipam.get("ranges", []) for part in members)]


def _range(part: object, path: str, report: Report) -> dict[str, Any]:
    found = renamed(mapping(part, path), RANGE.names, f"{path}.", report)
    for key in sorted(found.keys() - RANGE.names):
        del found[key]
        report.lost(f"{path}.{key}", "no such key")
    return found


def ranges(subnets: Sequence[str]) -> list[list[dict[str, Any]]]:
    """A set of ranges for each subnet."""
    return [[{"subnet": subnet}] for subnet in subnets]


def _given(wanted: Wanted, words: str) -> dict[str, Any]:
    if not wanted.subnets:
        raise refused(words, GIVE)
    return {"type": IPAM_PLUGIN, "ranges": ranges(wanted.subnets)}


def subnet(written: object, path: str) -> IPNetwork:
    """A prefix of the source.

    :raises CniError: INVALID_CONFIG.
    """
    try:
        return IPNetwork(text(written, path)).cidr
    except (AddrFormatError, ValueError):
        raise refused(f"{path}: {written} is not a prefix", "write network/length") from None


def bare(address: str) -> str:
    """An address without its length: Docker writes some gateways with it."""
    return address.partition("/")[0]
