"""The benchmark's arithmetic and its table; what it measures is for ``make bench``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cni_v6.allocation.policy import DEFAULT, RANDOM, AllocationPolicy
from cni_v6.leases.memory import MemoryLeases
from tests.bench import carriers, figures, flowtable, library, paths, report, setting, turnover
from tests.bench.figures import Findings, Goal, Row
from tests.bench.filled import Filled
from tests.bench.ipam import addresses
from tests.bench.node import Node, Refused
from tests.bench.ways import Way
from tests.stores import BOOT, LARGE, NETWORK, lease_files, record_files

ADD = Row("ADD", "ms", 12.345, 24.69, Goal(0.6))
MISSED = Row("ADD, many", "/s", 150.0, 100.0, Goal(1.8, at_least=True), remark="a|b")
OWN = Row("1,000 leases", "ms", 1234.5, 1200.0, against="own, at 0")
UNSUPPORTED = Row("ipMasq", "ms", None, 59.0, Goal(0.3), remark="not supported yet")


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 2.5), (0.9, 3.7), (1.0, 4.0)])
def test_percentile_lies_between_the_nearest_samples(share: float, expected: float) -> None:
    assert figures.percentile([4.0, 1.0, 3.0, 2.0], share) == pytest.approx(expected)


def test_percentile_of_one_sample_is_that_sample() -> None:
    assert figures.percentile([7.0], 0.95) == 7.0


def test_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        figures.percentile([], 0.5)


def test_a_distribution_goes_from_the_least_to_the_most() -> None:
    points = figures.distribution([3.0, 1.0, 2.0])
    assert (points[0], points[50], points[-1]) == ((1.0, 0.0), (2.0, 50.0), (3.0, 100.0))


@pytest.mark.parametrize(
    ("goal", "ratio", "met"),
    [(Goal(0.6), 0.6, True), (Goal(0.6), 0.61, False), (Goal(1.8, at_least=True), 1.8, True),
     (Goal(1.8, at_least=True), 1.79, False)],
)
def test_a_goal_includes_its_limit(goal: Goal, ratio: float, met: bool) -> None:
    assert goal.met(ratio) is met


@pytest.mark.parametrize(
    ("row", "ratio", "met"), [(ADD, 0.5, True), (MISSED, 1.5, False), (OWN, 1.02875, None), (UNSUPPORTED, None, None)]
)
def test_a_row_judges_only_what_it_has(row: Row, ratio: float | None, met: bool | None) -> None:
    assert (row.ratio, row.met) == (pytest.approx(ratio) if ratio else None, met)


def test_the_table_for_a_terminal() -> None:
    assert figures.as_text([ADD, OWN, UNSUPPORTED]).splitlines() == [
        "figure          cni-v6                  peer  ratio    goal  met  remark",
        "-" * 83,
        "ADD            12.3 ms               24.7 ms    0.5  <= 0.6  yes",
        "1,000 leases  1,234 ms  1,200 ms (own, at 0)   1.03",
        "ipMasq               -                 59 ms         <= 0.3       not supported yet",
    ]


def test_the_table_for_the_documentation() -> None:
    assert figures.as_markdown([MISSED]).splitlines() == [
        "| figure | cni-v6 | peer | ratio | goal | met | remark |",
        "| --- | ---: | ---: | ---: | ---: | --- | --- |",
        "| ADD, many | 150 /s | 100 /s | 1.5 | >= 1.8 | NO | a\\|b |",
    ]


def test_a_row_as_json() -> None:
    assert ADD.to_json() == {
        "figure": "ADD", "unit": "ms", "ours": 12.345, "peer": 24.69, "ratio": 0.5, "goal": "<= 0.6", "met": True,
        "against": "", "remark": "",
    }


def test_a_table_of_ways() -> None:
    figures_of = {"`ptp`": {"near": 20.24, "far": 1234.0}, "loopback": {"near": 16.0}}
    assert figures.matrix("trip (us)", figures_of).splitlines() == [
        "| trip (us) | near | far |",
        "| --- | ---: | ---: |",
        "| `ptp` | 20.2 | 1,234 |",
        "| loopback | 16 | - |",
    ]


def test_ways_are_measured_in_rotated_order_and_judged() -> None:
    node = object.__new__(Node)
    kinds = {name: {(paths.NEAR, 6): Way(node, name, name, "::1")} for name in "abc"}
    taken: list[str] = []

    def take(way: Way) -> float:
        taken.append(way.source)
        return len(taken)

    samples = paths.measured(kinds, 2, paths.CPU, take)
    assert "".join(taken) == "abcbca"
    assert samples["a", paths.Column(paths.CPU, paths.NEAR, 6)] == [1, 6]


def test_a_way_has_a_row_for_each_goal_and_its_place_in_the_tables() -> None:
    took = {paths.OURS: 3.0, paths.OURS_ROUTED: 2.0, paths.BRIDGE: 2.0}
    samples = {(name, column): [value] for name, value in took.items() for column in paths.COLUMNS}
    samples[paths.LOOPBACK, paths.Column(paths.TRIP, paths.NEAR, 4)] = [1.0]
    found = Findings()
    paths.report(samples, found)
    assert (len(found.rows), {row.met for row in found.rows if row.figure.endswith(paths.OURS)}) == (20, {False})
    assert {row.met for row in found.rows if row.figure.endswith(paths.OURS_ROUTED)} == {True}
    trips = found.ways["request and response (us)"]
    assert (trips[paths.LOOPBACK], trips[paths.OURS]["pod to outside, IPv6"]) == ({"pod to pod, IPv4": 1.0}, 3.0)
    page = report.page(found, {"python": "3.11"}, [])
    assert f"## The way of a packet\n\n{figures.matrix('request and response (us)', trips)}\n\n" in page
    assert json.loads(report.as_json(found, {}))["ways"] == found.ways


def test_a_carrier_is_judged_beside_static_routes() -> None:
    took = {carriers.STATIC: 2.0, "direct": 2.0, "vxlan": 1.7, "srv6": 1.7}
    columns = [paths.Column(measured, carriers.PLACE, family) for measured in (carriers.SPEED, paths.CPU, paths.TRIP)
               for family in (6, 4)]
    rows = list(carriers.rows({(name, column): [value] for name, value in took.items() for column in columns}))
    assert len(rows) == 18 and {row.against for row in rows} == {carriers.STATIC}
    met = {row.figure.partition(", node to node, ")[::2]: row.met for row in rows}
    assert met["throughput", "IPv6, srv6"] is False and met["throughput", "IPv6, vxlan"] is True
    assert met["CPU time of a GB by TCP", "IPv4, srv6"] is True and met["request and response", "IPv4, vxlan"] is None


def test_a_silent_node_is_judged_by_the_worst_cut_too() -> None:
    assert [(row.ours, row.met) for row in carriers.noticed([0.7, 1.2, 0.6])] == [(0.7, True), (1.2, False)]


def test_figures_and_page_of_a_run() -> None:
    found = Findings([ADD, UNSUPPORTED], failures=["cold: no"])
    found.curve("leases", "cni-v6 ADD", [(0, 1.00001), (1000, 2)])
    data = json.loads(report.as_json(found, {"python": "3.11"}))
    assert data["curves"] == {"leases": {"cni-v6 ADD": [[0, 1.0], [1000, 2]]}}
    assert (data["machine"], data["failures"], len(data["rows"])) == ({"python": "3.11"}, ["cold: no"], 2)
    page = report.page(found, {"python": "3.11", "processors": "2"}, ["leases.svg"])
    assert "Machine: python 3.11; processors 2." in page and "The way of a packet\n" not in page
    assert "![leases](leases.svg)" in page and figures.as_markdown(found.rows) in page


def test_both_begin_equally_often() -> None:
    assert [order for _, order in setting.turns(4)] == [(0, 1), (1, 0), (0, 1), (1, 0)]


def test_a_set_of_leases_begins_behind_the_gateway() -> None:
    assert list(addresses("10.0.0.0/8", 2)) == ["10.0.0.2", "10.0.0.3"]
    assert list(addresses("fd00:88::/64", 2)) == ["fd00:88::2", "fd00:88::3"]


@pytest.fixture
def filled(tmp_path: Path) -> Filled:
    """A network with twelve leases, written at once."""
    made = Filled(NETWORK, str(tmp_path), BOOT)
    made.fill(12)
    return made


def test_what_is_written_at_once_is_what_the_store_would_write(filled: Filled) -> None:
    meant = [filled.attachment(number) for number in range(6)]
    with filled.leases.transaction() as work:
        assert sorted(work.attachments(), key=lambda each: each.owner) == meant
    assert record_files(filled.folder) == {f"stays{number}:eth0": list(each.addresses)
                                           for number, each in enumerate(meant)}
    assert len(lease_files(filled.folder)) == 12


def test_what_is_written_otherwise_is_refused(filled: Filled) -> None:
    (filled.folder / filled.attachment(3).addresses[0]).write_bytes(b"other\r\neth0")
    with pytest.raises(RuntimeError, match="not as written"):
        filled.check(6)


def test_what_the_store_has_to_look_for_is_refused(filled: Filled) -> None:
    (filled.folder / "10.0.0.200").write_bytes(b"other\r\neth0")
    with pytest.raises(RuntimeError, match="folders were read"):
        filled.check(6)


def test_the_calls_of_the_library_leave_a_network_as_it_was(filled: Filled) -> None:
    network = library.Network(filled, 12)
    network.fill_set()
    before = lease_files(filled.folder)
    samples = library.measure([network], 3, 60)
    assert len(before) == 12 + 1021
    assert {name: len(times) for name, [times] in samples.items()} == dict.fromkeys(samples, 3)
    assert lease_files(filled.folder) == before
    assert network.collect(5) > 0 and network.collect(5, "cni-v6") > 0 and network.names() > 0
    assert lease_files(filled.folder) == before


def test_a_call_that_has_taken_long_is_not_made_again(filled: Filled) -> None:
    network = library.Network(filled, 12)
    network.fill_set()
    assert {len(times) for [times] in library.measure([network], 3, 1e-9).values()} == {1}


@pytest.mark.parametrize("policy", [DEFAULT, AllocationPolicy(order=RANDOM)], ids=["sequential", "random"])
def test_containers_that_come_and_go_have_an_address_each(policy: AllocationPolicy) -> None:
    leases = MemoryLeases(NETWORK)
    taken, given = turnover.turn_over(leases, LARGE, policy, 300)
    assert len(taken) == len(set(given)) == 300 and turnover.repeated(given) == 0
    with leases.transaction() as work:
        assert len(list(work.attachments())) == turnover.ALIVE


def test_addresses_that_came_twice_are_counted() -> None:
    assert turnover.repeated([5, 3, 5, 2**64 - 1, 3, 5, 2**64 - 1]) == 4


def test_a_long_run_is_a_hundred_points() -> None:
    assert list(turnover.blocks([1000, 3000, 2000])) == [(1, 1.0), (2, 3.0), (3, 2.0)]
    points = list(turnover.blocks(range(0, 250_000, 1000)))
    assert (len(points), points[0], points[-1][0]) == (83, (3, 1.0), 249)


def test_a_way_of_packets_is_judged_round_by_round() -> None:
    def rounds(*cpu: float) -> list[dict[str, float]]:
        return [{"cpu": each, "seconds": 2 * each} for each in cpu]

    way = "by a shortcut of uplink and the bridge"
    spent = {flowtable.AS_IT_IS: rounds(1, 2, 4), flowtable.NOTHING: rounds(0.5, 1, 4), way: rounds(0.9, 1, 2)}
    nothing, shortcut = flowtable.rows("udp", 6, spent)
    assert (nothing.figure, nothing.ratio) == ("small UDP datagrams, IPv6, CPU time without a firewall", 0.5)
    assert (shortcut.figure, shortcut.ratio) == (f"small UDP datagrams, IPv6, CPU time {way}", 0.5)
    assert (nothing.met, shortcut.met) == (None, True)
    assert shortcut.remark == "throughput 2.00; 20.00 us each against 40.00 us each"


def test_a_shortcut_looks_for_one_flow_both_ways() -> None:
    flow = flowtable.Flow("tcp", 4, "10.88.0.2", "veth1", "02:00:00:00:00:02")
    by_bridge, by_port = flow.shortcut(False), flow.shortcut(True)
    for text, device in ((by_bridge, "bench0"), (by_port, "veth1")):
        assert f'hook ingress device "{device}"' in text and 'hook ingress device "up0"' in text
        assert "10.88.0.2 . 192.0.2.9 . 40000 . 5201" in text and "192.0.2.9 . 10.88.0.2 . 5201 . 40000" in text
        assert 'fwd ip to 192.0.2.9 device "up0"' in text
    assert 'fwd ip to 10.88.0.2 device "bench0"' in by_bridge
    assert 'ether daddr set 02:00:00:00:00:02 fwd to "veth1"' in by_port
    assert 'devices = { "up0", "veth1" }' in flow.flowtable(True)


@pytest.mark.parametrize(("family", "packets"), [("netdev", 999), ("inet", 1000)])
def test_a_flow_that_went_elsewhere_is_refused(family: str, packets: int) -> None:
    with pytest.raises(Refused, match="the way it was to take"):
        flowtable.check(family, f"counter packets 3 bytes 9\ncounter packets {packets} bytes 9")
    other = 1999 - packets  # on the other side of the limit
    flowtable.check(family, f"counter packets 3 bytes 9\ncounter packets {other} bytes 9")
