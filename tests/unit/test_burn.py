"""How long the addresses of a network last, by what its leases tell; and the command that says so."""

from __future__ import annotations

import argparse
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from cni_v6.allocation.policy import NEVER, RANDOM, SEQUENTIAL, STABLE, AllocationPolicy
from cni_v6.allocation.ranges import RangeSet
from cni_v6.ctl import burn as burn_command
from cni_v6.errors import CniError
from cni_v6.planning.prefix_plan import YEAR, duration
from cni_v6.planning.usage import Observed, Usage, per, usage
from tests.unit.fake_context import CONFIG, FOREIGN, FakeContext
from tests.unit.sample_values import range_set

Capture = pytest.CaptureFixture[str]
LARGE, SMALL = range_set("2001:db8:1::/64"), range_set("10.1.0.0/24")
NOW = 2000.0
IPAM: dict[str, Any] = {**CONFIG, "type": "cni-v6-ipam"}


def used(
    addresses: RangeSet, *held: tuple[str, float], policy: AllocationPolicy = AllocationPolicy(), spent: int = 0,
    assumed: Fraction | None = None,
) -> Usage:
    return usage(addresses, policy, spent, held, NOW, assumed)


def test_a_sequence_tells_what_was_given_in_between() -> None:
    """From ::2 at 1000 to ::3ea, 1,000 addresses later, whatever has gone since."""
    seen = used(LARGE, ("2001:db8:1::2", 1000.0), ("2001:db8:1::3ea", 1900.0), spent=4096)
    assert seen.observed == Observed(1000, 1000.0, least=False)
    assert (seen.leased, seen.spent, seen.left) == (2, 4096, 2**64 - 2 - 4096)
    assert seen.rate == 1


def test_a_sequence_over_several_ranges() -> None:
    both = range_set("2001:db8:1::/112", "2001:db8:2::/64")
    seen = used(both, ("2001:db8:1::2", 1000.0), ("2001:db8:2::2", 1900.0), spent=70000)
    assert seen.observed and seen.observed.count in range(65530, 65540)


@pytest.mark.parametrize(
    ("held", "observed"),
    [
        pytest.param([], None, id="nothing"),
        pytest.param([("2001:db8:1::2", 1000.0)], None, id="one"),
        pytest.param([("2001:db8:1::2", 0.0), ("2001:db8:1::3", 1000.0)], None, id="one without a time"),
        pytest.param([("2001:db8:1::2", 1000.0), ("2001:db8:1::3", 3000.0)], None, id="one of the future"),
        pytest.param([("2001:db8:1::2", 1000.0), ("10.1.0.2", 1500.0)], None, id="one of another set"),
        pytest.param(
            [("2001:db8:1::2", 1000.0), ("2001:db8:1:0:f::", 1500.0)], Observed(1, 1000.0, least=True), id="asked for"),
        pytest.param(
            [("2001:db8:1:0:f::", 1000.0), ("2001:db8:1::2", 1500.0), ("2001:db8:1::9", 1500.0)],
            Observed(2, 1000.0, least=True), id="the oldest was asked for"),
    ],
)
def test_what_cannot_be_known_is_not_said(held: list[tuple[str, float]], observed: Observed | None) -> None:
    assert used(LARGE, *held, spent=4096).observed == observed


@pytest.mark.parametrize("policy", [AllocationPolicy(order=RANDOM), AllocationPolicy(order=STABLE)])
def test_without_a_sequence_there_is_a_least(policy: AllocationPolicy) -> None:
    seen = used(LARGE, ("2001:db8:1::9", 1000.0), ("2001:db8:1::2", 1500.0), policy=policy, spent=4096)
    assert seen.observed == Observed(1, 1000.0, least=True)
    assert seen.once is (policy.order == RANDOM) and seen.spent == (4096 if seen.once else 0)


def test_an_excluded_address_is_still_leased() -> None:
    cut = RangeSet(range_set("10.1.0.128/25").ranges, SMALL.written)
    seen = used(cut, ("10.1.0.5", 1000.0), ("10.1.0.200", 1500.0))
    assert seen.leased == 2 and seen.observed == Observed(1, 1000.0, least=True)


def test_a_64_lasts_58494_years_at_ten_million_a_second() -> None:
    seen = used(LARGE, assumed=Fraction(10**7))
    assert seen.years and duration(seen.years) == "58,494 years" and seen.verdict == ""


def test_a_set_that_comes_round() -> None:
    seen = used(SMALL, ("10.1.0.2", 1000.0), assumed=Fraction(1, 60))
    assert (seen.left, seen.needed) == (252, 61)
    assert seen.years == Fraction(252 * 60, YEAR)
    assert seen.verdict == "addresses wait 3600 s before they come again, as ipam.reuseAfter says"
    busy = used(SMALL, ("10.1.0.2", 1000.0), assumed=Fraction(1))
    assert busy.verdict.startswith("too small for ipam.reuseAfter (3600 s): at this rate that takes 3,601 addresses")


