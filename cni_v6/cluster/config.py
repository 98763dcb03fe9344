"""The node agent's configuration: JSON -> frozen values. Every key is checked before the agent does anything."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

from netaddr import IPNetwork

from cni_v6.cluster.keys import AGENT, AUTO, BGP, MAX_BLOCKS, OPEN
from cni_v6.config.formats import UNNUMBERED
from cni_v6.config.json_schema import DRAFT, definitions
from cni_v6.config.reader import Reader, Section, wrong
from cni_v6.config.text import seconds
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.log import Log, counted
from cni_v6.net.addresses import BITS, overlap
from cni_v6.protocol.json_reader import decode, repeated_key

_NAME = re.compile("[0-9A-Za-z]([0-9A-Za-z._-]{0,251}[0-9A-Za-z])?")  # as of a host (RFC 1123)
_PLAIN_PATH = re.compile("[0-9A-Za-z/._+@-]+")
# Addresses of a block that no container gets: the network's and the gateway's, and of IPv4 the broadcast address.
_UNUSED = {6: 2, 4: 3}
LARGE = 1 << 20  # a block with more room never gets full, so nobody asks how full it is


@dataclass(frozen=True, slots=True)
class Pool:
    """A prefix that the nodes share, in canonical form, and the prefix length of its blocks.

    ``given``: the store's engine gives the blocks out, and no node claims one. ``spare``: as configured, 0 for absent.
    ``most``: blocks that a node has at most.
    """

    cidr: str
    block: int
    given: bool = False
    spare: int = 0
    most: int = MAX_BLOCKS

    @property
    def family(self) -> int:
        return 6 if ":" in self.cidr else 4

    @property
    def room(self) -> int:
        """The containers that a block has room for."""
        return room(self.family, self.block)

    @property
    def low(self) -> int:
        """Fewer free addresses than this, and a node claims another block: by default before ``doctor`` warns."""
        return self.spare or max(-(-self.room // 8), min(2, self.room // 2), 1)

    @property
    def may_have_several(self) -> bool:
        """Whether a node may have several blocks: nobody counts the leases of a block that never gets full."""
        return not self.given and self.room <= LARGE

    def is_block(self, prefix: str) -> bool:
        """Whether a prefix in canonical form is one of its blocks."""
        return _is_block(self.cidr, self.block, prefix)


def room(family: int, length: int) -> int:
    """The containers that a block of this prefix length has room for."""
    return (1 << BITS[family] - length) - _UNUSED[family]


@lru_cache(1 << 14)  # each step of an agent asks for each block of the cluster
def _is_block(cidr: str, length: int, prefix: str) -> bool:
    found, pool = IPNetwork(prefix), IPNetwork(cidr)
    return bool(found.prefixlen == length and found.version == pool.version and found in pool)


@dataclass(frozen=True, slots=True)
class OtherCluster:
    """A cluster whose store is read only. ``let_in``: the prefixes of it that may reach this cluster's containers."""

    name: str
    store: str
    pools: tuple[Pool, ...]
    let_in: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Peer:
    """A router to speak to. ``include``: a file with more about it in the words of the daemon, "" for none.

    ``address``: UNNUMBERED for a router that comes by itself, from any link-local address.
    """

    address: str
    asn: int
    bfd: bool = False
    ttl_security: bool = True
    include: str = ""


@dataclass(frozen=True, slots=True)
class SpeakerConf:
    """The daemon that speaks BGP: the file that it reads, and its control socket."""

    asn: int
    peers: tuple[Peer, ...]
    file: str
    socket: str


