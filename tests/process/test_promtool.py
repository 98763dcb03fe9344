"""What is shipped for Prometheus, by Prometheus' own checker: rules, what makes each of them fire, queries, metrics."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cni_v6.engine.exposition import render
from tests.sandbox import ROOT, need
from tests.unit.test_metrics import ALERTS, DASHBOARD, counted

pytestmark = pytest.mark.slow

# Series in promtool's notation (start+step x times), one value a minute for two hours: those that make an alert fire,
# and the same node in order.
CALLS, POOL = 'cni_v6_calls_total{command="ADD", network="pods", code="%s"}', '{network="pods", pool="fd00::/112"}'
DROPS = 'cni_v6_container_dropped_packets_total{network="pods", container="a", reason="%s"}'
BUCKETS = [f'cni_v6_call_duration_seconds_bucket{{command="ADD", le="{bound}"}}' for bound in ("0.5", "2.5", "+Inf")]
FIRING: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "CniV6CallsFail": ({CALLS % "101": "0+1x120"}, {CALLS % "101": "7x120", CALLS % "0": "0+60x120"}),
    "CniV6AddSlow": (dict(zip(BUCKETS, ("0x120", "0+9x120", "0+9x120"))),
                     dict(zip(BUCKETS, ("0+9x120", "0+9x120", "0+9x120")))),
    "CniV6PoolNearlyEmpty": ({f"cni_v6_pool_left{POOL}": "9x120", f"cni_v6_pool_addresses{POOL}": "100x120"},
                             {f"cni_v6_pool_left{POOL}": "10x120", f"cni_v6_pool_addresses{POOL}": "100x120"}),
    "CniV6PoolRunsDry": ({f"cni_v6_pool_seconds_left{POOL}": "2000000x120"},
                         {f"cni_v6_pool_seconds_left{POOL}": "3000000x120"}),
    "CniV6ContainersLeak": ({'cni_v6_reclaimed_total{network="pods"}': "0+1x120"},
                            {'cni_v6_reclaimed_total{network="pods"}': "900x120"}),
    "CniV6Spoofing": ({DROPS % "router": "0+1200x120"}, {DROPS % "router": "0+30x120", DROPS % "closed": "0+9000x120"}),
    "CniV6EgressRefused": ({DROPS % "egress": "0+120x120"}, {DROPS % "egress": "0+6x120"}),
    "CniV6RepairsOften": ({"cni_v6_events_total": "0+1x120"}, {"cni_v6_events_total": "400x120"}),
    "CniV6EngineBusy": ({"cni_v6_engine_workers_busy": "250x120", "cni_v6_engine_workers_max": "256x120"},
                        {"cni_v6_engine_workers_busy": "4x120", "cni_v6_engine_workers_max": "256x120"}),
    "CniV6ScrapeIncomplete": ({"cni_v6_scrape_incomplete": "1x120"}, {"cni_v6_scrape_incomplete": "0x120"}),
}


def promtool(*arguments: object, said: str = "") -> str:
    places = (os.environ.get("PROMTOOL"), str(ROOT / ".tools/bin/promtool"), shutil.which("promtool"))
    found = next((place for place in places if place and os.access(place, os.X_OK)), None)
    need(found, "needs promtool: tools/promtool gets it")
    done = subprocess.run([str(found), *map(str, arguments)], input=said, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def test_prometheus_takes_the_rules() -> None:
    assert f"SUCCESS: {len(FIRING)} rules found" in promtool("check", "rules", ALERTS)


def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    """After an hour and a half: every one has been true for long enough, or never."""
    assert [rule["alert"] for rule in rules()] == list(FIRING)
    cases = []
    for name, (wrong, right) in FIRING.items():
        for series, fires in ((wrong, True), (right, False)):
            cases.append({
                "interval": "1m", "input_series": [{"series": key, "values": values} for key, values in series.items()],
                "promql_expr_test": [{
                    "expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}})', "eval_time": "90m",
                    "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
                }],
            })
    file = tmp_path / "cases.json"  # YAML contains JSON
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": cases}))
    assert "SUCCESS" in promtool("test", "rules", file)


def test_prometheus_can_read_every_query_of_the_dashboard(tmp_path: Path) -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    asked = [target["expr"].replace("$instance", ".+") for panel in panels for target in panel.get("targets", [])]
    file = tmp_path / "rules.json"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": [
        {"record": f"query{number}", "expr": query} for number, query in enumerate(asked)]}]}))
    assert f"SUCCESS: {len(asked)} rules found" in promtool("check", "rules", file)


def test_the_metrics_are_as_prometheus_wants_them() -> None:
    """Names, units, kinds and what they mean; nothing is said where all is well."""
    assert promtool("check", "metrics", said=render(counted(3))) == ""
