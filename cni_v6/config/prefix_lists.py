"""Lists of prefixes and of what egress allows, made free of overlap; what two egress lists allow in common.

The kernel refuses an element that begins or ends within another one of its set (net/netfilter/nft_set_pipapo.c,
``nft_pipapo_insert``), so no two elements that come from one list may have anything in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, product
from typing import TypeVar

from cni_v6.config.text import parse_prefix
from cni_v6.firewall.policy import Allowed
from cni_v6.net.addresses import BITS, to_text
from cni_v6.net.intervals import Span, without

MOST = 512  # elements that one egress list may come to, of each address

Net = tuple[int, int, int]  # family, value, length: sorted, a prefix stands before those within it
_T = TypeVar("_T")


class TooMany(ValueError):
    """An egress list comes to more than MOST elements."""


def outermost(prefixes: Iterable[str]) -> tuple[str, ...]:
    """Prefixes without those that lie in another one of them, sorted.

    :raises ValueError: for what is no prefix.
    """
    return tuple(_text(net) for net in _outermost(parse_prefix(prefix) for prefix in prefixes))


def disjoint(allowed: Iterable[Allowed]) -> tuple[Allowed, ...]:
    """The same destinations, no two entries with any in common; canonical, so that equal lists give equal ones.

    :raises TooMany: when that takes too many entries.
    """
    entries = [(parse_prefix(entry.to), entry) for entry in allowed]
    anything = _outermost(net for net, entry in entries if not entry.protocol)
    pieces = limited(
        (entry.protocol, piece, entry.ports)
        for net, entry in entries if entry.protocol for piece in _without(net, anything)
    )
    made = [Allowed(_text(net)) for net in anything]
    done: list[tuple[str, Net, Span]] = []
    for protocol, net, ports in sorted(set(pieces)):
        left = [ports]
        for other, outer, taken in done:
            if other == protocol and covers(outer, net):
                left = without(left, [taken])
        done += ((protocol, net, span) for span in left)
        made += (Allowed(_text(net), protocol, span) for span in left)
    return limited(made)


def common(first: Iterable[Allowed], second: Iterable[Allowed]) -> tuple[Allowed, ...]:
    """What both lists allow. Where neither list overlaps with itself, the answer does not either.

    :raises TooMany: when that takes too many entries.
    """
    return limited(shared for a, b in product(first, second) for shared in _common(a, b))


def limited(entries: Iterable[_T]) -> tuple[_T, ...]:
    """All of them, when they are not too many.

    :raises TooMany: otherwise, without looking at the rest.
    """
    found = tuple(islice(entries, MOST + 1))
    if len(found) > MOST:
        raise TooMany(f"more than {MOST}")
    return found


def _common(a: Allowed, b: Allowed) -> Iterator[Allowed]:
    nets = parse_prefix(a.to), parse_prefix(b.to)
    first, last = max(a.ports[0], b.ports[0]), min(a.ports[1], b.ports[1])
    protocols = {a.protocol, b.protocol} - {""}
    if len(protocols) < 2 and first <= last and (covers(*nets) or covers(*reversed(nets))):
        yield Allowed(_text(max(nets)), "".join(protocols), (first, last))


def _outermost(nets: Iterable[Net]) -> list[Net]:
    kept: list[Net] = []
    for net in sorted(set(nets)):
        if not kept or not covers(kept[-1], net):
            kept.append(net)
    return kept


def _without(net: Net, holes: Sequence[Net]) -> Iterator[Net]:
    """The fewest prefixes that hold the part of ``net`` outside the holes. The holes do not overlap."""
    inside = [hole for hole in holes if covers(net, hole) or covers(hole, net)]
    if not inside:
        yield net
    elif not covers(inside[0], net):
        family, value, length = net
        for half in (value, value + (1 << BITS[family] - length - 1)):
            yield from _without((family, half, length + 1), inside)


def covers(outer: Net, inner: Net) -> bool:
    """Whether ``inner``, a prefix or an address with its full length, lies within ``outer``."""
    shift = BITS[outer[0]] - outer[2]
    return outer[0] == inner[0] and outer[2] <= inner[2] and outer[1] >> shift == inner[1] >> shift


def _text(net: Net) -> str:
    family, value, length = net
    return f"{to_text(family, value)}/{length}"
