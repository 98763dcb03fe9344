"""A node's first network, as a network configuration list, each key with the reason why it is there. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

from cni_v6.config.reader import wrong
from cni_v6.errors import NODE_CONFLICT, CniError
from cni_v6.plan.first_prefix import ON_LINK, ROUTED, UNIQUE_LOCAL, Choice, Facts
from cni_v6.protocol.invocation import BRIDGE, IPAM, ROUTED as ROUTED_PLUGIN

NAME = "containers"
TYPES: Mapping[str, str] = {"bridge": BRIDGE, "routed": ROUTED_PLUGIN}
BRIDGE_NAME = 15  # linux/if.h: IFNAMSIZ, less the zero
WORDS: Mapping[str, str] = {
    ROUTED: "a prefix is routed to this node: containers have addresses of it, and nothing is translated",
    ON_LINK: "the prefix of this node is on-link: containers have a part of it, and the node answers for them "
             "(NDP proxy)",
    UNIQUE_LOCAL: "this node has no prefix for containers: they have unique local addresses, and reach the "
                  "outside with the node's address (masquerade)",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the operator says. ``kind``: a key of TYPES. ``name``: "" for the usual one; ``delegate`` 0: no prefixes."""

    kind: str
    name: str = ""
    delegate: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """A key of the configuration, by its path in the file, and why it is there."""

    key: str
    value: object
    why: str


@dataclass(frozen=True, slots=True)
class FirstNetwork:
    """``document``: the network configuration list. ``notes``: what the operator should know besides."""

    situation: str
    document: Mapping[str, Any]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]


def propose(facts: Facts, wanted: Wanted, six: Choice, four: Choice | None) -> FirstNetwork:
    """
    :param four: None for a network without IPv4.
    :raises CniError: INVALID_CONFIG for a name or a length that cannot be; NODE_CONFLICT for a name that is taken.
    """
    name = _name(facts, wanted.name)
    lines = [
        Line("cniVersion", "1.0.0", "every runtime of today knows it"),
        Line("cniVersions", ["1.0.0", "1.1.0"], "a runtime that knows 1.1.0 also calls GC and STATUS"),
        Line("name", name, "leases are kept below this name; nerdctl and podman choose the network by it"),
        Line("plugins", "", "one plugin: published ports, masquerade and the guard need no other"),
        *_plugin(facts, wanted, name, six),
        *_ipam(facts, wanted, six, four),
    ]
    return FirstNetwork(six.situation, _document(lines), tuple(lines), tuple(_notes(facts, six, four)))


# Names


def _name(facts: Facts, wanted: str) -> str:
    taken = {other.network for other in facts.others}
    if not wanted:
        names = chain((NAME,), (f"{NAME}{number}" for number in count(2)))
        return next(name for name in names if name not in taken)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", wanted):  # SPEC.md, section 1, "name"
        raise wrong("--name", wanted, "is not a name", "write letters, digits, and ._- behind the first")
    for other in facts.others:
        if other.network == wanted:
            words = f"--name {wanted}: {other.file} names this network already"
            raise CniError(NODE_CONFLICT, words, "give this one another name")
    return wanted


def _bridge(facts: Facts, name: str) -> str:
    """A name that no interface has, and no other network will give to its bridge."""
    taken = facts.links | {other.bridge for other in facts.others}
    names = chain((f"cni-{name}",), (f"cni-v6-{number}" for number in count()))
    return next(text for text in names if len(text) <= BRIDGE_NAME and text not in taken)


# Lines


def _plugin(facts: Facts, wanted: Wanted, name: str, six: Choice) -> Iterator[Line]:
    if wanted.kind == "bridge":
        yield Line("type", BRIDGE, "containers are neighbours on a bridge; --type routed gives each a link of its own "
                                   "(docs/choosing.md)")
        yield Line("bridge", _bridge(facts, name), "no interface has this name; the first ADD makes the bridge")
        yield Line("isDefaultGateway", True, "the bridge has the gateway's addresses, and containers a default route")
    else:
        yield Line("type", ROUTED_PLUGIN, "each container has a link of its own, and the node routes to it "
                                          "(docs/choosing.md)")
    yield Line("mtu", "auto", _mtu(facts))
    if six.ndp_proxy:
        words = "the router looks for each address on the link there, and the node answers for the containers"
        yield Line("ndpProxy", six.ndp_proxy, words)
    yield Line("ingress", "published", 'from outside only replies and published ports reach a container; "open" lets '
                                       "everybody in, as Kubernetes needs it")
    yield Line("masquerade", {"ipv4": "auto", "ipv6": "auto"}, "private addresses leave with the node's address: no "
               "router beyond would know the way back; global ones stay as they are")
    yield Line("capabilities", {"ips": True, "mac": True, "portMappings": True},
               "what a runtime may ask for: addresses, a MAC, published ports")


def _mtu(facts: Facts) -> str:
    smallest = min(((uplink.mtu, uplink.ifname) for uplink in facts.uplinks), default=None)
    if smallest is None:
        return "that of the uplinks at each ADD; there is none now, so it is the kernel's default"
    return f"the smallest of the uplinks at each ADD: {smallest[0]} now, of {smallest[1]}"


def _ipam(facts: Facts, wanted: Wanted, six: Choice, four: Choice | None) -> Iterator[Line]:
    yield Line("ipam.type", IPAM, "addresses are allocated in the plugin's own process")
    yield Line("ipam.ranges[0]", [six.range], six.why)
    if four:
        yield Line("ipam.ranges[1]", [four.range], f"IPv4, for what has no IPv6; {four.why}")
    if four and facts.ipv6_off:
        yield Line("ipam.required", ["ipv4"], "IPv6 is off on this node: containers are attached without it until it "
                                              "is on")
    if wanted.delegate:
        length = int(six.subnet.partition("/")[2])
        if not max(length, 64) < wanted.delegate <= 127:
            raise wrong("--delegate", wanted.delegate, f"is no length of a prefix in {six.subnet}",
                        f"write one from {max(length, 64) + 1} to 127")
        yield Line("ipam.delegate", wanted.delegate, f"each container also gets a /{wanted.delegate} of its own, "
                                                     "which the node routes to it")


def _document(lines: Sequence[Line]) -> Mapping[str, Any]:
    """The JSON document of the lines: keys from ``type`` on are the plugin's."""
    top: dict[str, Any] = {}
    plugin: dict[str, Any] = {}
    ipam: dict[str, Any] = {}
    for line in lines:
        key = line.key.removeprefix("ipam.")
        if line.key.startswith("ipam.ranges"):
            ipam.setdefault("ranges", []).append(line.value)
        elif line.key.startswith("ipam."):
            ipam[key] = line.value
        elif line.key == "plugins":
            top["plugins"] = [plugin]
        else:
            (plugin if "plugins" in top else top)[key] = line.value
    plugin["ipam"] = ipam
    return top


def _notes(facts: Facts, six: Choice, four: Choice | None) -> Iterator[str]:
    if facts.ipv6_off:
        yield "IPv6 is off on this node: sysctl net.ipv6.conf.all.disable_ipv6, or ipv6.disable=1 of the kernel"
    elif not facts.uplink(6):
        yield ("this node has no IPv6 default route: containers reach each other and the node over IPv6; once there "
               "is one, they reach the outside too")
    if six.situation != UNIQUE_LOCAL and six.is_private:
        yield f"{six.subnet} is unique local: it is masqueraded beyond the node"
    if four is None:
        yield "the network has no IPv4"
