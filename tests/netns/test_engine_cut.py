"""Cut off anywhere, through the engine: the engine is killed, or its caller, before any operation of a call.

The callers are the executables, the engine is the product's own server: see ``engine_stage``.
"""

from __future__ import annotations

import itertools
from contextlib import closing

import pytest

from tests.netns.engine_stage import EngineStage
from tests.netns.lab import Pod
from tests.netns.stage import CUT, PAUSE
from tests.netns.test_cut import SCENARIOS, Start, plugins, start  # noqa: F401 (the fixture too)
from tests.sandbox import PLUGIN_PATH, Node

pytestmark = pytest.mark.slow


def come_and_go(pod: Pod, *folders: str) -> None:
    pod.add(path=(*folders, *PLUGIN_PATH))
    pod.delete(path=(*folders, *PLUGIN_PATH))


@pytest.mark.parametrize("fresh", [True, False], ids=["first container", "further container"])
def test_an_engine_killed_before_any_operation_is_code_11_and_the_next_calls_work(warm: Node, fresh: bool) -> None:
    """The next calls: nothing is repaired or waited for before DEL, and they leave an engine behind, as on any node."""
    pod = Pod(warm, SCENARIOS["dual-stack"], "a")
    come_and_go(pod)
    with closing(EngineStage(warm)) as stage:
        assert stage.stop()
        begin = Start(warm, fresh)
        for position in itertools.count():
            begin.over()
            stage.start(CUT, position)
            answer = pod.call("ADD")
            if answer.code == 0:  # there is no such position
                break
            assert "run the command again" in answer.error(11)
            pod.delete()
            left = begin.difference()
            assert not left, f"killed before operation {position}:\n" + "\n".join(left)
            assert stage.hear() == {"ended": 9}
            come_and_go(pod)
            assert stage.stop()
        assert stage.hear() == {"handled": "ADD", "code": 0, "steps": position - 1}
    assert position > 5


def test_an_engine_killed_before_any_operation_of_a_del_is_code_11_and_the_next_one_works(warm: Node) -> None:
    pod = Pod(warm, SCENARIOS["dual-stack"], "a")
    come_and_go(pod)
    with closing(EngineStage(warm)) as stage:
        begin = Start(warm, fresh=False)
        for position in itertools.count():
            pod.add()
            assert stage.stop()
            stage.start(CUT, position)
            answer = pod.call("DEL")
            if answer.code == 0:
                break
            assert "run the command again" in answer.error(11)
            pod.delete()
            left = begin.difference()
            assert not left, f"killed before operation {position}:\n" + "\n".join(left)
            assert stage.hear() == {"ended": 9}
        assert stage.hear() == {"handled": "DEL", "code": 0, "steps": position - 1}
    assert position > 1


# The plans in between differ in nothing that the engine sees; ``test_cut`` goes through all of them.
@pytest.mark.parametrize(("name", "fresh"), [("dual-stack", True), ("dual-stack", False), ("delegated", True)])
def test_a_caller_killed_before_any_operation_gets_its_add_undone(
    warm: Node, plugins: str, name: str, fresh: bool  # noqa: F811
) -> None:
    pod = Pod(warm, SCENARIOS[name], "a")
    come_and_go(pod, plugins)
    with closing(EngineStage(warm)) as stage:
        assert stage.stop()
        begin = Start(warm, fresh)
        position, steps = 0, 0
        while position <= steps:
            begin.over()
            stage.start(PAUSE, position)
            caller = start(warm, pod, "ADD", plugins)
            assert stage.hear() == {"held": position}
            caller.kill()
            caller.communicate()
            stage.go_on()
            added = stage.hear()
            assert (added["handled"], added["code"]) == ("ADD", 0), added
            undone = stage.hear()
            assert (undone["handled"], undone["code"]) == ("DEL", 0), undone
            left = begin.difference()
            assert not left, f"its caller was killed before operation {position}:\n" + "\n".join(left)
            come_and_go(pod, plugins)
            assert [stage.hear()["handled"], stage.hear()["handled"]] == ["ADD", "DEL"]
            assert stage.stop()
            assert stage.hear() == {"ended": 0}
            position, steps = position + 1, added["steps"]
    assert position == steps + 1 > 5
