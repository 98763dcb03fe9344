"""Runs the tests of this folder inside a user-mode kernel, all that want the same kernel in one boot.

What runs there is pytest again, and its reports become the reports of these tests: each passes or fails on its own and
shows its own traceback. ``@pytest.mark.uml(parameters="ipv6.disable=1")`` gives the kernel parameters.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.sandbox import ROOT, Node, need, need_sandbox
from tests.uml import guest, kernel

PASSED_ON = ("CI", "CNI_V6_REQUIRE_ALL", "HYPOTHESIS_PROFILE")
OPTIONS = ("-p", "tests.uml.guest", "-p", "no:cacheprovider", "--tb=short")


@dataclass(slots=True)
class Boot:
    """What came out of one boot: the reports of each test, and everything that was printed."""

    reports: dict[str, list[pytest.TestReport]] = field(default_factory=dict)
    text: str = "it was not booted: see the first test"


BOOTS = pytest.StashKey[dict[str, Boot]]()


@pytest.fixture
def node() -> Iterator[Node]:
    """A throwaway node whose calls find an engine: which way leads to the plugin is no matter of the kernel, and there
    calls that each have a process of their own take twice as long."""
    made = Node(engine=True)
    try:
        yield made
    finally:
        made.close()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Report what became of the test inside, in place of running it here."""
    if guest.inside() or item.get_closest_marker("uml") is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _reports(item):
        report.nodeid, report.location = item.nodeid, item.location
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _reports(item: pytest.Item) -> list[pytest.TestReport]:
    """The reports from inside, or one of a set-up that failed or was skipped."""
    found: list[pytest.TestReport] = []
    stop = (pytest.exit.Exception, KeyboardInterrupt)
    call = pytest.CallInfo.from_call(lambda: found.extend(_inside(item)), when="setup", reraise=stop)
    if call.excinfo is None:
        return found
    report: pytest.TestReport = item.ihook.pytest_runtest_makereport(item=item, call=call)
    return [report]


def _inside(item: pytest.Item) -> list[pytest.TestReport]:
    """Boot at the first test that wants this kernel, for all of them; a boot that fails is not tried again."""
    need_sandbox()
    need(not kernel.missing(), f"needs {kernel.missing()}")
    parameters = _parameters(item)
    boots = item.config.stash.setdefault(BOOTS, {})
    if parameters not in boots:
        boots[parameters] = Boot()
        with TemporaryDirectory() as folder:
            same = [_name(each) for each in item.session.items if _parameters(each) == parameters]
            boots[parameters] = _boot(item.config, same, parameters, Path(folder))
    reports = boots[parameters].reports.get(_name(item), [])
    if not reports or reports[-1].when != "teardown":
        pytest.fail(f"it did not come to its end inside:\n{boots[parameters].text}", pytrace=False)
    return reports


def _boot(config: pytest.Config, names: Sequence[str], parameters: str, folder: Path) -> Boot:
    path = folder / "reports"
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    env |= {guest.VARIABLE: str(path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(ROOT / "tools/sandbox"), sys.executable, "-m", "pytest", *OPTIONS, *names]
    outcome = kernel.boot(command, folder, env, parameters)
    boot = Boot(text=outcome.text())
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        report = config.hook.pytest_report_from_serializable(config=config, data=json.loads(line))
        boot.reports.setdefault(report.nodeid, []).append(report)
    return boot


def _name(item: pytest.Item) -> str:
    """The test's node id, without the name of its group that pytest-xdist adds."""
    assert item.parent
    return f"{item.parent.nodeid}::{item.name}"


def _parameters(item: pytest.Item) -> str:
    """The kernel parameters a test wants; "-" for one that does not run in this kernel."""
    marker = item.get_closest_marker("uml")
    return str(marker.kwargs.get("parameters", "")) if marker else "-"
