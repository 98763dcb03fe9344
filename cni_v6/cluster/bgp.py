"""The carrier ``bgp``: a daemon, BIRD 2, announces the node's blocks, and makes the routes to those that it learns.

The agent writes one file, which the daemon's own configuration includes, and tells it to read that. The file has a
tag, a hash of its content, as the description of a protocol. So the daemon itself says whether it has read the file.

Our tables are not those whose routes get to the kernel: there the node's own blocks, which are unreachable in our
tables, would win over the interface of the containers. A pipe copies what BGP has learnt.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from netaddr import IPNetwork

from cni_v6.cluster.bird_messages import OURS, Running
from cni_v6.cluster.config import AgentConf, Peer, Pool, SpeakerConf
from cni_v6.cluster.facts import Underlay
from cni_v6.cluster.keys import BGP
from cni_v6.config.formats import UNNUMBERED
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.net.addresses import BITS, is_link_local

HEAD = "# cni-v6ctl agent writes this file, and replaces it.\n"
IDLE = f"{HEAD}# This node announces nothing.\n"
LINK_LOCAL = "fe80::/10"
LAST_IDENTIFIER = 0xDFFF_FFFF  # of BGP: FRR takes no multicast address for one
_IFNAME = re.compile("[0-9A-Za-z._@-]+")
# A node that is back is to be reached soon. By itself BIRD waits for 5 seconds, after errors for 60 and up to 300.
_TIMES = ("hold time 90;", "connect delay time 1;", "connect retry time 5;", "error wait time 1, 5;")
# By router advertisements the other side learns who is there. A lifetime of 0 makes the node nobody's router.
_RADV = "default lifetime 0; min ra interval 3; max ra interval 10;"
_BFD = "bfd { interval 200 ms; multiplier 4; };"  # a silent peer is noticed after 0.8 seconds


class Speaker(Protocol):
    """The daemon. What cannot be done, or is refused, is a CniError."""

    def running(self) -> Running | None:
        """What it does; None if it does not run."""
        ...

    def read(self) -> str | None:
        """The file; None if there is none."""
        ...

    def check(self, text: str) -> None:
        """Ask the daemon whether it would take this text for a file."""
        ...

    def replace(self, text: str) -> None:
        """Write the file."""
        ...

    def reload(self) -> bool:
        """Let it read its configuration. False: that is not over yet."""
        ...


def announce(
    speaker: Speaker | None, conf: AgentConf, blocks: Sequence[str], underlay: Underlay | None, ways: Sequence[Pool]
) -> Iterator[str]:
    """Announce blocks, and no other ones; yields what is in the way.

    :param ways: the pools of other clusters to learn blocks of.
    """
    if speaker is None or conf.bgp is None:
        return
    text = IDLE
    if blocks and conf.carrier == BGP:
        if underlay is None:
            return  # what was written before may be right
        try:
            text = render(conf, conf.bgp, blocks, underlay.ifname, ways)
        except CniError as error:
            yield str(error)
            return
    yield from synchronize(speaker, conf.bgp, text, [pool.family for pool in conf.pools])


def synchronize(speaker: Speaker, conf: SpeakerConf, text: str, families: Iterable[int]) -> Iterator[str]:
    """Make the file as it must be, and the daemon read it; yields what is in the way. Nothing is done twice.

    :param text: ``render``, or IDLE.
    :param families: those of the pools.
    """
    try:
        running = _bring(speaker, conf, text)
    except CniError as error:
        yield str(error)
        return
    if running and text != IDLE:
        yield from _missing(running, conf, families)


def _bring(speaker: Speaker, conf: SpeakerConf, text: str) -> Running | None:
    """
    :returns: what the daemon does after that; None if that is to be seen later.
    :raises CniError: what is in the way.
    """
    written = speaker.read()
    if text == IDLE and written not in (None, IDLE):
        speaker.replace(text)  # also if the daemon does not run: it must not announce anything when it starts
    running = speaker.running()
    if running is None:
        if text == IDLE:
            return None
        raise CniError(INVALID_CONFIG, f"BIRD does not run: nothing listens at {conf.socket}",
                       "start it (systemctl start bird), or write its control socket in bgp.socket")
    if text not in (written, IDLE):
        try:
            speaker.check(text)
        except CniError:
            if set(_announced(written or "")) - set(_announced(text)):  # blocks that are no longer the node's
                speaker.replace(IDLE)
                speaker.reload()
            raise
        speaker.replace(text)
    if running.tag == tag_of(text):
        return running
    if not speaker.reload() or text == IDLE:
        return None
    running = speaker.running()
    if running and running.tag != tag_of(text):
        raise CniError(INVALID_CONFIG, f"BIRD does not read {conf.file}",
                       f'add this line to its configuration (/etc/bird/bird.conf): include "{conf.file}";')
    return running


def _missing(running: Running, conf: SpeakerConf, families: Iterable[int]) -> Iterator[str]:
    """What a BIRD has once, and so is the operator's."""
    for family in families:
        if f"master{family}" not in running.kernels:
            yield (f"BIRD gives the kernel no routes of IPv{family}: add this line to its configuration: "
                   f"protocol kernel {{ ipv{family} {{ export all; }}; }}")
    if any(peer.bfd for peer in conf.peers) and not running.bfd:
        yield "bgp.peers: bfd is true, but BIRD has no BFD: add this line to its configuration: protocol bfd { }"


