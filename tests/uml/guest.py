"""A pytest plugin for the run inside the user-mode kernel: writes every report to a file, a line each."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

VARIABLE = "CNI_V6_UML_REPORTS"  # the file; set for the run inside, and there only


class Recorder:
    """Appends each report as it comes: a run that is cut off leaves what it had."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self._config = config
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(data) + "\n")


def inside() -> bool:
    """Whether this is the run inside the user-mode kernel."""
    return VARIABLE in os.environ


def pytest_configure(config: pytest.Config) -> None:
    if inside():
        config.pluginmanager.register(Recorder(config, Path(os.environ[VARIABLE])))
