"""The metrics: counted, written, read as Prometheus reads them; what ``cni-v6ctl top`` makes of them."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, strategies
from prometheus_client.parser import text_string_to_metric_families

from cni_v6 import errors
from cni_v6.ctl.metrics import ask
from cni_v6.ctl.top import View, quantile
from cni_v6.engine import container_drops, metrics
from cni_v6.engine.counters import NETWORKS, OTHER, Counters
from cni_v6.engine.exposition import METRICS, Sample, parse, render
from cni_v6.errors import CniError
from cni_v6.firewall import dropped, ruleset
from cni_v6.firewall.sets import Element
from cni_v6.leases.attachment import Attachment
from cni_v6.log import Log, Steps
from cni_v6.plan.firewall_words import REASONS
from cni_v6.protocol.invocation import Invocation, Report, Request
from cni_v6.protocol.names import Owner

ROOT = Path(__file__).resolve().parents[2]
ALERTS, DASHBOARD = ROOT / "conf/monitoring/cni-v6.rules.yaml", ROOT / "conf/monitoring/cni-v6.dashboard.json"


def seen_by_prometheus(text: str) -> set[tuple[str, tuple[tuple[str, str], ...], float]]:
    return {(sample.name, tuple(sorted(sample.labels.items())), sample.value)
            for family in text_string_to_metric_families(text) for sample in family.samples}


def as_it_should(samples: Iterable[Sample]) -> set[tuple[str, tuple[tuple[str, str], ...], float]]:
    return {(sample.name + sample.suffix,
             tuple(sorted((dict(zip(METRICS[sample.name].labels, sample.labels)) | (
                 {"le": sample.le} if sample.le else {})).items())), sample.value) for sample in samples}


def report(command: str, network: str = "pods", seconds: float = 0.003, code: int = 0, reclaimed: int = 0) -> Report:
    made = Report("5f0c1d2e", Steps(iter([0.0, seconds]).__next__))
    made.steps.switch("queue")
    made.call = Invocation("cni-v6", command, "1.0.0", network, {}, log=Log())
    made.call.log.reclaimed = reclaimed
    made.error = CniError(code, "no") if code else None
    return made


def request(**env: str) -> Request:
    return Request("cni-v6", env, b"")


def test_calls_are_counted() -> None:
    counters = Counters()
    counters.call(report("ADD"), request())
    counters.call(report("ADD", seconds=2.0, code=101, reclaimed=3), request())
    counters.call(report("DEL", reclaimed=1), request())
    samples = counters.samples()
    assert [sample for sample in samples if sample.name in ("cni_v6_calls_total", "cni_v6_reclaimed_total")] == [
        Sample("cni_v6_calls_total", 1, ("cni-v6", "ADD", "pods", "0")),
        Sample("cni_v6_calls_total", 1, ("cni-v6", "ADD", "pods", "101")),
        Sample("cni_v6_calls_total", 1, ("cni-v6", "DEL", "pods", "0")),
        Sample("cni_v6_reclaimed_total", 4, ("pods",)),
    ]
    text = render(samples)
    assert 'cni_v6_call_duration_seconds_bucket{command="ADD",le="0.0025"} 0\n' in text
    assert 'cni_v6_call_duration_seconds_bucket{command="ADD",le="0.005"} 1\n' in text
    assert 'cni_v6_call_duration_seconds_bucket{command="ADD",le="+Inf"} 2\n' in text
    assert 'cni_v6_call_duration_seconds_sum{command="ADD"} 2.003\n' in text
    assert 'cni_v6_step_duration_seconds_count{command="ADD",step="compute"} 2\n' in text
    assert seen_by_prometheus(text) == as_it_should(samples)
    assert sorted(parse(text), key=str) == sorted(samples, key=str)


def test_what_an_engine_does_besides() -> None:
    counters = Counters()
    for step in (counters.event, counters.lose, counters.begin, counters.begin, counters.end):
        step()
    assert counters.busy == 1
    assert counters.samples() == [Sample("cni_v6_events_total", 1), Sample("cni_v6_log_lost_total", 1)]


def test_names_that_callers_choose_have_a_bound() -> None:
    counters = Counters()
    for number in range(10 * NETWORKS):
        counters.call(report("ADD", f"network{number}"), request())
        counters.call(Report("5f0c1d2e", Steps(float)), Request(f"plugin{number}", {"CNI_COMMAND": str(number)}, b""))
    calls = [sample.labels for sample in counters.samples() if sample.name == "cni_v6_calls_total"]
    assert len(calls) == NETWORKS + 2
    assert ("cni-v6", "ADD", OTHER, "0") in calls and ("", "", "", "0") in calls


@given(strategies.lists(strategies.tuples(
    strategies.text(strategies.characters(exclude_categories=["Cs", "Cc"]) | strategies.sampled_from('\\"\n,={} ')),
    strategies.integers(0, 2**64) | strategies.floats(0, 1e18),
), unique_by=lambda pair: pair[0]))
def test_any_text_is_read_as_it_was_written(pairs: list[tuple[str, float]]) -> None:
    samples = [Sample("cni_v6_attachments", value, (network,)) for network, value in pairs]
    text = render(samples)
    assert seen_by_prometheus(text) == as_it_should(samples)
    assert list(parse(text)) == [Sample(sample.name, float(sample.value), sample.labels) for sample in samples]


def test_what_is_not_ours_is_passed_over() -> None:
    assert list(parse("go_goroutines 7\n\n# TYPE x gauge\n")) == []


def test_every_metric_says_what_it_is() -> None:
    for name, metric in METRICS.items():
        assert metric.meaning.endswith(".") and name.startswith("cni_v6_")
        assert name.endswith("_total") == (metric.kind == "counter"), "as Prometheus names counters"


CHAINS: dict[str, str] = dict(re.findall(r"chain (\w+) \{(.*?)\n    \}", ruleset.text(), re.DOTALL))


def test_every_chain_that_drops_says_why() -> None:
    assert {name for name, rules in CHAINS.items() if re.search("counter (drop|goto drop_)", rules)} == REASONS.keys()


def test_every_rule_that_drops_what_is_a_containers_counts_for_it() -> None:
    plain = {"prerouting_filter", "to_segment", "unknown_address"}
    assert {name for name, rules in CHAINS.items() if "counter drop" in rules} == plain
    assert set(re.findall(r"goto (drop_\w+)", "".join(CHAINS.values()))) == dropped.CHAINS
    for name in dropped.CHAINS:  # where a set is full, update ends its rule, and the packet is dropped all the same
        counts, drop = CHAINS[name].split("\n")[1:]
        assert f"update @dropped_{name.removeprefix('drop_')} {{" in counts and drop.strip() == "drop"
    named = {name for _, name in dropped.COUNTED}
    assert set(re.findall(r"@(dropped_\w+)", "".join(CHAINS.values()))) == named


def counted_drop(family: str, name: str, *key: str) -> Element:
    return Element(family, name, key)


def test_drops_by_container() -> None:
    """By the host interface, or behind a bridge by the address; what is nobody's is left out."""
    records = [
        Attachment(Owner("pods", "a", "eth0"), ("fd00::a",), "vetha"),
        Attachment(Owner("pods", "a", "net1"), ("fd01::a",), "vetha1"),
        Attachment(Owner("web", "b", "eth0"), ("fd00::b", "10.0.0.2"), "vethb"),
    ]
    counted = [
        (counted_drop("bridge", "dropped_source", "vetha"), 3), (counted_drop("bridge", "dropped_source", "vetha1"), 4),
        (counted_drop("inet", "dropped_source", "vetha"), 2), (counted_drop("bridge", "dropped_router", "vethb"), 1),
        (counted_drop("inet", "dropped_closed4", "10.0.0.2", "cni0"), 7),
        (counted_drop("inet", "dropped_egress6", "fd00::a", "vetha"), 5),
        (counted_drop("inet", "dropped_egress6", "fd00::dead", "cni0"), 9),
        (counted_drop("inet", "dropped_source", "eth0"), 9),
    ]
    assert list(container_drops.samples(counted, records)) == [
        Sample(container_drops.NAME, packets, labels) for packets, labels in (
            (5, ("pods", "a", "egress")), (9, ("pods", "a", "source")), (7, ("web", "b", "closed")),
            (1, ("web", "b", "router")),
        )
    ]