def _announced(text: str) -> list[str]:
    """The blocks that a text announces."""
    return re.findall("^\troute (.+) unreachable;$", text, re.MULTILINE)


def tag_of(text: str) -> str:
    """The tag that the daemon shows once it has read a text; "" for one without."""
    found = re.search('description "cni-v6 ([0-9a-f]+)";', text)
    return found[1] if found else ""


def render(
    conf: AgentConf, speaker: SpeakerConf, blocks: Sequence[str], ifname: str, others: Sequence[Pool] = ()
) -> str:
    """The file.

    :param blocks: those of the node, in the order of the pools; one at least. Each is a block of a pool.
    :param ifname: the interface to the peers.
    :param others: the pools of other clusters whose blocks are taken.
    :raises CniError: INVALID_CONFIG.
    """
    identifier = _identifier(conf, blocks[0])
    parts = [part for pool in conf.pools for part in _table(pool, _of_pool(pool, blocks))]
    for number, peer in enumerate(speaker.peers, 1):
        name = f"{OURS}peer{number}"
        parts.append(_block(f"protocol bgp {name}", [
            f"router id {identifier};", f"local as {speaker.asn};", *_neighbor(peer, name, ifname),
            *_session(peer, speaker.asn), *_TIMES,
            *(_channel(pool, _of_pool(pool, blocks), others) for pool in conf.pools),
        ]))
    if any(peer.address == UNNUMBERED for peer in speaker.peers):
        parts.append(_block(f"protocol radv {OURS}radv", [f'interface "{ifname}" {{ {_RADV} }};']))
    body = "".join(parts)
    tag = hashlib.sha256(body.encode()).hexdigest()[:16]
    first = f"protocol static {OURS}blocks{conf.pools[0].family} {{\n"
    return HEAD + body.replace(first, f'{first}\tdescription "cni-v6 {tag}";\n')


def _of_pool(pool: Pool, blocks: Iterable[str]) -> list[str]:
    return [block for block in blocks if pool.is_block(block)]


def _block(head: str, lines: Iterable[str]) -> str:
    return f"{head} {{\n" + "".join(f"\t{line}\n" for line in lines) + "}\n"


def _table(pool: Pool, blocks: Sequence[str]) -> Iterator[str]:
    """A table, the node's blocks in it, and the way from it to the kernel."""
    family = pool.family
    name = f"{OURS}{family}"
    yield f"ipv{family} table {name};\n"
    yield _block(f"protocol static {OURS}blocks{family}", [
        f"ipv{family} {{ table {name}; }};", *(f"route {block} unreachable;" for block in blocks),
    ])
    yield _block(f"protocol pipe {OURS}routes{family}", [
        f"table master{family};", f"peer table {name};", "import where source = RTS_BGP;", "export none;",
    ])


def _neighbor(peer: Peer, name: str, ifname: str) -> Iterator[str]:
    if peer.address == UNNUMBERED:
        yield f"neighbor range {LINK_LOCAL} as {peer.asn};"
        yield f'dynamic name "{name}_";'
    else:
        yield f"neighbor {peer.address} as {peer.asn};"
        if not is_link_local(peer.address):
            return
    if not _IFNAME.fullmatch(ifname):
        raise CniError(INVALID_CONFIG, f"interface {ifname!r} cannot be named in BIRD's configuration",
                       "rename it, or write addresses of the peers that are not link-local")
    yield f'interface "{ifname}";'


def _session(peer: Peer, asn: int) -> Iterator[str]:
    yield "direct;"
    if peer.asn != asn:
        yield "allow local as 1;"  # the other nodes may have the same
    if peer.ttl_security:
        yield "ttl security on;"
    if peer.bfd:
        yield _BFD
    if peer.include:
        yield f'include "{peer.include}";'


def _channel(pool: Pool, blocks: Sequence[str], others: Iterable[Pool]) -> str:
    """Only blocks of the pool are taken, and none of the node itself: no peer can draw other packets.

    :param others: pools of other clusters, whose blocks are taken too.
    """
    family = pool.family
    taken = (pool, *(other for other in others if other.family == family))
    accepted = f"net ~ [ {', '.join(f'{known.cidr}{{{known.block},{known.block}}}' for known in taken)} ]"
    if blocks:
        accepted += f" && !(net ~ [ {', '.join(blocks)} ])"
    lines = [
        f"table {OURS}{family};", *(("extended next hop on;",) if family == 4 else ()),  # RFC 8950
        f"import where {accepted};", "export where source = RTS_STATIC;",
    ]
    return f"ipv{family} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t};"


def _identifier(conf: AgentConf, block: str) -> str:
    """BGP's identifier of the node, which no other node has (RFC 6286): it need be no address.

    The number of a block in its pool, counted from a number that follows from the pool: nodes of other clusters may
    speak to the same routers. In a pool of more than 2**32 blocks it is as good as random.
    """
    pool = conf.pool_of(block)
    assert pool
    number = IPNetwork(block).first - IPNetwork(pool.cidr).first >> BITS[pool.family] - pool.block
    first = int.from_bytes(hashlib.sha256(pool.cidr.encode()).digest()[:4], "big")
    value = (first + number) % LAST_IDENTIFIER + 1
    return ".".join(str(value >> shift & 0xFF) for shift in (24, 16, 8, 0))
