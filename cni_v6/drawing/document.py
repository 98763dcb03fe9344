"""What is drawn, as JSON: for ``--json``, and for the page, which also gets the levels of each address space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cni_v6.drawing import hilbert
from cni_v6.drawing.cluster import Member
from cni_v6.drawing.draw_burn import rate
from cni_v6.drawing.draw_space import caption, digits, totals
from cni_v6.drawing.draw_topology import name
from cni_v6.drawing.node import Container, NodeMap, Segment
from cni_v6.drawing.picture import Facts, Shown
from cni_v6.drawing.space import USED, Level, Space, levels, words
from cni_v6.net.addresses import BITS, to_text

Document = dict[str, Any]


def facts_of(facts: Facts) -> Document:
    """All facts."""
    return {
        "time": facts.now,
        **_node(facts.node),
        "addressSpaces": [_space(shown) for shown in facts.spaces],
        "networksWithoutConfiguration": list(facts.unknown),
        "cluster": None if facts.cluster is None else [_member(member) for member in facts.cluster],
    }


def _member(member: Member) -> Document:
    return {
        "node": member.name, "state": member.state, "carrier": member.carrier, "addresses": list(member.addresses),
        "blocks": [{"prefix": block.prefix, "leases": block.leases, "room": block.room} for block in member.blocks],
        "answers": list(member.answers),
    }


def _node(node: NodeMap) -> Document:
    return {
        "node": node.name,
        "firewallLoaded": node.firewall,
        "uplinks": [
            {"interface": uplink.name, "up": uplink.up, "mtu": uplink.mtu, "addresses": list(uplink.addresses),
             "defaultRoutes": [{"family": family, "gateway": gateway} for family, gateway in uplink.gateways]}
            for uplink in node.uplinks
        ],
        "segments": [_segment(segment) for segment in node.segments],
    }


def _segment(segment: Segment) -> Document:
    return {
        "kind": segment.kind,
        "name": segment.name,
        "up": segment.up,
        "mtu": segment.mtu,
        "addresses": list(segment.addresses),
        "networks": list(segment.networks),
        "leaves": [{"family": way.family, "uplinks": list(way.uplinks), "how": list(way.how)}
                   for way in segment.leaving],
        "policies": [{"policy": policy, "containers": count} for policy, count in segment.policies],
        "attachments": [_container(container) for container in segment.containers],
    }


def _container(container: Container) -> Document:
    owner = container.owner
    return {
        "network": owner.network,
        "containerID": owner.container_id,
        "ifname": owner.ifname,
        "hostInterface": container.host,
        "addresses": list(container.addresses),
        "prefixes": list(container.prefixes),
        "created": container.created,
        "state": container.state,
        "problem": container.problem,
        "publishedPorts": [
            {"protocol": port.protocol, "hostIP": port.host_ip, "hostPort": port.host_port,
             "containerPort": port.container_port} for port in container.ports
        ],
        "policies": list(container.policies),
    }


def _space(shown: Shown) -> Document:
    space, usage = shown.space, shown.usage
    return {
        "network": space.network,
        "prefix": space.prefix,
        "set": space.number,
        "order": usage.order,
        "reused": not usage.once,
        "counts": dict(space.counts()),
        "notShown": space.omitted,
        "given": [[time, number] for time, number in shown.growth.points],
        "givenIsComplete": shown.growth.complete,
        "ratePerSecond": float(usage.rate) if usage.rate else None,
        "years": float(usage.years) if usage.years is not None else None,
    }


# For the page


def for_page(facts: Facts) -> Document:
    """The facts with all that the page's script looks up, so that it calculates no address itself.

    ``where``: address -> number of its space, and the level that shows it.
    """
    document = facts_of(facts)
    where: dict[str, tuple[int, str]] = {}
    shapes: dict[int, Sequence[hilbert.Point]] = {}
    for number, shown in enumerate(facts.spaces):
        known = {}
        for level in levels(shown.space):
            key = _key(shown.space, level.first, level.length)
            known[key] = _level(shown.space, level)
            shapes[level.bits] = hilbert.grid(level.bits)
            where |= {to_text(shown.space.family, cell.first): (number, key) for cell in level.cells
                      if cell.state == USED and cell.length == BITS[shown.space.family]}
        for key, level_document in list(known.items()):
            for cell in level_document["cells"]:
                inside = known.get(cell["key"])
                if inside:
                    inside["parent"] = key
                else:
                    cell["key"] = ""
        about = {"levels": known, "totals": totals(shown.space), "rate": rate(shown.usage)}
        document["addressSpaces"][number] |= about
    for segment in document["segments"]:
        for container in segment["attachments"]:
            container["name"] = name(container["network"], f"{container['containerID']} {container['ifname']}".rstrip())
    return {**document, "where": where, "shapes": {str(bits): shape for bits, shape in shapes.items()}}


def _key(space: Space, first: int, length: int) -> str:
    return f"{to_text(space.family, first)}/{length}"


def _level(space: Space, level: Level) -> Document:
    """``key`` of a cell: the level that it is, which not every cell has."""
    return {
        "bits": level.bits,
        "about": caption(space, level)[1],
        "parent": "",
        "cells": [
            {"place": cell.place, "state": cell.state, "whole": cell.whole, "words": words(space, cell),
             "digits": digits(space, cell), "key": _key(space, cell.first, cell.length)}
            for cell in level.cells
        ],
    }
