"""The address space of a range set, from its whole subnet down to single addresses: what is in use, what was, what is
kept back.

A level is a prefix in up to 256 cells, so that every cell of an IPv6 prefix is two hexadecimal digits further on. Only
cells with different things in them are looked into. So the work grows with what is there, not with the 2^64 addresses
of a /64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cni_v6.allocation import ranges
from cni_v6.allocation.ranges import Range, RangeSet
from cni_v6.allocation.traces import Traces
from cni_v6.config.ipam import IpamConf
from cni_v6.leases.attachment import Attachment
from cni_v6.net import intervals
from cni_v6.net.addresses import BITS, from_text, to_text
from cni_v6.net.intervals import Span

# What an address is, the first that applies; FREE where none does.
USED, DELEGATED, WAITING, RESERVED, SPENT, OUTSIDE, FREE = (
    "used", "delegated", "waiting", "reserved", "spent", "outside", "free"
)
LABELS: Mapping[str, str] = {
    USED: "in use", DELEGATED: "delegated", WAITING: "waiting", RESERVED: "reserved", SPENT: "spent",
    OUTSIDE: "outside the range", FREE: "never touched",
}
MEANINGS: Mapping[str, str] = {
    USED: "a container has it", DELEGATED: "in a prefix that a container has", WAITING: "released, not given again yet",
    RESERVED: "gateway, ipam.reserve or ipam.exclude", SPENT: "was, or may have been, given; never again",
    OUTSIDE: "in the subnet, in no range", FREE: "never given",
}
STEP = 8  # bits of a level: 256 cells
LEVELS = 20_000  # of one space, at most


@dataclass(frozen=True, slots=True)
class Space:
    """A subnet of a range set. ``spans``: by state, without FREE; sorted, and no two have an address in common.

    ``holders``: who has an address, or what it is reserved for. ``omitted``: addresses that are spent and not shown.
    """

    network: str
    number: int
    family: int
    first: int
    length: int
    spans: Mapping[str, Sequence[Span]]
    holders: Mapping[int, str]
    omitted: int = 0

    @property
    def prefix(self) -> str:
        return f"{to_text(self.family, self.first)}/{self.length}"

    def counts(self) -> Mapping[str, int]:
        """How many addresses there are of each state."""
        found = {state: intervals.total(spans) for state, spans in self.spans.items()}
        return {**found, FREE: (1 << BITS[self.family] - self.length) - sum(found.values())}


@dataclass(frozen=True, slots=True)
class Cell:
    """A prefix of a level with something in it. ``counts``: its addresses by state, without FREE. ``state``: the first
    of them. ``whole``: all of its addresses have it."""

    place: int
    first: int
    length: int
    counts: Mapping[str, int]
    state: str
    whole: bool


@dataclass(frozen=True, slots=True)
class Level:
    """A prefix in ``2 ** bits`` cells; those that are left out are FREE."""

    first: int
    length: int
    bits: int
    cells: Sequence[Cell]


def spaces(conf: IpamConf, records: Iterable[Attachment], traces: Sequence[Traces]) -> list[Space]:
    """The spaces of a network, one for each subnet.

    :param records: of the network.
    :param traces: of each set.
    """
    known = list(records)
    found = []
    for number, (range_set, past) in enumerate(zip(conf.sets, traces)):
        subnets: dict[tuple[int, int], list[Range]] = {}
        for part in range_set.written:
            subnets.setdefault((part.network, part.prefixlen), []).append(part)
        for (network, length), parts in subnets.items():
            last = network + (1 << BITS[range_set.family] - length) - 1
            spans, holders = _spans(conf, range_set, parts, known, past)
            own = _apart(spans, (network, last))
            inside = {value: who for value, who in holders.items() if network <= value <= last}
            found.append(Space(conf.network, number, range_set.family, network, length, own, inside, past.omitted))
    return found


def _spans(
    conf: IpamConf, range_set: RangeSet, parts: Sequence[Range], records: Iterable[Attachment], past: Traces
) -> tuple[list[tuple[str, Iterable[Span]]], Mapping[int, str]]:
    """Spans by state, which may overlap; and who holds what."""
    holders: dict[int, str] = {}
    for text, who in conf.reserved.items():
        holders |= {value: f"for {who}" for value in _values([text], range_set.family)}
    gateways = ranges.gateways(range_set)
    holders |= {value: "gateway" for value in gateways}
    used, delegated = [], []
    for record in records:
        values = _values(record.addresses, range_set.family)
        holders |= {value: f"{record.owner.container_id} {record.owner.ifname}".rstrip() for value in values}
        used += values
        delegated += [span_of(prefix) for prefix in record.prefixes if range_set.family == 6]
    written, handed_out = ([(part.first, part.last) for part in some] for some in (parts, range_set.ranges))
    excluded = intervals.without(sorted(written), intervals.merged(handed_out))
    network, end = parts[0].network, parts[0].network + (1 << BITS[range_set.family] - parts[0].prefixlen) - 1
    outside = intervals.without([(network, end)], intervals.merged(written))
    return [
        (USED, ((value, value) for value in used)),
        (DELEGATED, delegated),
        (WAITING, ((value, value) for value, _ in past.waiting)),
        (RESERVED, (*excluded, *((value, value) for value in gateways))),
        (SPENT, past.spent),
        (OUTSIDE, outside),
    ], holders


def _values(texts: Iterable[str], family: int) -> list[int]:
    return [value for own, value in map(from_text, texts) if own == family]


def span_of(prefix: str) -> Span:
    """First and last address of an IPv6 prefix."""
    text, _, length = prefix.partition("/")
    first = from_text(text)[1]
    return first, first + (1 << BITS[6] - int(length)) - 1


def _apart(spans: Iterable[tuple[str, Iterable[Span]]], bounds: Span) -> dict[str, Sequence[Span]]:
    """The same inside the bounds, each address in the first of them that has it."""
    found: dict[str, Sequence[Span]] = {}
    taken: tuple[Span, ...] = ()
    for state, some in spans:
        inside = [(max(low, bounds[0]), min(high, bounds[1])) for low, high in some
                  if low <= bounds[1] and high >= bounds[0]]
        found[state] = intervals.without(intervals.merged(inside), taken)
        taken = intervals.merged((*taken, *found[state]))
    return found


# Levels


def levels(space: Space) -> Iterator[Level]:
    """The whole space first, then every cell with different things in it, those of one length after another."""
    waiting = [(space.first, space.length)]
    for _ in range(LEVELS):
        if not waiting:
            return
        first, length = waiting.pop(0)
        found = level(space, first, length)
        yield found
        waiting += [(cell.first, cell.length) for cell in found.cells if not cell.whole]


def level(space: Space, first: int, length: int) -> Level:
    """One level. Its prefixes are aligned to whole bytes below the first one."""
    rest = BITS[space.family] - length
    bits = rest % STEP or min(STEP, rest)
    shift = rest - bits
    counts: dict[int, dict[str, int]] = {}
    for state, spans in space.spans.items():
        for low, high in intervals.meeting(spans, first, first + (1 << rest) - 1):
            low, high = max(low, first), min(high, first + (1 << rest) - 1)
            for place in range(low - first >> shift, (high - first >> shift) + 1):
                start = first + (place << shift)
                amount = min(high, start + (1 << shift) - 1) - max(low, start) + 1
                inside = counts.setdefault(place, {})
                inside[state] = inside.get(state, 0) + amount
    cells = [_cell(place, first + (place << shift), length + bits, counts[place], 1 << shift)
             for place in sorted(counts)]
    return Level(first, length, bits, cells)


def _cell(place: int, first: int, length: int, counts: Mapping[str, int], size: int) -> Cell:
    state = next(iter(counts))  # in the order of the states
    return Cell(place, first, length, counts, state, counts[state] == size)


def descent(space: Space) -> list[Level]:
    """The levels from the whole space down to where most of what is in use is."""
    found = [level(space, space.first, space.length)]
    while True:
        inside = [cell for cell in found[-1].cells if not cell.whole and cell.length < BITS[space.family]]
        if not inside:
            return found
        fullest = max(inside, key=lambda cell: [cell.counts.get(state, 0) for state in (USED, WAITING, DELEGATED)])
        if not set(fullest.counts) - {OUTSIDE}:
            return found
        found.append(level(space, fullest.first, fullest.length))


# Words


def amount(number: int) -> str:
    """A number of addresses; a large one as a power of two."""
    if number < 1 << 20:
        return f"{number:,}"
    power = number.bit_length() - 1
    if number == 1 << power:
        return f"2^{power}"
    return f"about 2^{power + (number * number > 1 << 2 * power + 1)}"


def words(space: Space, cell: Cell) -> str:
    """What is in a cell, as a sentence."""
    text = to_text(space.family, cell.first)
    if cell.length == BITS[space.family]:
        who = space.holders.get(cell.first)
        return f"{text}: {LABELS[cell.state]}" + (f", {who}" if who else "")
    size = 1 << BITS[space.family] - cell.length
    if cell.whole:
        return f"{text}/{cell.length}, {amount(size)} addresses: all {LABELS[cell.state]}"
    parts = [f"{amount(count)} {LABELS[state]}" for state, count in cell.counts.items()]
    rest = size - sum(cell.counts.values())
    return f"{text}/{cell.length}, {amount(size)} addresses: " + ", ".join(
        (*parts, f"{amount(rest)} {LABELS[FREE]}") if rest else parts)
