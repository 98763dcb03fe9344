"""How each promise of a network is tried."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from cni_v6.attachments.context import Context
from cni_v6.config.main import MainConf
from cni_v6.ctl.connectivity.exchange import Exchange, tapping
from cni_v6.ctl.connectivity.stage import IFNAME, TRIAL, Beyond, Container
from cni_v6.kernel.netns.throwaway import Own, Place
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetAddresses, GetLink, GetRoutes
from cni_v6.net import packets
from cni_v6.plan import firewall, promises
from cni_v6.plan.promises import SERVICE, Promise, Seen

# Of documentation, so nobody has them: RFC 5737, RFC 3849. A MAC of nobody: locally administered.
STRANGER = {4: "203.0.113.7", 6: "2001:db8:6e:6f::7"}
STRANGER_MAC, FALSE_PREFIX = "02:00:00:00:6e:6f", "2001:db8:6e:70::"
DISCARD = 9


@dataclass(frozen=True, slots=True)
class Stage:
    """Where it is tried. ``servers``: TCP sockets that listen on the host beyond, by family."""

    conf: MainConf
    first: Container
    second: Container
    beyond: Beyond
    servers: Mapping[int, socket.socket]
    port: int
    node: Context


def seen(promise: Promise, stage: Stage, exchange: Exchange) -> Seen:
    """Try a promise."""
    return promises.untried(promise) or _TRIED[promise.kind](promise, stage, exchange)


def _ping(promise: Promise, stage: Stage, exchange: Exchange) -> Seen:
    return exchange.echo(stage.first.place, promise.target, wanted=promise.wanted)


def _neighbour(promise: Promise, stage: Stage, exchange: Exchange) -> Seen:
    """Of a routed network, ``isolated`` lets pings pass as ``published`` does, so a connection has to fail."""
    if promise.wanted or stage.conf.segment or not stage.conf.is_isolated:
        return _ping(promise, stage, exchange)
    return exchange.refused(stage.second.place, stage.first.address(promise.family), SERVICE)


def _outside(promise: Promise, stage: Stage, exchange: Exchange) -> Seen:
    found = exchange.echo(stage.first.place, promise.target, wanted=promise.wanted)
    if promise.wanted and not found.passes and not exchange.echo(Own(), promise.target).passes:
        return Seen(None, f"{promise.target} does not answer the node itself")
    return found


def _beyond(promise: Promise, stage: Stage, exchange: Exchange) -> Seen:
    server = stage.servers[promise.family]
    found = exchange.called_as(stage.first.place, promise.target, SERVICE, server, wanted=promise.wanted)
    if found.passes and promise.wanted and found.words.rpartition(" ")[2] != promise.seen_as:
        return Seen(False, f"{found.words}, not as {promise.seen_as}")
    return found


def _ingress(promise: Promise, stage: Stage, exchange: Exchange) -> Seen:
    try_it = exchange.call if promise.wanted else exchange.refused
    return try_it(stage.beyond.place, promise.target, SERVICE)


def _port(place: Callable[[Stage], Place]) -> Callable[[Promise, Stage, Exchange], Seen]:
    def tried(promise: Promise, stage: Stage, exchange: Exchange) -> Seen:
        return exchange.call(place(stage), promise.target, stage.port)

    return tried


def _dns(promise: Promise, stage: Stage, exchange: Exchange) -> Seen:
    return exchange.asked(stage.first.place, promise.target)


def _mtu(promise: Promise, stage: Stage, exchange: Exchange) -> Seen:
    place = stage.first.place
    link = stage.node.kernel.observe([GetLink(place.path, IFNAME)]).link(place.path, IFNAME)
    size = (link.mtu if link else 0) - packets.HEADERS[promise.family]
    return exchange.echo(place, promise.target, max(0, size), whole=True)


# Forgeries


@contextmanager
def _tap(promise: Promise, stage: Stage) -> Iterator[tuple[socket.socket, str]]:
    """A packet socket where a forgery would arrive, and the MAC there."""
    if promise.target in (stage.second.address(promise.family), stage.second.mac):
        place: Place = stage.second.place
        ifname, mac = IFNAME, stage.second.mac
    elif promise.target in (TRIAL[family][1] for family in stage.beyond.families):
        place, ifname, mac = stage.beyond.place, IFNAME, ""
    else:
        place, ifname = Own(), stage.conf.gateway_interface
        link = stage.node.kernel.observe([GetLink(HOST, ifname)]).link(HOST, ifname)
        mac = link.mac if link else ""
    with tapping(place, ifname) as made:
        yield made, mac


def _source(promise: Promise, stage: Stage, exchange: Exchange) -> Seen:
    family = promise.family
    ends = stage.first.address(family), STRANGER[family], promise.target
    with _tap(promise, stage) as (tap, _):
        return exchange.forged_datagram(stage.first.place, ends, tap, DISCARD)


def _mac(promise: Promise, stage: Stage, exchange: Exchange) -> Seen:
    own, marks = stage.first.mac, (os.urandom(16), os.urandom(16))
    with _tap(promise, stage) as (tap, mac):
        forged, honest = (_frame(source, mac, promise, stage, mark)
                          for source, mark in zip((STRANGER_MAC, own), marks))
        return exchange.forged_frame(stage.first.place, (forged, honest), marks, tap,
                                     f"a frame from {STRANGER_MAC}, sent by {own}")


def _frame(source: str, mac: str, promise: Promise, stage: Stage, mark: bytes) -> bytes:
    if not promise.family:
        return packets.ethernet(source, mac, packets.TRIAL, mark.ljust(46, b"\0"))
    kind = packets.IPV6 if promise.family == 6 else packets.IPV4
    packet = packets.udp(stage.first.address(promise.family), promise.target, DISCARD, mark)
    return packets.ethernet(source, mac, kind, packet)


def _advertisement(promise: Promise, stage: Stage, exchange: Exchange) -> Seen:
    own, mark = stage.first.mac, os.urandom(16)
    forged = packets.router_advertisement(firewall.link_local(own), own, FALSE_PREFIX)
    if not stage.conf.segment:
        return _believed(forged, stage, exchange)
    with _tap(promise, stage) as (tap, mac):
        frames = forged, _frame(own, mac, promise, stage, mark)
        marks = packets.packed(FALSE_PREFIX), mark
        found = exchange.forged_frame(stage.first.place, frames, marks, tap, "a router advertisement")
    if found.passes and not stage.conf.firewall.guard:  # it may be sent then, but nobody is to believe it
        routes = _learnt(stage, stage.second.place.path, IFNAME)
        return Seen(bool(routes), f"a router advertisement arrives, and its neighbour {_has(routes)}")
    return found


def _believed(forged: bytes, stage: Stage, exchange: Exchange) -> Seen:
    """Whether the node takes a container for a router: it has, once it hears what that says after the advertisement."""
    with stage.first.place.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as made:
        made.bind((IFNAME, 0))
        made.send(forged)
    answered = exchange.echo(Own(), stage.first.address(6))
    routes = _learnt(stage, HOST, stage.first.host)
    if not answered.passes and not routes:
        return Seen(None, f"the node hears nothing of {stage.first.address(6)} after a router advertisement")
    return Seen(bool(routes), f"after a router advertisement the node {_has(routes)}")


def _learnt(stage: Stage, netns: str, ifname: str) -> list[str]:
    """What an interface has of the false prefix."""
    found = stage.node.kernel.observe([GetRoutes(netns, ifname), GetAddresses(netns, ifname)])
    prefix = FALSE_PREFIX.removesuffix("::")
    held = [*(route.dst for route in found.routes(netns, ifname)), *found.addresses(netns, ifname)]
    return [text for text in held if text.startswith(prefix)]


def _has(routes: list[str]) -> str:
    return f"has {', '.join(routes)}" if routes else "takes no address and no route from it"


_TRIED: Mapping[str, Callable[[Promise, Stage, Exchange], Seen]] = {
    promises.NEIGHBOUR: _neighbour, promises.GATEWAY: _ping, promises.NODE: _ping, promises.OUTSIDE: _outside,
    promises.BEYOND: _beyond, promises.INGRESS: _ingress,
    promises.PORT_NODE: _port(lambda stage: Own()), promises.PORT_OUTSIDE: _port(lambda stage: stage.beyond.place),
    promises.HAIRPIN: _port(lambda stage: stage.first.place),
    promises.DNS: _dns, promises.MTU: _mtu, promises.SOURCE: _source, promises.MAC: _mac,
    promises.ADVERTISEMENT: _advertisement,
}
