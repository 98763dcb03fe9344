"""Measures the steps of a call at the borders of its world: kernel, lease store, other plugins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from cni_v6.attachments.context import Context
from cni_v6.kernel.ops import Op
from cni_v6.kernel.questions import Question
from cni_v6.kernel.snapshot import Kernel, Snapshot
from cni_v6.leases.store import Leases, Transaction
from cni_v6.log import APPLY, LOCK, OBSERVE, PLUGIN, STORE, Steps
from cni_v6.protocol.invocation import Invocation


def timed(context: Context, steps: Steps) -> Context:
    """The same world; what is done in it counts as the step that it is."""

    def delegate(call: Invocation, plugin: str, command: str) -> Mapping[str, Any]:
        before = steps.switch(PLUGIN)
        try:
            return context.delegate(call, plugin, command)
        finally:
            steps.switch(before)

    return replace(
        context, kernel=_Kernel(context.kernel, steps), delegate=delegate,
        leases=lambda network, data_dir: _Leases(context.leases(network, data_dir), steps),
    )


class _Kernel:
    """See ``questions.Kernel``."""

    def __init__(self, kernel: Kernel, steps: Steps) -> None:
        self._kernel = kernel
        self._steps = steps
        self.netns_id = kernel.netns_id
        self.close = kernel.close

    def observe(self, questions: Iterable[Question]) -> Snapshot:
        before = self._steps.switch(OBSERVE)
        try:
            return self._kernel.observe(questions)
        finally:
            self._steps.switch(before)

    def apply(self, ops: Iterable[Op]) -> Mapping[Op, Op | None]:
        before = self._steps.switch(APPLY)
        try:
            return self._kernel.apply(ops)
        finally:
            self._steps.switch(before)

    def remove(self, ops: Iterable[Op]) -> None:
        before = self._steps.switch(APPLY)
        try:
            self._kernel.remove(ops)
        finally:
            self._steps.switch(before)


class _Leases:
    """See ``leases.store.Leases``. What is done while the lock is held counts as the store's, but for the kernel's."""

    def __init__(self, leases: Leases, steps: Steps) -> None:
        self._leases = leases
        self._steps = steps
        self.damaged = leases.damaged
        self.may_be_guarded = leases.may_be_guarded
        self.peek = leases.peek
        self.past = leases.past
        self.count = leases.count
        self.traces = leases.traces

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        before = self._steps.switch(LOCK)
        try:
            with self._leases.transaction() as leases:
                self._steps.switch(STORE)
                yield leases
        finally:
            self._steps.switch(before)
