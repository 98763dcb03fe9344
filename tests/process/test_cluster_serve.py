"""When the agent makes its next step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import cast

import pytest

from cni_v6.cluster.agent import Agent, Outcome
from cni_v6.cluster.serve import serve

DONE = Outcome(ready=False, complete=True, removed=True)


class Steps:
    """An agent with these outcomes."""

    def __init__(self, *outcomes: Outcome) -> None:
        self._outcomes = iter((*outcomes, DONE))

    def step(self) -> Outcome:
        return next(self._outcomes)


class Restless:
    """A source that always has news, of no importance."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.write(self.writer, b".")

    def fileno(self) -> int:
        return self.reader

    def drain(self) -> bool:
        return False


@pytest.fixture
def restless() -> Iterator[Restless]:
    made = Restless()
    yield made
    os.close(made.reader)
    os.close(made.writer)


@pytest.mark.timeout(60)  # it would wait for ever
@pytest.mark.parametrize("outcome", [
    Outcome(ready=True, complete=True, again=0.01), Outcome(ready=True, complete=False),
], ids=["a block is due", "something failed"])
def test_news_of_no_importance_do_not_put_a_step_off(restless: Restless, outcome: Outcome) -> None:
    assert serve(cast(Agent, Steps(outcome)), [restless]) == 0
