"""Runs the tests of this folder inside a user-mode kernel, all that want the same kernel in one boot.

What runs there is pytest again, and its reports become the reports of these tests: each passes or fails on its own and
shows its own traceback. ``@pytest.mark.uml(parameters="ipv6.disable=1")`` gives the kernel parameters;
``@pytest.mark.wireguard`` takes the kernel that tools/uml-kernel builds.
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


Wanted = tuple[str, str]  # a kernel's file, its parameters
BOOTS = pytest.StashKey[dict[Wanted, Boot]]()


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
    if guest.inside() or _marker(item) is None:
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
    wanted = _wanted(item)
    need(not kernel.missing(wanted[0]), f"needs {kernel.missing(wanted[0])}")
    boots = item.config.stash.setdefault(BOOTS, {})
    if wanted not in boots:
        boots[wanted] = Boot()
        with TemporaryDirectory() as folder:
            same = [_name(each) for each in item.session.items if _wanted(each) == wanted]
            boots[wanted] = _boot(item.config, same, wanted, Path(folder))
    reports = boots[wanted].reports.get(_name(item), [])
    if not reports or reports[-1].when != "teardown":
        pytest.fail(f"it did not come to its end inside:\n{boots[wanted].text}", pytrace=False)
    return reports


def _boot(config: pytest.Config, names: Sequence[str], wanted: Wanted, folder: Path) -> Boot:
    path = folder / "reports"
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    env |= {guest.VARIABLE: str(path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(ROOT / "tools/sandbox"), sys.executable, "-m", "pytest", *OPTIONS, *names]
    outcome = kernel.boot(command, folder, env, kernel=wanted[0], parameters=wanted[1])
    boot = Boot(text=outcome.text())
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        report = config.hook.pytest_report_from_serializable(config=config, data=json.loads(line))
        boot.reports.setdefault(report.nodeid, []).append(report)
    return boot


def _name(item: pytest.Item) -> str:
    """The test's node id, without the name of its group that pytest-xdist adds."""
    assert item.parent
    return f"{item.parent.nodeid}::{item.name}"


def _marker(item: pytest.Item) -> pytest.Mark | None:
    return item.get_closest_marker("uml") or item.get_closest_marker("wireguard")


def _wanted(item: pytest.Item) -> Wanted:
    """The kernel that a test wants, and its parameters; "-" for a test that runs in the machine's own."""
    marker = _marker(item)
    if marker is None:
        return "", "-"
    return kernel.KERNEL if marker.name == "uml" else kernel.BUILT, str(marker.kwargs.get("parameters", ""))