def test_nothing_is_promised_without_a_rate() -> None:
    seen = used(SMALL)
    assert seen.rate is seen.years is None and seen.verdict == "" and seen.needed == 0
    assert used(SMALL, policy=AllocationPolicy(order=STABLE), assumed=Fraction(1)).verdict == ""


def test_a_set_that_is_spent_has_nothing_left() -> None:
    assert used(SMALL, policy=AllocationPolicy(SEQUENTIAL, NEVER), spent=300).left == 0


@pytest.mark.parametrize(
    ("rate", "words"),
    [(Fraction(100), "100/s"), (Fraction(3, 2), "1.5/s"), (Fraction(1, 3), "20/min"), (Fraction(1, 1800), "2/h"),
     (Fraction(1, 86400), "1/d"), (Fraction(1, 864000), "0.1/d"), (Fraction(10**7), "10,000,000/s")],
)
def test_a_rate_in_words(rate: Fraction, words: str) -> None:
    assert per(rate) == words


# The command


def run(fake: FakeContext, path: Path | None = None, **chosen: Any) -> int:
    defaults: dict[str, Any] = {"network": None, "conf_dir": Path("/none"), "rate": None, "json": False}
    return burn_command.run(argparse.Namespace(conflist=path, **defaults | chosen), fake.context)


def written(folder: Path, content: object, name: str = "10-pods.conflist") -> Path:
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def test_burn(tmp_path: Path, capsys: Capture) -> None:
    fake = FakeContext()
    for number in range(5):
        fake.add(f"c{number}")
        fake.now += 60
    for number in (1, 2, 3):
        fake.call("DEL", f"c{number}").ok()
    before = fake.state()
    assert run(fake, written(tmp_path, CONFIG)) == 0
    assert fake.state() == before
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [
        "network pods", "", "2001:db8:1::/64 (2001:db8:1::1 to 2001:db8:1:0:ffff:ffff:ffff:ffff)",
        "  order   sequential, no address given twice", "  size    18,446,744,073,709,551,614", "  leased  2",
    ]
    assert "  rate    48/h: 4 in 5.0 minutes, since 1970-01-01" in "\n".join(lines)
    assert "  order   sequential, addresses are given again" in lines and "  free    251" in lines
    assert "  rate    at least 12/h: at least 1 in 5.0 minutes, since 1970-01-01" in "\n".join(lines)


def test_burn_at_a_rate(tmp_path: Path, capsys: Capture) -> None:
    assert run(FakeContext(), written(tmp_path, IPAM), rate="10000000/s") == 0
    out = capsys.readouterr().out
    assert "  rate    10,000,000/s, assumed\n  lasts   58,494 years\n" in out
    assert "  note    too small for ipam.reuseAfter" in out and "  round   0.0 seconds" in out


def test_burn_as_json(tmp_path: Path, capsys: Capture) -> None:
    stable = CONFIG | {"ipam": CONFIG["ipam"] | {"allocation": "stable"}}
    fake = FakeContext()
    assert run(fake, written(tmp_path, stable), json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["network"] == "pods" and len(found["sets"]) == 2
    assert {key: value for key, value in found["sets"][1].items() if key != "set"} == {
        "order": "stable", "reused": True, "size": 253, "leased": 0, "spent": 0, "left": 253, "observed": None,
        "ratePerSecond": None, "years": None, "note": "",
    }
    assert run(fake, written(tmp_path, stable), rate="1/s") == 0
    out = capsys.readouterr().out
    assert "stable, a workload has its address again" in out and "round" not in out
    assert run(fake, written(tmp_path, stable)) == 0
    assert "not known: too few attachments are on record (assume one with --rate)" in capsys.readouterr().out


def test_burn_by_name(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "05-broken.conf").write_text("{")
    (tmp_path / "99-notes.txt").write_text("mine")
    written(tmp_path, {"name": "pods", "plugins": [{"type": "portmap"}]}, "07-other.conflist")
    written(tmp_path, CONFIG | {"name": "others"}, "08-others.json")
    written(tmp_path, CONFIG)
    assert run(FakeContext(), network="pods", conf_dir=tmp_path) == 0
    assert capsys.readouterr().out.startswith("network pods\n")
    with pytest.raises(CniError, match="has the name third"):
        run(FakeContext(), network="third", conf_dir=tmp_path)
    with pytest.raises(CniError, match="cannot read --conf-dir"):
        run(FakeContext(), network="pods", conf_dir=tmp_path / "none")


def test_burn_of_another_plugins_addresses(tmp_path: Path) -> None:
    with pytest.raises(CniError, match="no ipam of ours"):
        run(FakeContext(), written(tmp_path, FOREIGN))