@dataclass(frozen=True, slots=True)
class AgentConf:
    """``underlay``: an interface, "" for that of the default route. ``report_every``, ``give_back_after``: seconds, 0
    for never.

    ``bgp``: with another carrier the daemon is told to announce nothing.
    """

    pools: tuple[Pool, ...]
    carrier: str
    underlay: str
    template: str
    target: str
    state_dir: str
    bgp: SpeakerConf | None = None
    clusters: tuple[OtherCluster, ...] = ()
    report_every: int = 60
    give_back_after: int = 1800

    @property
    def has_ipv4(self) -> bool:
        return any(pool.family == 4 for pool in self.pools)

    def pool_of(self, prefix: str) -> Pool | None:
        """The pool of which a prefix in canonical form is a block; None if it is of none."""
        return pool_of(self.pools, prefix)


def pool_of(pools: Iterable[Pool], prefix: str) -> Pool | None:
    """The pool of which a prefix in canonical form is a block; None if it is of none."""
    return next((pool for pool in pools if pool.is_block(prefix)), None)


def parse(data: bytes, name: str) -> AgentConf:
    """
    :param data: the content of the file.
    :param name: of the file, for messages.
    :raises CniError: DECODING_FAILURE or INVALID_CONFIG, naming the key, the value and the remedy.
    """
    raw = decode(data, name)
    repeated = repeated_key(data)
    if repeated is not None:
        raise CniError(INVALID_CONFIG, f"{name}: {repeated} is written twice", "remove one of them")
    top = Reader(Log(), strict=True).read(AGENT, raw, "")
    conflist = top.section("conflist")
    template, target = conflist.text("template"), conflist.text("target")
    if template == target:
        raise wrong(conflist.at("target"), target, "is the template", "write the target to another file")
    pools, carrier = _pools(top.sections("pools")), top.text("carrier")
    bgp = _speaker(top.section("bgp")) if carrier == BGP or "bgp" in top.given else None
    return AgentConf(
        pools=pools,
        carrier=carrier,
        underlay="" if top.text("underlay") == AUTO else top.text("underlay"),
        template=template,
        target=target,
        state_dir=top.text("stateDir"),
        bgp=bgp,
        clusters=_clusters(top.sections("clusters"), pools),
        report_every=seconds(top.text("reportEvery")),
        give_back_after=seconds(top.text("giveBackAfter")),
    )


def schema() -> Mapping[str, Any]:
    """The JSON Schema of the file. Whatever ``parse`` takes is valid by it."""
    return {
        "$schema": DRAFT, "title": "Configuration of cni-v6ctl agent", "$ref": f"#/$defs/{AGENT.name}",
        "$defs": definitions(AGENT),
    }


def parse_node_name(text: str) -> str:
    """
    :raises CniError: INVALID_CONFIG.
    """
    if not is_node_name(text):
        raise wrong("--node", text, "is no name of a node", "write letters, digits, dots and hyphens, 253 at most")
    return text


def is_node_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def _pools(sections: Iterable[Section]) -> tuple[Pool, ...]:
    pools = tuple(_pool(section) for section in sections)
    if not pools:
        raise wrong("pools", [], "is empty", "write one pool a family, or one")
    for (first, _), (second, pool) in combinations(enumerate(pools), 2):
        if pools[first].family == pool.family:
            words = f"is IPv{pool.family}, as is pools[{first}]"
            raise wrong(f"pools[{second}].cidr", pool.cidr, words, "write one pool a family, a larger one")
    return pools


def _clusters(sections: Iterable[Section], own: Iterable[Pool]) -> tuple[OtherCluster, ...]:
    found: list[OtherCluster] = []
    taken = [(pool.cidr, "a pool of this cluster") for pool in own]
    for section in sections:
        name, pools = section.text("name"), [(of_pool, _pool(of_pool)) for of_pool in section.sections("pools")]
        if not pools:
            raise wrong(section.at("pools"), [], "is empty", "write the pools of its agents' configuration")
        if name in (other.name for other in found):
            raise wrong(section.at("name"), name, "is another cluster's name too", "write another one")
        for of_pool, pool in pools:
            _require_apart(of_pool.at("cidr"), pool.cidr, taken)
            taken.append((pool.cidr, f"a pool of cluster {name}"))
        let_in = _let_in(section, [pool.cidr for _, pool in pools])
        found.append(OtherCluster(name, section.text("store"), tuple(pool for _, pool in pools), let_in))
    return tuple(found)


