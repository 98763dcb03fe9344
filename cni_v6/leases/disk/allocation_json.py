"""The allocator's state as JSON: used addresses and the round. Pure.

What was written is mostly read next, by the same engine: the values of the latest contents are remembered. A file with
any other content is read as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple

from cni_v6.allocation.permutation import KEY_BYTES
from cni_v6.allocation.used import RandomOrder, UsedAddresses
from cni_v6.net import addresses
from cni_v6.net.intervals import Span, merged

WIDTH = 256  # files are padded to a multiple of this, so that most updates keep the length and overwrite in place

KEPT = 64  # contents that are remembered, of each kind

_DAMAGED = (KeyError, TypeError, ValueError, RecursionError, OverflowError)


class _Open(NamedTuple):
    """What an ``open`` file says. ``next``: the position of each random order."""

    boot: str
    file: int
    open: tuple[Span, ...]
    next: tuple[int, ...]
    gap: int
    settled: tuple[int, ...]


_opens: dict[tuple[bytes, int], _Open] = {}  # by content and family
_rounds: dict[tuple[bytes, int], tuple[Span, ...]] = {}


def encode_spent(used: UsedAddresses, family: int) -> bytes:
    """The part that must survive a power failure, with the time of writing."""
    drawn = [{"key": order.key.hex(), "of": _to_texts(order.spans, family), "to": order.to} for order in used.draws]
    content = {"spent": _to_texts(used.intervals, family), "at": used.at, **({"drawn": drawn} if drawn else {})}
    return json.dumps(content).encode() + b"\n"


def encode_open(used: UsedAddresses, family: int, boot: str, file: int) -> bytes:
    """The part that is valid only in this boot, and only beside the same ``spent`` file.

    :param file: the identity of the ``spent`` file.
    """
    places = tuple(order.next for order in used.draws)
    content = _padded({
        "boot": boot, "file": file, "gap": used.gap, "open": _to_texts(used.open, family),
        "settled": [addresses.to_text(family, first) for first in used.settled],
        **({"next": places} if places else {}),
    })
    _make_room(_opens)
    _opens[content, family] = _Open(boot, file, used.open, places, used.gap, used.settled)
    return content


def encode_round(spans: tuple[Span, ...], family: int) -> bytes:
    """The addresses that sequential sets with reuse have handed out in this round.

    :param spans: sorted and disjoint, with gaps between them.
    """
    content = _padded({"round": _to_texts(spans, family)})
    _make_room(_rounds)
    _rounds[content, family] = spans
    return content


def _make_room(known: dict[Any, Any]) -> None:
    if len(known) >= KEPT:
        known.clear()


def decode(content: bytes, opened: bytes, family: int, boot: str, file: int, now: float) -> UsedAddresses:
    """Read both parts back.

    :param opened: the ``open`` file. It is ignored unless it was written in this boot and beside this ``spent`` file.
    :param now: seconds since the epoch.
    :raises ValueError: ``content`` is damaged.
    """
    intervals, draws, written = _durable(content, family)
    at = now if written is None else written
    used = UsedAddresses(intervals, draws=draws, at=at, gap=int(max(0.0, now - at)))
    rest = _opens.get((opened, family)) or _rest(opened, family)
    if rest is None or (rest.boot, rest.file) != (boot, file) or len(rest.next) != len(draws):
        return used
    if any(not 0 <= place <= order.to for place, order in zip(rest.next, draws)):
        return used
    left = tuple(span for span in rest.open if used.covers(*span))
    moved = tuple(replace(order, next=place) for order, place in zip(draws, rest.next))
    return UsedAddresses(intervals, left, moved, at, rest.gap, rest.settled)


def _rest(content: bytes, family: int) -> _Open | None:
    """What an ``open`` file says; None if it is damaged."""
    try:
        raw = json.loads(content)
        return _Open(
            raw["boot"], raw["file"], merged(_from_texts(raw["open"], family)),
            tuple(int(place) for place in raw.get("next", ())), int(raw["gap"]),
            tuple(_value(text, family) for text in raw["settled"]),
        )
    except _DAMAGED:
        return None


@lru_cache(maxsize=16)  # the file changes once in some thousand addresses
def _durable(content: bytes, family: int) -> tuple[tuple[Span, ...], tuple[RandomOrder, ...], float | None]:
    """Intervals, random orders and the time of writing; None for a file of an older version, which has no time."""
    try:
        raw = json.loads(content)
        intervals = merged(_from_texts(raw["spent"], family))
        draws = tuple(_draw(order, family) for order in raw.get("drawn", ()))
        at = float(raw["at"]) if "at" in raw else None
        if at is not None and not isfinite(at):
            raise ValueError(f"at {at}")
        return intervals, draws, at
    except _DAMAGED as error:
        raise ValueError(str(error)) from error


def decode_round(content: bytes, family: int) -> tuple[Span, ...]:
    """Read the round back; empty if it is damaged. Released addresses are then known from the queue alone."""
    known = _rounds.get((content, family))  # in one step: another network's call may make room meanwhile
    if known is not None:
        return known
    try:
        return merged(_from_texts(json.loads(content)["round"], family))
    except _DAMAGED:
        return ()


def _draw(raw: dict[str, Any], family: int) -> RandomOrder:
    key, to = bytes.fromhex(raw["key"]), int(raw["to"])
    spans = tuple(_from_texts(raw["of"], family))
    if len(key) != KEY_BYTES or not spans or spans != merged(spans):
        raise ValueError("drawn")
    return RandomOrder(key, spans, to, to)


def _padded(content: object) -> bytes:
    text = json.dumps(content).encode()
    return text + b" " * (-len(text) % WIDTH)


def _to_texts(intervals: Iterable[Span], family: int) -> list[tuple[str, str]]:
    return [(addresses.to_text(family, first), addresses.to_text(family, last)) for first, last in intervals]


def _from_texts(texts: Iterable[tuple[str, str]], family: int) -> Iterable[Span]:
    for first, last in texts:
        low, high = _value(first, family), _value(last, family)
        if low > high:
            raise ValueError(f"{first} to {last}")
        yield low, high


def _value(text: str, family: int) -> int:
    text_family, value = addresses.from_text(text)
    if text_family != family:
        raise ValueError(text)
    return value