def test_no_more_containers_are_named_than_a_bound() -> None:
    """Those with the most packets; the others are told together."""
    most = container_drops.MOST
    records = [Attachment(Owner("pods", f"c{number}", "eth0"), (), f"veth{number}") for number in range(most + 2)]
    counted = [(counted_drop("bridge", "dropped_source", f"veth{number}"), number + 1) for number in range(most + 2)]
    found = {sample.labels[1]: sample.value for sample in container_drops.samples(counted, records)}
    assert len(found) == most + 1 and found["(other)"] == 1 + 2 and found[f"c{most + 1}"] == most + 2


@pytest.mark.parametrize(
    "address", ["0.0.0.0:9164", "[::]:9164", "[2001:db8::1]:9164", "9164", "[::1]:99999", "[::1]:x"],
)
def test_there_is_no_port_for_the_network(address: str) -> None:
    with pytest.raises(CniError, match="no loopback address with a port") as refused:
        metrics.listen_on(address)
    assert refused.value.code == errors.INVALID_CONFIG


@pytest.mark.parametrize(("own", "path"), [
    ("/run/cni-v6/engine-4026531840.sock", "/run/cni-v6/metrics-4026531840.sock"),
    ("/run/cni-v6/engine.sock", "/run/cni-v6/metrics.sock"), ("/run/engine/a.sock", "/run/engine/metrics-a.sock"),
])
def test_the_socket_is_beside_the_engines(own: str, path: str) -> None:
    assert metrics.socket_beside(own) == path


