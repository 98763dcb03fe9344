"""The allocator's state as JSON: used addresses and the round. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from math import isfinite
from typing import Any

from cni_v6.allocation.permutation import KEY_BYTES
from cni_v6.allocation.used import RandomOrder, UsedAddresses
from cni_v6.net import addresses
from cni_v6.net.intervals import Span, merged

WIDTH = 256  # a file keeps its length from one address to the next, so that it can be overwritten in place

_DAMAGED = (KeyError, TypeError, ValueError, RecursionError, OverflowError)


def encode_spent(spent: UsedAddresses, family: int) -> bytes:
    """What has to survive a power failure, with the time."""
    drawn = [{"key": each.key.hex(), "of": _to_texts(each.spans, family), "to": each.to} for each in spent.draws]
    content = {"spent": _to_texts(spent.intervals, family), "at": spent.at, **({"drawn": drawn} if drawn else {})}
    return json.dumps(content).encode() + b"\n"


def encode_open(spent: UsedAddresses, family: int, boot: str, file: int) -> bytes:
    """What is worth nothing after a power failure, and says so by the boot id; nor beside another ``spent``.

    :param file: the inode of the file with the other part.
    """
    return _padded({
        "boot": boot, "file": file, "gap": spent.gap, "open": _to_texts(spent.open, family),
        "settled": [addresses.to_text(family, each) for each in spent.settled],
        **({"next": [each.next for each in spent.draws]} if spent.draws else {}),
    })


def encode_round(spans: Iterable[Span], family: int) -> bytes:
    """What the sets that go round have handed out in this round."""
    return _padded({"round": _to_texts(spans, family)})


def decode(content: bytes, opened: bytes, family: int, boot: str, file: int, now: float) -> UsedAddresses:
    """Read both back.

    :param opened: may be anything; only what was written in this boot, beside this very file, is believed.
    :param now: seconds since the epoch.
    :raises ValueError: ``content`` is damaged.
    """
    intervals, draws, written = _durable(content, family)
    at = now if written is None else written
    spent = UsedAddresses(intervals, draws=draws, at=at, gap=int(max(0.0, now - at)))
    try:
        raw = json.loads(opened)
        if (raw["boot"], raw["file"]) != (boot, file):
            return spent
        left = merged(_from_texts(raw["open"], family))
        places = [int(each) for each in raw.get("next", ())]
        settled, gap = tuple(_value(each, family) for each in raw["settled"]), int(raw["gap"])
    except _DAMAGED:
        return spent
    if len(places) != len(draws) or any(not 0 <= place <= each.to for place, each in zip(places, draws)):
        return spent
    return replace(
        spent, open=tuple(part for part in left if spent.covers(*part)), gap=gap, settled=settled,
        draws=tuple(replace(each, next=place) for each, place in zip(draws, places)),
    )


@lru_cache(maxsize=16)  # it changes once in some thousand addresses
def _durable(content: bytes, family: int) -> tuple[tuple[Span, ...], tuple[RandomOrder, ...], float | None]:
    """Intervals, draws, and when that was; None in an older version's, of an hour that is not known."""
    try:
        raw = json.loads(content)
        intervals = merged(_from_texts(raw["spent"], family))
        draws = tuple(_draw(each, family) for each in raw.get("drawn", ()))
        at = float(raw["at"]) if "at" in raw else None
        if at is not None and not isfinite(at):
            raise ValueError(f"at {at}")
        return intervals, draws, at
    except _DAMAGED as error:
        raise ValueError(str(error)) from error


def decode_round(content: bytes, family: int) -> tuple[Span, ...]:
    """Read it back; nothing where it is damaged: then addresses that were released wait only in the queue."""
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
    found, value = addresses.from_text(text)
    if found != family:
        raise ValueError(text)
    return value
