"""The benchmark's arithmetic and its table; what it measures is for ``make bench``."""

from __future__ import annotations

import json

import pytest

from tests.bench import figures, report, setting
from tests.bench.figures import Findings, Goal, Row
from tests.bench.ipam import addresses

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


def test_figures_and_page_of_a_run() -> None:
    found = Findings([ADD, UNSUPPORTED], failures=["cold: no"])
    found.curve("leases", "cni-v6 ADD", [(0, 1.00001), (1000, 2)])
    data = json.loads(report.as_json(found, {"python": "3.11"}))
    assert data["curves"] == {"leases": {"cni-v6 ADD": [[0, 1.0], [1000, 2]]}}
    assert (data["machine"], data["failures"], len(data["rows"])) == ({"python": "3.11"}, ["cold: no"], 2)
    page = report.page(found, {"python": "3.11", "processors": "2"}, ["leases.svg"])
    assert "Machine: python 3.11; processors 2." in page
    assert "![leases](leases.svg)" in page and figures.as_markdown(found.rows) in page


def test_both_begin_equally_often() -> None:
    assert [order for _, order in setting.turns(4)] == [(0, 1), (1, 0), (0, 1), (1, 0)]


def test_a_set_of_leases_begins_behind_the_gateway() -> None:
    assert list(addresses("10.0.0.0/8", 2)) == ["10.0.0.2", "10.0.0.3"]
    assert list(addresses("fd00:88::/64", 2)) == ["fd00:88::2", "fd00:88::3"]