def test_who_says_nothing_at_the_port_does_not_hold_up_the_socket(tmp_path: Path) -> None:
    port = metrics.listen_on("127.0.0.1:0")
    with pytest.MonkeyPatch.context() as patch, closing(socket.create_connection(port.getsockname())) as silent:
        patch.setattr(metrics, "SECONDS", 60.0)
        server = metrics.MetricsServer(str(tmp_path / "metrics.sock"), port, lambda: "all of them\n")
        with closing(server):
            with closing(socket.socket(socket.AF_UNIX)) as own:
                own.connect(str(tmp_path / "metrics.sock"))
                own.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                assert b"".join(iter(lambda: own.recv(1 << 12), b"")).endswith(b"\r\n\r\nall of them\n")
            with pytest.raises(BlockingIOError):  # it is still being waited for
                silent.recv(1, socket.MSG_DONTWAIT)
            silent.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert b"".join(iter(lambda: silent.recv(1 << 12), b"")).endswith(b"all of them\n")
    assert not (tmp_path / "metrics.sock").exists()


# What is shipped for Prometheus and Grafana


def expressions() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]:
        yield from ((rule["alert"], rule["expr"]) for rule in group["rules"])
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", []))


@pytest.mark.parametrize(("answer", "words"), [
    (b"HTTP/1.0 404 Not Found\r\n\r\n", "does not tell its metrics"),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\ncni_v6_", "has not told all of its metrics"),
])
def test_an_answer_that_is_none_or_half_of_one(answer: bytes, words: str) -> None:
    """As of an engine that ends just then: a textfile would lack what is missing."""
    asking, answering = socket.socketpair()
    with answering:
        answering.sendall(answer)
        answering.shutdown(socket.SHUT_WR)
        with pytest.raises(CniError, match=words):
            ask(asking.detach(), b"/run/cni-v6/engine.sock")


@pytest.mark.parametrize(("name", "expression"), [pytest.param(*pair, id=pair[0]) for pair in expressions()])
def test_a_rule_asks_for_metrics_and_labels_that_there_are(name: str, expression: str) -> None:
    named = re.findall(r"cni_v6_\w+", expression)
    assert named
    known: set[str] = {"le"}
    for word in named:
        base = re.sub(r"_(bucket|sum|count)$", "", word)
        own = word if word in METRICS else base
        assert own in METRICS, word
        assert (own == word) == (METRICS[own].kind != "histogram"), f"{word}: a histogram has buckets, sum and count"
        known |= set(METRICS[own].labels)
    groups = re.findall(r"(?:by|without|on) \(([^)]+)\)", expression)
    used = {label for group in groups for label in group.split(", ")}
    used |= set(re.findall(r"[{,](\w+)(?:=|!=|=~|!~)\"", expression))
    assert used - {"instance", "job"} <= known
    assert expression.count("(") == expression.count(")")


def test_every_alert_says_what_to_do() -> None:
    for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert rule["annotations"]["summary"] and "cni-v6ctl" in rule["annotations"]["description"], rule["alert"]


def test_the_dashboards_panels_do_not_overlap() -> None:
    places: set[tuple[int, int]] = set()
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & places and at["x"] + at["w"] <= 24, panel["title"]
        places |= own


def test_the_documentation_lists_every_metric() -> None:
    page = (ROOT / "docs/observing.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(cni_v6_\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|$", page, re.MULTILINE)
    assert rows == [
        (name, metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.meaning)
        for name, metric in METRICS.items()
    ]


