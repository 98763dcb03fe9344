"""The configuration list for the container runtime: the operator's template with the node's blocks and MTU."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from cni_v6.allocation.policy import NEVER
from cni_v6.cluster import capacity, routes
from cni_v6.cluster.capacity import Withheld
from cni_v6.cluster.config import AgentConf
from cni_v6.cluster.facts import Underlay
from cni_v6.config.keys.ipam import DEFAULT_REUSE_AFTER
from cni_v6.config.main import OUR_IPAM
from cni_v6.config.text import FormatError, parse_prefix, seconds
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.net.addresses import BITS, version
from cni_v6.net.intervals import Span, merged
from cni_v6.protocol.json_reader import decode, shown

Document = Mapping[str, Any]
TRANSLATES = ("ipMasq", "masquerade")  # keys that make a network translate its containers' sources


def parse_template(data: bytes, path: str) -> Document:
    """
    :param path: of the file, for messages.
    :raises CniError: DECODING_FAILURE or INVALID_CONFIG.
    """
    document = decode(data, f"template {path}")
    plugins = document.get("plugins")
    if not isinstance(plugins, list) or not plugins or not isinstance(plugins[0], dict):
        raise _wrong(path, "plugins is no list of plugins", "write a configuration list, whose first plugin is cni-v6")
    ipam, mtu, kept = (plugins[0].get(key) for key in ("ipam", "mtu", "nonMasquerade"))
    if kept is not None and not isinstance(kept, list):
        raise _wrong(path, f"plugins[0].nonMasquerade is {shown(kept)}, not a list of prefixes", "write [...]")
    if not isinstance(ipam, dict):
        raise _wrong(path, f"plugins[0].ipam is {shown(ipam)}, not an object", 'write {"type": "cni-v6-ipam"}')
    for key in ("ranges", "subnet"):
        if key in ipam:
            raise _wrong(path, f"plugins[0].ipam.{key} is what the agent writes", "remove it")
    if mtu is not None and mtu != "auto" and (isinstance(mtu, bool) or not isinstance(mtu, int) or mtu < 0):
        raise _wrong(path, f"plugins[0].mtu is {shown(mtu)}, not a number of bytes", "remove it, or write the most")
    return document


def has_all(conf: AgentConf, blocks: Sequence[str]) -> bool:
    """Whether there is a block of every pool among these."""
    return all(capacity.of_pool(pool, blocks) for pool in conf.pools)


def wanted(conf: AgentConf, template: Document, blocks: Sequence[str], underlay: Underlay) -> str | None:
    """The list of a node; None while it has not a block of every pool.

    :param blocks: those that containers get addresses of.
    """
    if not has_all(conf, blocks):
        return None
    ranges = [capacity.of_pool(pool, blocks) for pool in conf.pools]
    others = [pool.cidr for other in conf.clusters for pool in other.pools]
    return render(template, ranges, routes.mtu_of(conf.carrier, underlay), others)


def render(template: Document, ranges: Sequence[Sequence[str]], mtu: int, others: Sequence[str] = ()) -> str:
    """The text of the list.

    :param ranges: the node's blocks, a set of ranges for each pool, in the order of the pools.
    :param mtu: what the carrier has room for; a number in the template can only lower it.
    :param others: pools of other clusters: a network that translates sources leaves packets for them as they are.
    """
    first, *later = template["plugins"]
    least = first.get("mtu")
    limit = min(mtu, least) if isinstance(least, int) and least else mtu
    sets = [[{"subnet": block} for block in blocks] for blocks in ranges]
    plugin = {**first, "mtu": limit, "ipam": {**first["ipam"], "ranges": sets}}
    if others and any(first.get(key) for key in TRANSLATES):
        kept = first.get("nonMasquerade") or []
        plugin["nonMasquerade"] = [*kept, *(prefix for prefix in others if prefix not in kept)]
    return json.dumps({**template, "plugins": [plugin, *later]}, indent=2, ensure_ascii=False) + "\n"


# What of the template decides how full a block is


def is_ours(template: Document) -> bool:
    """Whether the addresses are allocated by us, or by the reference plugin: the leases are where we look for them."""
    return template["plugins"][0]["ipam"].get("type") in OUR_IPAM


def reuse_seconds(template: Document) -> float | None:
    """For how long a released address is not used again; None: for ever."""
    ipam = template["plugins"][0]["ipam"]
    if ipam.get("reuse") == NEVER:
        return None
    try:
        return float(seconds(ipam.get("reuseAfter") or DEFAULT_REUSE_AFTER))
    except (FormatError, TypeError):  # the plugin refuses it
        return float(seconds(DEFAULT_REUSE_AFTER))


def withheld(template: Document) -> Withheld:
    """What ``ipam.exclude`` and ``ipam.reserve`` take away. What cannot be read of them the plugin refuses."""
    ipam = template["plugins"][0]["ipam"]
    reserve = ipam.get("reserve")
    reserved = [*_spans(reserve.values() if isinstance(reserve, dict) else ())]
    every = [*_spans([ipam.get("exclude") or ()]), *reserved]
    return Withheld(_by_family(every), _by_family(reserved))


def _spans(values: Iterable[object]) -> Iterator[tuple[int, Span]]:
    """Family and span of each address or prefix in texts, or in lists of them."""
    for value in values:
        for text in value if isinstance(value, list) else [value]:
            with suppress(FormatError):
                prefix = str(text)
                family, first, length = parse_prefix(prefix if "/" in prefix else f"{prefix}/{BITS[version(prefix)]}")
                yield family, (first, first | (1 << BITS[family] - length) - 1)


def _by_family(spans: Iterable[tuple[int, Span]]) -> dict[int, Sequence[Span]]:
    return {number: merged(span for family, span in spans if family == number) for number in BITS}


def _wrong(path: str, words: str, remedy: str) -> CniError:
    return CniError(INVALID_CONFIG, f"template {path}: {words}", remedy)
