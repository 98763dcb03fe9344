"""What ``cni-v6ctl map`` draws: the Hilbert curve, address spaces, the topology and its places, SVG and the page.

``python -m tests.unit.test_map`` draws the pictures in docs anew.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, strategies as st

from cni_v6.allocation import traces
from cni_v6.allocation.policy import DEFAULT
from cni_v6.allocation.release_queue import MemoryQueue, Released
from cni_v6.allocation.traces import MOST, Traces
from cni_v6.allocation.used import RandomOrder, UsedAddresses
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import Bandwidth
from cni_v6.drawing import draw_burn, draw_space, draw_topology, hilbert, page, picture, space as spaces, svg
from cni_v6.drawing.cluster import UNREACHED, Block, Member
from cni_v6.drawing.document import facts_of, for_page
from cni_v6.drawing.layout import WIDTH, Card, Topology, topology
from cni_v6.drawing.node import CUT_OFF, DAMAGED, ELSEWHERE, ENDED, LEASED, MASTER, UP, Container, node_map
from cni_v6.drawing.picture import Facts, Shown
from cni_v6.drawing.space import DELEGATED, FREE, OUTSIDE, RESERVED, SPENT, USED, WAITING, Level, Space
from cni_v6.drawing.tiles import FULL, SHORT, TAIL, Box, detail, tail
from cni_v6.firewall.policy import PUBLISHED, Policy, Port
from cni_v6.kernel.facts import RouteEntry, Surroundings
from cni_v6.leases.attachment import Attachment, BridgePort, ChildLink, GatewayAddress
from cni_v6.net import intervals
from cni_v6.net.addresses import from_text
from cni_v6.planning.usage import Growth, growth, usage
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner
from tests.unit import sample_pictures as sample
from tests.unit.sample_values import range_set

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("b{}", "1;")
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u202e\x1b"


# The curve


@given(st.integers(0, 8))
def test_each_cell_once_and_neighbours_stay_neighbours(bits: int) -> None:
    columns, rows = hilbert.sides(bits)
    cells = hilbert.grid(bits)
    assert sorted(cells) == [(x, y) for x in range(columns) for y in range(rows)]
    assert all(abs(x - right) + abs(y - below) == 1 for (x, y), (right, below) in zip(cells, cells[1:]))


@given(st.integers(1, 12), st.data())
def test_a_prefix_is_a_square(order: int, data: st.DataObject) -> None:
    """All of ``4 ** inner`` places that begin at a multiple of it lie in one square."""
    inner = data.draw(st.integers(0, min(order, 4)))
    start = data.draw(st.integers(0, 4 ** (order - inner) - 1)) * 4 ** inner
    cells = {hilbert.point(order, start + place) for place in range(4 ** inner)}
    assert len(cells) == 4 ** inner
    assert len({(x >> inner, y >> inner) for x, y in cells}) == 1


# What a set's past leaves


def test_traces_are_of_the_set_and_without_what_is_reserved_ahead() -> None:
    first = from_text("2001:db8::2")[1]
    used = UsedAddresses(((first - 2**80, first - 2**79), (first, first + 99)), ((first + 10, first + 99),))
    queue = MemoryQueue()
    queue.append(Released("2001:db8::9", 7.0))
    queue.append(Released("2001:db8:1::9", 8.0))
    found = traces.of(used, queue, range_set("2001:db8::/64"))
    assert found == Traces(((first + 7, 7.0),), ((first, first + 9),))


def test_a_random_order_is_computed_up_to_a_limit() -> None:
    first = from_text("2001:db8::")[1]
    inside = RandomOrder(b"k" * 32, ((first + 2, first + 2**64 - 1),), MOST + 5, MOST + 9)
    other = RandomOrder(b"k" * 32, ((0, 99),), 7, 7)  # of another set
    found = traces.of(UsedAddresses(draws=(inside, other)), MemoryQueue(), range_set("2001:db8::/64"))
    assert intervals.total(found.spent) == MOST and found.omitted == 5


# Growth


def test_growth_of_a_sequence_counts_the_released_too() -> None:
    addresses = range_set("2001:db8:1::/64")
    held = [("2001:db8:1::11", 1000.0), ("2001:db8:1::3e9", 1900.0), ("2001:db8:1::5", 1950.0), ("10.1.0.2", 1960.0)]
    seen = usage(addresses, DEFAULT, 4096, held, 2000.0, None)
    assert growth(addresses, seen, held, 2000.0) == Growth(((1000.0, 16), (1900.0, 1000), (2000.0, 4096)), True)


def test_growth_with_reuse_counts_what_is_held() -> None:
    addresses = range_set("10.1.0.0/24")
    held = [("10.1.0.9", 1000.0), ("10.1.0.2", 1500.0), ("10.1.0.3", 0.0)]
    seen = usage(addresses, DEFAULT, 0, held, 2000.0, None)
    assert growth(addresses, seen, held, 2000.0) == Growth(((1000.0, 1), (1500.0, 2), (2000.0, 2)), False)


# Address spaces


def space(subnet: str, **of: list[tuple[int, int]]) -> Space:
    """A space with spans by state, as offsets."""
    text, _, length = subnet.partition("/")
    family, first = from_text(text)
    spans = {state: [(first + low, first + high) for low, high in of.get(state, [])]
             for state in (USED, DELEGATED, WAITING, RESERVED, SPENT, OUTSIDE)}
    return Space("pods", 0, family, first, int(length), spans, {})


def conf(subnets: tuple[str, ...], reserved: dict[str, str] | None = None) -> IpamConf:
    return IpamConf("pods", "/data", (range_set(*subnets),), (), (), "", reserved=reserved or {})


def test_each_address_has_one_state() -> None:
    records = [Attachment(Owner("pods", "a", "eth0"), ("2001:db8::2", "10.0.0.2"), prefixes=("2001:db8::1:0/112",)),
               Attachment(Owner("pods", "b", ""), ("2001:db8:9::2",))]
    first = from_text("2001:db8::")[1]
    past = Traces(((first + 3, 1.0), (first + 2, 1.0)), ((first + 1, first + 0x1ffff),))
    made = conf(("2001:db8::/64", "2001:db8:1::/64"), {"2001:db8::5": "default/db"})
    found, other = spaces.spaces(made, records, [past])
    assert (found.prefix, other.prefix) == ("2001:db8::/64", "2001:db8:1::/64")
    assert {state: intervals.total(spans) for state, spans in found.spans.items()} == {
        USED: 1, DELEGATED: 65536, WAITING: 1, RESERVED: 1, SPENT: 0x1ffff - 65536 - 3, OUTSIDE: 1}
    assert found.counts()[FREE] == 2**64 - 0x20000
    assert found.holders[first + 2] == "a eth0" and found.holders[first + 1] == "gateway"
    assert found.holders[first + 5] == "for default/db"
    assert not set(other.holders) & set(found.holders) and other.counts()[USED] == 0


@pytest.mark.parametrize("subnet, bits", [("2001:db8::/64", 8), ("2001:db8::/50", 6), ("2001:db8::/127", 1),
                                          ("10.0.0.0/24", 8), ("10.0.0.0/20", 4), ("10.0.0.0/31", 1)])
def test_levels_end_with_whole_bytes(subnet: str, bits: int) -> None:
    found = space(subnet, used=[(1, 1)])
    first, *others = spaces.levels(found)
    assert first.bits == bits and all(level.bits == 8 for level in others)
    last = ([first, *others])[-1]
    assert last.length + last.bits == (128 if ":" in subnet else 32)
    assert [cell.whole for cell in last.cells] == [True]


@given(st.lists(st.tuples(st.integers(0, 2**16 - 1), st.integers(0, 300)), max_size=6), st.integers(0, 2**16 - 1))
def test_the_cells_of_a_level_count_every_address(parts: list[tuple[int, int]], free: int) -> None:
    spans = intervals.merged((low, min(low + more, 2**16 - 1)) for low, more in parts)
    found = space("10.0.0.0/16", used=list(spans))
    top, *below = spaces.levels(found)
    assert sum(sum(cell.counts.values()) for cell in top.cells) == intervals.total(spans)
    for level in below:
        [above] = [cell for cell in top.cells if cell.first == level.first]
        assert sum(sum(cell.counts.values()) for cell in level.cells) == sum(above.counts.values())
        assert not above.whole and all(cell.whole and cell.state == USED for cell in level.cells)
    place = next((cell for cell in top.cells if cell.place == free >> 8), None)
    assert (place is None) == (not intervals.meeting([(low >> 8, high >> 8) for low, high in spans], *[free >> 8] * 2))


def test_no_more_levels_than_a_page_can_hold(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spaces, "LEVELS", 3)
        assert len(list(spaces.levels(space("2001:db8::/64", used=[(1, 1)])))) == 3


def test_the_descent_follows_what_is_in_use() -> None:
    found = spaces.descent(space("2001:db8::/64", used=[(5, 5)], spent=[(2**60, 2**60 + 2**50)]))
    assert [level.length for level in found] == [64, 72, 80, 88, 96, 104, 112, 120]
    found = spaces.descent(space("2001:db8::/64", delegated=[(2**48, 2**49 - 1)], outside=[(0, 0)]))
    assert [level.length for level in found] == [64, 72]
    assert [level.length for level in spaces.descent(space("10.0.0.0/16"))] == [16]
    assert [level.length for level in spaces.descent(space("10.0.0.0/16", outside=[(0, 0)]))] == [16]


@pytest.mark.parametrize("number, text", [(1, "1"), (65536, "65,536"), (2**20, "2^20"), (2**64, "2^64"),
                                          (2**64 - 5, "about 2^64"), (2**64 + 2**40, "about 2^64")])
def test_amounts(number: int, text: str) -> None:
    assert spaces.amount(number) == text


def cells(found: Space, first: int = 0, length: int | None = None) -> Level:
    return spaces.level(found, found.first + first, found.length if length is None else length)


def test_words_of_cells() -> None:
    found = replace(space("2001:db8::/64", used=[(2, 2)], waiting=[(3, 3)], spent=[(2**56, 2**57 - 1)]),
                    holders={from_text("2001:db8::2")[1]: "a eth0"})
    top, last = cells(found), cells(found, 0, 120)
    assert [spaces.words(found, cell) for cell in top.cells] == [
        "2001:db8::/72, 2^56 addresses: 1 in use, 1 waiting, about 2^56 never touched",
        "2001:db8:0:0:100::/72, 2^56 addresses: all spent",
    ]
    assert [spaces.words(found, cell) for cell in last.cells] == ["2001:db8::2: in use, a eth0", "2001:db8::3: waiting"]
    full = space("10.0.0.0/16", used=[(0, 9)], spent=[(10, 255)])
    [cell] = cells(full).cells
    assert spaces.words(full, cell) == "10.0.0.0/24, 256 addresses: 10 in use, 246 spent"


# The node


def container(record: Attachment, **links: Any) -> Container:
    found = list(sample.links([record]))
    if "links" in links:
        found = links["links"]
    [drawn] = node_map("n", [record], found, sample.AROUND, sample.HERE, True).containers
    return drawn


def test_what_an_attachment_is() -> None:
    plain = sample.bridged(1)
    assert container(plain).state == UP
    assert container(plain, links=[]).state == CUT_OFF
    assert container(plain, links=[]).problem == "its host interface veth1 is not on the node"
    assert container(replace(plain, damaged=True)).state == DAMAGED
    assert container(replace(plain, boot="other")).state == ENDED
    assert container(replace(plain, home=(1, 1))).state == ELSEWHERE
    assert container(replace(plain, host="", port=None, policy=None)).state == LEASED
    inside = ChildLink("/run/netns/p", "eth7", in_container=True)
    assert container(replace(plain, host="", port=inside)).state == UP
    lost = container(replace(plain, host="", port=ChildLink("/run/netns/p", "eth7")))
    assert lost.problem.startswith("master eth7")


def test_an_interface_that_was_renamed_is_found_by_its_alias() -> None:
    record = sample.bridged(1)
    renamed = [replace(link, name="mine", alias=names.alias(record.owner)) if link.name == "veth1" else link
               for link in sample.links([record])]
    assert (container(record, links=renamed).host, container(record, links=renamed).state) == ("mine", UP)


def test_a_record_without_a_port_is_on_the_bridge_that_its_interface_is_in() -> None:
    record = replace(sample.bridged(1), port=None)
    linked = [replace(link, master="cni0") if link.name == "veth1" else link for link in sample.links([record])]
    [segment] = node_map("n", [record], linked, sample.AROUND, sample.HERE, None).segments
    assert (segment.kind, segment.name) == ("bridge", "cni0")


def test_policies_in_words() -> None:
    policy = Policy("cni0", "v", addresses=("2001:db8::2", "10.0.0.2", "10.0.0.3"), masquerade=("10.0.0.2",),
                    snat=(("10.0.0.3", "192.0.2.9"),), ingress=PUBLISHED, egress=())
    port = BridgePort("cni0", isolated=True, vlan=7)
    record = replace(sample.bridged(1), policy=policy, port=port, bandwidth=Bandwidth((1, 1)))
    assert container(record).policies == (
        "ingress published", "egress list of 0", "IPv4 masqueraded", "source 192.0.2.9", "NDP proxy on eth0", "VLAN 7",
        "port isolated", "bandwidth limited",
    )
    assert container(replace(record, policy=None, proxied=(), port=None, bandwidth=None)).policies == ()


def test_the_whole_node() -> None:
    node = sample.node(3)
    assert [(segment.kind, segment.name, len(segment.containers)) for segment in node.segments] == [
        ("bridge", "cni0", 4), ("routed", "edge", 1), ("master", "eth1", 1), ("leases", "old", 1)]
    assert [(uplink.name, uplink.gateways) for uplink in node.uplinks] == [
        ("eth0", ((6, "fe80::1"), (4, "192.0.2.1"))), ("eth1", ())]
    assert node.uplinks[0].addresses[-1].startswith("fe80:")
    ways = [(way.family, way.uplinks, way.how) for way in node.segments[0].leaving]
    assert ways == [(6, ("eth0",), ("routed", "NDP proxy")), (4, ("eth0",), ("masqueraded",))]
    assert node.segments[1].leaving[0].how == ("prefix translated (NPTv6)",)
    assert node.segments[2].leaving[0].uplinks == ("eth1",)
    assert node.segments[0].policies[0] == ("ingress published", 4)
    assert node.count() == {UP: 5, ENDED: 1, LEASED: 1}


def test_a_network_without_a_gateway_and_a_node_without_a_way() -> None:
    record = replace(sample.bridged(1), anchors=(), policy=None, proxied=())
    around = Surroundings((), ())
    [segment] = node_map("n", [record], sample.links([record]), around, sample.HERE, True).segments
    assert [way.how for way in segment.leaving] == [("no gateway on this node",)] * 2
    own = replace(record, port=BridgePort("cni0", link_local="fe80::1/64"))
    anchored = replace(own, anchors=(GatewayAddress("cni0", "10.88.0.1/16"),))
    found = node_map("n", [anchored], sample.links([record]), around, sample.HERE, True)
    assert [(way.uplinks, way.how) for way in found.segments[0].leaving] == [((), ("routed",))] * 2
    text = " ".join(line.text for line in topology(found).segments[0].words)
    assert "IPv6 leaves nowhere: the node has no default route" in text
    assert found.uplinks == ()


# Places


def boxes(found: Topology) -> Iterator[Card]:
    yield from (*found.uplinks, *found.segments)


@pytest.mark.parametrize("count, shown", [(0, FULL), (2, FULL), (24, SHORT), (200, SHORT), (1000, TAIL)])
def test_nothing_overlaps_and_nothing_is_cut(count: int, shown: str) -> None:
    node = sample.node(count)
    assert detail(len(node.segments[0].containers)) == shown
    found = topology(node, 50)
    cards = list(boxes(found))
    assert not any(card.box.meets(other.box) for number, card in enumerate(cards) for other in cards[number + 1:])
    for card in cards:
        assert 0 <= card.box.x and card.box.x + card.box.width <= WIDTH and card.box.y >= 50
        parts = [line.box for line in card.words] + [chip.box for chip in card.chips]
        parts += [tile.box for tile in card.tiles]
        assert all(card.box.has(part) for part in parts)
        rows = sorted(parts, key=lambda box: box.y)
        assert not any(box.meets(other) for number, box in enumerate(rows) for other in rows[number + 1:number + 60])
        for tile in card.tiles:
            assert all(tile.box.has(line.box) for line in tile.words)
    assert found.height + 50 >= max(card.box.y + card.box.height for card in cards)
    assert {(wire.segment, wire.uplink) for wire in found.wires} == {(0, 0), (1, 0), (2, 1)}


def test_long_names_and_lists_stay_in_their_boxes() -> None:
    long = "n" * 200
    policy = Policy("b", "v", addresses=("2001:db8::2",), egress=(),
                    ports=tuple(Port("sctp", 40000 + number, 40000, "2001:db8:1111:2222:3333:4444:5555:6666")
                                for number in range(20)))
    addresses = tuple(f"2001:db8:1111:2222:3333:4444:5555:{number:x}" for number in range(0x6660, 0x666a))
    record = replace(sample.bridged(1), owner=Owner(long, long, "interface-names"), addresses=addresses, policy=policy,
                     prefixes=("2001:db8:1111:2222:3333:4444::/96",) * 3, port=BridgePort(long))
    around = Surroundings(tuple((long, f"{address}/64") for address in addresses),
                          ((long, RouteEntry("::/0", addresses[0])), ("eth9", RouteEntry("0.0.0.0/0", None))))
    node = node_map(long, [record], [], around, sample.HERE, False)
    found = topology(node)
    for card in boxes(found):
        assert all(card.box.has(line.box) for line in card.words)
        assert all(card.box.has(chip.box) for chip in card.chips)
        assert all(tile.box.has(line.box) for tile in card.tiles for line in tile.words)
    text = [line.text for card in boxes(found) for tile in card.tiles for line in tile.words]
    assert "and 7 more" in text and "and 17 more ports" in text
    uplink = node_map("n", [], [], around, sample.HERE, False)
    assert [line.text for line in topology(uplink).uplinks[0].words][1] == "not on the node"
    assert "and 5 more" in [line.text for line in topology(uplink).uplinks[0].words]


def test_policies_take_as_many_rows_as_they_need() -> None:
    records = [replace(sample.bridged(number), port=BridgePort("cni0", vlan=number + 1)) for number in range(20)]
    [card] = topology(node_map("n", records, sample.links(records), sample.AROUND, sample.HERE, True)).segments
    assert "VLAN 20 (1)" in [chip.text for chip in card.chips]
    assert len({chip.box.y for chip in card.chips}) > 1
    assert all(card.box.has(chip.box) for chip in card.chips)
    assert not any(chip.box.meets(other.box) for chip in card.chips for other in card.chips if chip != other)


def test_those_with_a_problem_come_first_then_by_address() -> None:
    records = [replace(sample.bridged(number), boot="old" if number == 40 else sample.BOOT) for number in range(50)]
    bare = replace(sample.bridged(60), addresses=(), policy=None)
    node = node_map("n", [*records, bare], sample.links(records), sample.AROUND, sample.HERE, True)
    tiles = [tile.container for tile in topology(node).segments[0].tiles]
    states = [tile.state == UP for tile in tiles]
    assert states == sorted(states) and not states[0]
    up = [from_text(tile.addresses[0])[1] for tile in tiles if tile.state == UP]
    assert up == sorted(up)
    assert any(line.text == "no address" for tile in topology(node).segments[0].tiles for line in tile.words)


def test_the_end_of_an_address() -> None:
    assert [tail(text) for text in ("2001:db8::3e9", "10.88.3.7", "no address")] == [":3e9", "3.7", "no address"]


def test_boxes() -> None:
    assert Box(0, 0, 10, 10).has(Box(0, 0, 10, 10)) and not Box(0, 0, 10, 10).has(Box(1, 1, 10, 9))
    assert Box(0, 0, 10, 10).meets(Box(9, 9, 10, 10)) and not Box(0, 0, 10, 10).meets(Box(10, 0, 10, 10))


# SVG


def test_words_are_escaped() -> None:
    assert svg.words(1.25, 2, HOSTILE, "ink", anchor="end") == (
        '<text class="ink" x="1.2" y="2" font-size="12" text-anchor="end">&lt;/script&gt;&lt;script&gt;alert(1)'
        "&lt;/script&gt;&lt;img src=x onerror=alert(2)&gt;&quot;&#x27;&amp;??</text>"
    )
    assert svg.element("g", {"id": '"><b>'}) == '<g id="&quot;&gt;&lt;b&gt;"/>'


def test_words_that_fit() -> None:
    assert svg.fitting("abc", 100, 10) == "abc" and svg.ending("abc", 100, 10) == "abc"
    assert svg.fitting("abcdefghij", 37.5, 10) == "ab\u2026hij"
    assert svg.ending("abcdefghij", 37.5, 10) == "\u2026fghij"


def test_each_theme_has_its_colours() -> None:
    light, dark, auto = (svg.style(theme) for theme in (svg.LIGHT, svg.DARK, svg.AUTO))
    assert auto == f"{light}@media (prefers-color-scheme:dark){{{dark}}}"
    assert f".page{{fill:{svg.COLOURS['page'][1]}}}" in dark


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[at:at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= .04045 else ((part + .055) / 1.055) ** 2.4 for part in parts)
    return .2126 * red + .7152 * green + .0722 * blue


def contrast(colour: str, other: str) -> float:
    low, high = sorted((luminance(colour), luminance(other)))
    return (high + .05) / (low + .05)


@pytest.mark.parametrize("shade", [0, 1])
def test_words_have_enough_contrast(shade: int) -> None:
    colours = {name: shades[shade] for name, shades in svg.COLOURS.items()}
    words = ("ink", "muted", "up", "cut-off", "damaged", "ended", "elsewhere", "lease-only")
    low = {(name, under): contrast(colours[name], colours[under])
           for name in words for under in ("card", "tile", "page")}
    low |= {("on-used", "used"): contrast(colours["on-used"], colours["used"])}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}


def test_marks_differ_without_colour() -> None:
    def shape(state: str, whole: bool) -> str:
        return re.sub(r'class="[^"]*"', "", "".join(draw_space.mark(0, 0, 20, 20, state, whole=whole)))

    partial = [shape(state, False) for state in (USED, DELEGATED, WAITING, RESERVED)]
    assert len(set(partial)) == 4
    assert "ring-spent" in "".join(draw_space.mark(0, 0, 20, 20, SPENT, whole=False))  # a hollow square
    assert shape(FREE, True) == "" and shape(USED, True) != shape(USED, False)
    assert shape(OUTSIDE, True) == shape(USED, True) and shape(OUTSIDE, False) == shape(USED, False)


@pytest.mark.parametrize("count", [0, 2, 200])
@pytest.mark.parametrize("theme", [svg.LIGHT, svg.DARK, svg.AUTO])
def test_a_picture_is_well_formed(count: int, theme: str) -> None:
    facts = sample.facts(count)
    root = ElementTree.fromstring(picture.whole(facts, sample.moment, theme))
    wide, high = (float(root.attrib[name]) for name in ("width", "height"))
    for rect in root.iter("{http://www.w3.org/2000/svg}rect"):
        x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
        assert 0 <= x and x + width <= wide + .2 and 0 <= y and y + height <= high + .2
    for line in root.iter("{http://www.w3.org/2000/svg}text"):
        room = svg.width(line.text or "", float(line.attrib["font-size"]))
        left = float(line.attrib["x"]) - {"end": room, "middle": room / 2}.get(line.attrib.get("text-anchor", ""), 0)
        assert 0 <= left and left + room <= wide, line.text
        assert float(line.attrib["y"]) <= high


def test_a_picture_of_nothing() -> None:
    node = node_map("n", [], [], Surroundings((), ()), sample.HERE, None)
    text = picture.whole(Facts(node, (), sample.NOW), sample.moment, svg.AUTO)
    assert "No attachment is on record." in text and "not seen: not root" in text
    html = page.page(Facts(node, (), sample.NOW), sample.moment, svg.LIGHT, PARTS)
    assert "No attachment is on record." in html and "0 attachments;" in html


def test_what_is_not_shown_is_said() -> None:
    assert "(7 more are spent, and not shown)" in draw_space.totals(replace(space("10.0.0.0/24"), omitted=7))


def test_the_burn_in_words() -> None:
    def seen(count: int, held: list[tuple[str, float]], subnet: str = "2001:db8::/64") -> str:
        return draw_burn.rate(usage(range_set(subnet), DEFAULT, count, held, 2000.0, None))

    assert seen(0, []) == "rate not known: too few attachments are on record"
    assert seen(4096, [("2001:db8::2", 1000.0), ("2001:db8::3ea", 1900.0)]) == "1/s; lasts more than a million years"
    held = [("10.0.0.2", 1000.0), ("10.0.0.3", 1500.0)]
    assert seen(0, held, "10.0.0.0/24") == "at least 3.6/h; comes round in 2.9 days"
    stable = replace(usage(range_set("10.0.0.0/24"), DEFAULT, 0, held, 2000.0, None), observed=None)
    assert draw_burn.rate(stable).startswith("rate not known")


def test_every_container_is_in_the_picture_once() -> None:
    text = picture.whole(sample.facts(200), sample.moment, svg.AUTO)
    found = re.findall(r'data-id="([^"]*)"', text)
    assert len(found) == len(set(found)) == 204
    tile = topology(sample.node(2)).segments[2].tiles[0]
    assert draw_topology.label(tile) == "container printer net1, network lan: 2001:db8:1::77; up"
    old = [tile for tile in topology(sample.node(2)).segments[0].tiles if tile.container.state == ENDED]
    assert draw_topology.label(old[0]).endswith("10.88.11.186; ended: it is of an earlier boot")


# The pictures in the documentation


def pictures() -> dict[str, str]:
    """By name in docs/."""
    facts = sample.facts(60)
    pods = [segment for segment in facts.node.segments if segment.name != "old"]
    few = replace(facts, node=replace(facts.node, segments=tuple(pods)), unknown=())
    node = sample.node(8)
    first = replace(node, segments=tuple(segment for segment in node.segments if segment.name == "cni0"))
    topology = Facts(first, (), sample.NOW)
    member = replace(sample.facts(2), spaces=(), unknown=(), cluster=sample.members(9))
    return {"map.svg": picture.whole(few, sample.moment, svg.AUTO),
            "topology.svg": picture.whole(topology, sample.moment, svg.AUTO),
            "map-cluster.svg": picture.whole(member, sample.moment, svg.AUTO)}


def test_the_pictures_in_the_documentation_are_current() -> None:
    for name, content in pictures().items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == content, "python -m tests.unit.test_map"


# JSON and the page


def test_facts_as_json() -> None:
    found = json.loads(json.dumps(facts_of(sample.facts(2))))
    assert [segment["name"] for segment in found["segments"]] == ["cni0", "edge", "eth1", "old"]
    assert found["segments"][0]["attachments"][0]["publishedPorts"][0] == {
        "protocol": "tcp", "hostIP": "", "hostPort": 8080, "containerPort": 80}
    first = found["addressSpaces"][0]
    assert (first["prefix"], first["counts"]["used"], first["reused"]) == ("2001:db8:de30:1::/64", 3, False)
    assert found["networksWithoutConfiguration"] == ["old"]
    assert found["uplinks"][0]["defaultRoutes"][0] == {"family": 6, "gateway": "fe80::1"}


def data_of(html: str) -> Any:
    [data] = re.findall(r'<script type="application/json" id="facts">(.*?)</script>', html, re.DOTALL)
    return json.loads(data)


def test_the_page_knows_its_way_to_every_address() -> None:
    found = for_page(sample.facts(300))
    assert len(found["where"]) == 2 * 301  # with the one of an earlier boot
    for address, (number, key) in found["where"].items():
        levels = found["addressSpaces"][number]["levels"]
        cell = next(cell for cell in levels[key]["cells"] if cell["words"].startswith(f"{address}: in use"))
        assert cell["key"] == "" and found["shapes"][str(levels[key]["bits"])][cell["place"]]
        path = [key]
        while levels[path[-1]]["parent"]:
            path.append(levels[path[-1]]["parent"])
        assert path[-1] == found["addressSpaces"][number]["prefix"]


def hostile() -> Facts:
    """Facts with markup wherever others choose a name."""
    record = replace(
        sample.bridged(1), owner=Owner(HOSTILE, HOSTILE, HOSTILE), host=HOSTILE, port=BridgePort(HOSTILE), proxied=())
    around = Surroundings(((HOSTILE, "2001:db8::1/64"),), ((HOSTILE, RouteEntry("::/0", HOSTILE)),))
    links = [replace(link, name=HOSTILE, alias=HOSTILE) for link in sample.links([record])[:1]]
    node = node_map(HOSTILE, [record], links, around, sample.HERE, True)
    shown = [Shown(replace(each.space, network=HOSTILE, holders=dict.fromkeys(each.space.holders, HOSTILE)),
                   each.usage, each.growth) for each in sample.shown([sample.bridged(1)])]
    member = Member(HOSTILE, UNREACHED, HOSTILE, (HOSTILE,), (Block(HOSTILE, 1, 2),), (HOSTILE,))
    return Facts(node, shown, sample.NOW, (HOSTILE,), [member, member])


def test_a_hostile_name_is_text() -> None:
    text = picture.whole(hostile(), sample.moment, svg.AUTO)
    root = ElementTree.fromstring(text)
    assert {element.tag.partition("}")[2] for element in root.iter()} <= {
        "svg", "title", "style", "rect", "text", "path", "g", "circle"}
    html = page.page(hostile(), sample.moment, svg.AUTO, PARTS)
    assert html.count("<script") == 2 and "<img" not in html and "\u202e" not in html and "\x1b" not in html
    assert data_of(html)["segments"][0]["attachments"][0]["containerID"] == HOSTILE.replace("\u202e\x1b", "??")


def test_the_page_may_load_nothing_and_run_its_own_script_only() -> None:
    html = page.page(sample.facts(2), sample.moment, svg.DARK, PARTS)
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy.startswith("default-src &#x27;none&#x27;; ")
    checksum = base64.b64encode(hashlib.sha256(PARTS[1].encode()).digest()).decode()
    assert f"script-src &#x27;sha256-{checksum}&#x27;;" in policy
    assert not re.findall(r'(?:src|href)="', html)
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


def test_macvlans_ipvlans_and_vlans_are_drawn_on_their_master() -> None:
    assert [segment.name for segment in sample.node(0).segments if segment.kind == MASTER] == ["eth1"]
    ports = (("macvlan", "bridge"), ("ipvlan", "l3"), ("vlan", "5"), ("macvlan", ""), ("ipvlan", "l2"))
    records = [Attachment(Owner("lan", f"c{number}", "eth0"), (f"2001:db8::{number}",),
                          port=ChildLink("/run/netns/c", "eth1", kind=kind, mode=mode))
               for number, (kind, mode) in enumerate(ports)]
    [segment] = node_map("n", records, sample.links([]), sample.AROUND, sample.HERE, None).segments
    assert (segment.kind, segment.name) == ("master", "eth1")
    assert dict(segment.policies) == {"macvlan bridge": 1, "ipvlan l3": 1, "VLAN 5": 1, "macvlan": 1, "ipvlan l2": 1}
    [way] = segment.leaving
    assert (way.uplinks, way.how) == (("eth1",), ("on the link", "by the node's routes", "in VLAN 5"))


if __name__ == "__main__":
    for name, content in pictures().items():
        (ROOT / "docs" / name).write_text(content, encoding="utf-8")