# top


@pytest.mark.parametrize(("counts", "share", "value"), [
    ([(1.0, 0), (2.0, 10), (float("inf"), 10)], 0.5, 1.5), ([(1.0, 4), (float("inf"), 4)], 0.5, 0.5),
    ([(1.0, 0), (float("inf"), 3)], 0.95, 1.0), ([(1.0, 0), (float("inf"), 0)], 0.5, None), ([], 0.5, None),
])
def test_a_quantile(counts: list[tuple[float, float]], share: float, value: float | None) -> None:
    assert quantile(counts, share) == value


def values(*samples: Sample) -> dict[Any, float]:
    return {(sample.name + sample.suffix, sample.labels, sample.le): sample.value for sample in samples}


def counted(adds: int, started: float = 1000.0) -> list[Sample]:
    counters = Counters()
    for number in range(adds):
        counters.call(report("ADD", code=101 if number == 0 else 0), request())
    pool = ("pods", "10.1.0.0/24")
    return [
        *counters.samples(), Sample("cni_v6_attachments", adds, ("pods",)),
        Sample("cni_v6_pool_addresses", 254, pool), Sample("cni_v6_pool_leased", adds, pool),
        Sample("cni_v6_pool_left", 254 - adds, pool),
        Sample("cni_v6_pool_addresses", 2**64, ("pods", "fd00::/64")),
        Sample("cni_v6_dropped_packets_total", 10 * adds, ("guard_arp", REASONS["guard_arp"])),
        Sample("cni_v6_engine_start_time_seconds", started), Sample("cni_v6_engine_workers_busy", 2),
        Sample("cni_v6_engine_workers_max", 256), Sample("cni_v6_engine_resident_memory_bytes", 40 << 20),
    ]


def test_the_screen_shows_what_has_changed() -> None:
    view = View(values(*counted(10)), values(*counted(30)), 2.0)
    head, *lines = view.lines()
    assert re.fullmatch(r"engine \d+d; 30 attachments; 2 of 256 workers busy; 40 MiB", head)
    assert [line.split() for line in lines if line] == [
        ["COMMAND", "CALLS", "ERRORS", "RATE", "P50", "P95"],
        ["ADD", "20", "0", "10.0/s", "3.8", "ms", "4.9", "ms"],
        ["NETWORK", "LEASED", "WAITING", "LEFT", "SIZE", "POOL"],
        ["pods", "30", "0", "224", "254", "10.1.0.0/24"], ["pods", "0", "0", "0", "2^64", "fd00::/64"],
        ["DROPPED", "CHAIN", "REASON"], ["200", "guard_arp", *REASONS["guard_arp"].split()],
    ]
    assert max(map(len, lines)) <= 80


def test_after_a_restart_of_the_engine_all_is_new() -> None:
    document: Any = View(values(*counted(30)), values(*counted(10, 2000.0)), 2.0).document()
    assert document["calls"] == [
        {"command": "ADD", "count": 10, "errors": 1, "perSecond": 5.0, "p50": 0.00375, "p95": pytest.approx(0.004875)},
    ]
    assert document["attachments"] == {"pods": 10} and document["drops"][0]["packets"] == 100
    assert document["pools"][0] == {
        "network": "pods", "pool": "10.1.0.0/24", "addresses": 254, "leased": 10, "waiting": 0, "left": 244,
    }


def test_whole_numbers_are_integers_in_json() -> None:
    """jq 1.7 prints 3.0 as it is written, jq 1.6 as 3."""
    read = list(parse(render([*counted(30), Sample("cni_v6_engine_start_time_seconds", 0.5)])))
    assert {type(sample.value) for sample in read if sample.name == "cni_v6_calls_total"} == {int}
    assert [sample.value for sample in read if sample.value == 0.5] == [0.5]
    found = {(sample.name + sample.suffix, sample.labels, sample.le): sample.value for sample in read}
    calls: Any = View({}, found, 2.0).document()["calls"]
    assert (repr(calls[0]["count"]), repr(calls[0]["errors"])) == ("30", "1")


def test_without_an_engine_there_are_pools_and_attachments() -> None:
    view = View({}, values(Sample("cni_v6_attachments", 1, ("pods",))), None)
    assert list(view.lines()) == ["no engine; 1 attachment"]
    assert view.document() == {
        "engineSeconds": None, "calls": [], "pools": [], "attachments": {"pods": 1}, "drops": [],
    }