def _require_apart(path: str, cidr: str, taken: Iterable[tuple[str, str]]) -> None:
    for other, whose in taken:
        if overlap(cidr, other):
            raise wrong(path, cidr, f"overlaps {other}, {whose}", "clusters that reach each other need pools apart")


def _let_in(section: Section, pools: Iterable[str]) -> tuple[str, ...]:
    given = section.texts("from")
    if section.text("ingress") != OPEN:
        if given:
            raise wrong(section.at("from"), list(given), "lets nobody in", 'write "ingress": "open" too, or remove it')
        return ()
    for number, prefix in enumerate(given):
        if not any(IPNetwork(prefix) in IPNetwork(pool) for pool in pools):
            raise wrong(f"{section.at('from')}[{number}]", prefix, f"is in no pool of {section.text('name')}",
                        f"write a prefix of {' or '.join(pools)}")
    return given or tuple(pools)


def _pool(section: Section) -> Pool:
    cidr, block = section.text("cidr"), section.number("block")
    assert block is not None
    network = IPNetwork(cidr)
    most = BITS[network.version] - 2  # as ``subnet`` of ``ipam.ranges``
    if not network.prefixlen <= block <= most:
        reason = f"is no prefix length of a block of {cidr}"
        raise wrong(section.at("block"), block, reason, f"write one from {network.prefixlen} to {most}")
    if "podCIDRs" not in section.values:  # of another cluster
        return Pool(cidr, block)
    most_blocks = section.number("maxBlocks")
    assert most_blocks is not None
    pool = Pool(cidr, block, section.flag("podCIDRs"), section.number("spare") or 0, most_blocks)
    if pool.spare > pool.most * pool.room:
        raise wrong(section.at("spare"), pool.spare, f"is more than {counted(pool.most, 'block')} of /{block} have",
                    f"write {pool.most * pool.room} at most, or more maxBlocks")
    return pool


def _speaker(section: Section) -> SpeakerConf:
    asn = section.number("as")
    if asn is None:
        raise CniError(INVALID_CONFIG, f"{section.at('as')} is missing", "write one, such as 64512")
    peers = tuple(_peer(peer) for peer in section.sections("peers"))
    if not peers:
        raise wrong(section.at("peers"), [], "is empty", "write one router at least: its address and its AS number")
    for (first, known), (second, peer) in combinations(enumerate(peers), 2):
        if known.address == peer.address:
            words = f"is that of {section.at('peers')}[{first}]"
            raise wrong(f"{section.at('peers')}[{second}].address", peer.address, words, "remove one of them")
    return SpeakerConf(asn, peers, _plain_path(section, "file"), _plain_path(section, "socket"))


def _peer(section: Section) -> Peer:
    address, asn = section.text("address"), section.number("as")
    assert asn is not None
    if address != UNNUMBERED and not _is_of_router(address):
        raise wrong(section.at("address"), address, "is no IPv6 address of a router", "IPv4 goes over IPv6 too")
    include = _plain_path(section, "include") if section.text("include") else ""
    return Peer(address, asn, section.flag("bfd"), section.flag("ttlSecurity"), include)


def _is_of_router(address: str) -> bool:
    network = IPNetwork(address)
    return network.version == 6 and network.first >> 120 not in (0x00, 0xFF)  # RFC 4291: unspecified; multicast


def _plain_path(section: Section, name: str) -> str:
    """A path that BIRD has between quotes, and takes for no pattern of names."""
    path = section.text(name)
    if not _PLAIN_PATH.fullmatch(path):
        raise wrong(section.at(name), path, "has characters that BIRD does not take in a path",
                    "write letters, digits and / . _ - + @ alone")
    return path
