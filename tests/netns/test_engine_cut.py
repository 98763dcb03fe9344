"""Cut off anywhere, through the engine: the engine is killed, or its caller, before any operation of a call.

The callers are the executables, the engine is the product's own server: see ``engine_stage``.
"""

from __future__ import annotations

import itertools
from contextlib import closing

import pytest

from tests.netns.networks import Pod
from tests.netns.stepped_engine import SteppedEngine
from tests.netns.stepped_kernel import CUT, PAUSE
from tests.netns.test_cut import SCENARIOS, Start, plugins, start  # noqa: F401 (the fixture too)
from tests.sandbox import PLUGIN_PATH, Node

pytestmark = pytest.mark.slow


def come_and_go(pod: Pod, *folders: str) -> None:
    pod.add(path=(*folders, *PLUGIN_PATH))
    pod.delete(path=(*folders, *PLUGIN_PATH))


@pytest.mark.parametrize("fresh", [True, False], ids=["first container", "further container"])
def test_an_engine_killed_before_any_operation_is_code_11_and_the_next_calls_work(warm_node: Node, fresh: bool) -> None:
    """The next calls: nothing is repaired or waited for before DEL, and they leave an engine behind, as on any node."""
    pod = Pod(warm_node, SCENARIOS["dual-stack"], "a")
    come_and_go(pod)
    with closing(SteppedEngine(warm_node)) as stepped:
        assert stepped.stop()
        begin = Start(warm_node, fresh)
        for position in itertools.count():
            begin.over()
            stepped.start(CUT, position)
            answer = pod.call("ADD")
            if answer.code == 0:  # there is no such position
                break
            assert "run the command again" in answer.error(11)
            pod.delete()
            left = begin.difference()
            assert not left, f"killed before operation {position}:\n" + "\n".join(left)
            assert stepped.hear() == {"ended": 9}
            come_and_go(pod)
            assert stepped.stop()
        assert stepped.hear() == {"handled": "ADD", "code": 0, "steps": position - 1}
    assert position > 5


def test_an_engine_killed_before_any_operation_of_a_del_is_code_11_and_the_next_one_works(warm_node: Node) -> None:
    pod = Pod(warm_node, SCENARIOS["dual-stack"], "a")
    come_and_go(pod)
    with closing(SteppedEngine(warm_node)) as stepped:
        begin = Start(warm_node, fresh=False)
        for position in itertools.count():
            pod.add()
            assert stepped.stop()
            stepped.start(CUT, position)
            answer = pod.call("DEL")
            if answer.code == 0:
                break
            assert "run the command again" in answer.error(11)
            pod.delete()
            left = begin.difference()
            assert not left, f"killed before operation {position}:\n" + "\n".join(left)
            assert stepped.hear() == {"ended": 9}
        assert stepped.hear() == {"handled": "DEL", "code": 0, "steps": position - 1}
    assert position > 1


# The plans in between differ in nothing that the engine sees; ``test_cut`` goes through all of them.
@pytest.mark.parametrize(("name", "fresh"), [("dual-stack", True), ("dual-stack", False), ("delegated", True)])
def test_a_caller_killed_before_any_operation_gets_its_add_undone(
    warm_node: Node, plugins: str, name: str, fresh: bool  # noqa: F811
) -> None:
    pod = Pod(warm_node, SCENARIOS[name], "a")
    come_and_go(pod, plugins)
    with closing(SteppedEngine(warm_node)) as stepped:
        assert stepped.stop()
        begin = Start(warm_node, fresh)
        position, steps = 0, 0
        while position <= steps:
            begin.over()
            stepped.start(PAUSE, position)
            caller = start(warm_node, pod, "ADD", plugins)
            assert stepped.hear() == {"held": position}
            caller.kill()
            caller.communicate()
            stepped.go_on()
            added = stepped.hear()
            assert (added["handled"], added["code"]) == ("ADD", 0), added
            undone = stepped.hear()
            assert (undone["handled"], undone["code"]) == ("DEL", 0), undone
            left = begin.difference()
            assert not left, f"its caller was killed before operation {position}:\n" + "\n".join(left)
            come_and_go(pod, plugins)
            assert [stepped.hear()["handled"], stepped.hear()["handled"]] == ["ADD", "DEL"]
            assert stepped.stop()
            assert stepped.hear() == {"ended": 0}
            position, steps = position + 1, added["steps"]
    assert position == steps + 1 > 5
