"""What is kept of a run of Kubernetes' own tests, and the page about it."""

from __future__ import annotations

import re
from dataclasses import replace

from tests.conformance.report import OURS, REFERENCE, page
from tests.conformance.results import FAILED, PASSED, SKIPPED, Outcome, Run, Times, again, read_junit, read_run

JUNIT = """<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="6"><testsuite name="Kubernetes e2e suite">
<testcase name="[SynchronizedBeforeSuite]" status="passed" time="1.5"></testcase>
<testcase name="[It] [sig-network] Services should be there [Conformance]" status="passed" time="4.26"></testcase>
<testcase name="[It] [sig-network] Services should have two | families [Conformance]" status="skipped" time="0.5">
  <skipped message="skipped - it has `one`"></skipped></testcase>
<testcase name="[It] [sig-network] Services should speak SCTP [Conformance]" status="skipped" time="0">
  <skipped message="skipped"></skipped></testcase>
<testcase name="[It] [sig-network] DNS should answer [Conformance]" status="failed" time="60.04">
  <failure type="failed">

  [FAILED] no answer
  more</failure></testcase>
<testcase name="[It] [sig-node] Pods should run [Conformance]" status="skipped" time="0">
  <skipped message="skipped"></skipped></testcase>
<testcase name="[DeferCleanup]" status="failed" time="2"><error message="it hangs" type="timedout">x</error></testcase>
</testsuite></testsuites>
"""
CHOSEN = re.compile(r"\[sig-network\].*\[Conformance\]")
RUN = Run([
    Outcome("[DeferCleanup]", FAILED, 2.0, "it hangs"),
    Outcome("[sig-network] DNS should answer [Conformance]", FAILED, 60.0, "[FAILED] no answer"),
    Outcome("[sig-network] Services should be there [Conformance]", PASSED, 4.3),
    Outcome("[sig-network] Services should have two | families [Conformance]", SKIPPED, 0.5, "it has `one`"),
], ["[sig-network] Services should speak SCTP [Conformance]"])


def test_a_run_is_what_was_selected_and_whatever_failed() -> None:
    assert read_junit(JUNIT, CHOSEN, re.compile("SCTP")) == RUN


def test_a_run_is_read_as_it_was_kept() -> None:
    run = replace(RUN, minutes=3.5, times=[Times(30, 4.5, 5.9)])
    assert read_run(run.document()) == run


def test_tests_that_run_once_more() -> None:
    answered, later = Outcome(RUN.outcomes[1].name, PASSED, 2.0), Outcome("[sig-network] Ingress", PASSED, 1.0)
    found = again(replace(RUN, minutes=3.5), Run([answered, later], minutes=0.2))
    alone = [replace(outcome, alone=True) for outcome in (answered, later)]
    assert found == replace(RUN, minutes=3.5, outcomes=[RUN.outcomes[0], *alone, *RUN.outcomes[2:]])
    shown = page({"dual-stack": {OURS: found}}, "v1.35.4", "v1.15.0", "Machine: this.")
    assert "| `DNS should answer [Conformance]` | passed, alone |" in shown


def test_the_page_tells_clusters_and_networks_apart() -> None:
    timed = replace(RUN, minutes=12.4, times=[Times(30, 4.5, 5.9), Times(30, 4.6, 6.1), Times(30, 4.7, 9.9)])
    only_timed = Run([], times=[Times(30, 4.4, 5.6)])
    shown = page({"dual-stack": {OURS: timed, REFERENCE: only_timed}, "IPv6 only": {OURS: Run(RUN.outcomes[2:3])}},
                 "v1.35.4", "v1.15.0", "Machine: this.")
    for line in (
        "| dual-stack | cni-v6 | 1 | 2 | 1 | 1 | 12 |", "| IPv6 only | cni-v6 | 1 | 0 | 0 | 0 | 0 |",
        "| dual-stack | cni-v6 | `DNS should answer [Conformance]` | `[FAILED] no answer` |",
        "| dual-stack | cni-v6 | `Services should have two / families [Conformance]` | `it has 'one'` |",
        "- `Services should speak SCTP [Conformance]`",
        "| dual-stack | cni-v6 | 30 | 3 | 4.6 s | 6.1 s | 5.9 s |",
        "| dual-stack | reference | 30 | 1 | 4.4 s | 5.6 s | 5.6 s |",
        "| `Services should be there [Conformance]` | passed | passed |",
        "| `DNS should answer [Conformance]` | failed | - |",
    ):
        assert line in shown.splitlines(), line
    assert "| dual-stack | reference | 0" not in shown, "a run of pods alone says nothing of tests"
