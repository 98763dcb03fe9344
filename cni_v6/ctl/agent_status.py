"""The file beside the engine's sockets in which the agent of this network namespace says how it is."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from cni_v6.cluster import files, status
from cni_v6.cluster.report import room
from cni_v6.cluster.status import Status
from cni_v6.errors import CniError
from cni_v6.kernel.netns.enter import identity
from cni_v6.kernel.ops import HOST
from cni_v6.leases.disk import lock
from cni_v6.leases.disk.data_dirs import RUN_DIR
from cni_v6.plan.health.agent import AgentFacts


def path(suffix: str) -> str:
    """Of the status (``.json``), of the lock that the agent holds (``.lock``), and of its metrics (``.sock``)."""
    return f"{os.environ.get('CNI_V6_RUN_DIR', RUN_DIR)}/agent-{identity(HOST)[1]}{suffix}"


class StatusFile:
    """It is replaced whole. Two threads of the agent write it."""

    def __init__(self, first: Status) -> None:
        self._path = path(".json")
        self._status = first
        self._lock = threading.Lock()

    def update(self, **changes: Any) -> None:
        """The agent goes on if it cannot be written."""
        with self._lock, suppress(CniError):
            self._status = replace(self._status, **changes)
            files.replace(self._path, status.encode(self._status))

    @property
    def steps(self) -> int:
        return self._status.steps

    def remove(self) -> None:
        with suppress(CniError):
            files.remove(self._path)


def read() -> Status | None:
    """None if no agent has run here since the boot."""
    content = files.read(path(".json"))
    return status.read(content) if content is not None else None


def facts() -> AgentFacts | None:
    """
    :raises CniError: IO_FAILURE.
    """
    found = read()
    if found is None:
        return None
    silent = (f"{answer.node} (IPv{answer.family})" for answer in found.measured.answers if not answer.answers)
    return AgentFacts(
        found.node, found.target, runs(), os.path.exists(found.target),
        _behind(found), found.nodes, found.complaints,
        {block: (leases, room(block)) for block, leases in found.measured.used.items()}, tuple(silent),
    )


def _behind(found: Status) -> float | None:
    """Nothing if the last look could read the store: without news there is none for hours."""
    if found.synced >= found.stepped:
        return 0.0
    return max(0.0, time.time() - found.synced) if found.synced else None


def runs() -> bool:
    try:
        return lock.lock_holder(os.stat(path(".lock"))) is not None
    except OSError:
        return False
