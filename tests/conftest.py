"""What every test run needs: hypothesis the same every time, and no network test on the machine's own network."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import hypothesis
import pytest

pytest.register_assert_rewrite("tests.outputs", "tests.sandbox")

from tests import outputs  # noqa: E402
from tests.couriers import build  # noqa: E402  (after the asserts below are registered)
from tests.sandbox import Node, need_sandbox  # noqa: E402

# "ci": the same examples in every run, however slow the machine. HYPOTHESIS_PROFILE=explore looks for new ones.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# The ways in. "process": each call in its own; "engine": they find one, or leave one behind; "courier": so, through it.
# They carry the calls of any main plugin alike: test_add_del alone crosses all ways with all main plugins. And they
# carry all calls alike: besides through an engine, the tests of a suite in tests/netns run by one of the other two, in
# turn, but for suites of what may differ by the way ("every_way").
COURIER = pytest.param("courier", marks=pytest.mark.courier)
MODES = ("process", "engine", COURIER)
IN_TURN = ("process", "courier")
DUAL = (6, 4)  # as many sets as a dual-stack network has
MARKED_FOLDERS = ("bare", "netns", "process")
ALL_WAYS = ("both_ways", "crossed", "every_way")  # the last two: it has no turn, or needs none
SANDBOXED = ("kubernetes", "netns", "process", "runtimes", "uml", "wireguard")


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """A test in ``tests/netns`` is a netns test without saying so; without an engine, or of routed and macvlan networks
    where the bridge's run proves the same, most of them are slow."""
    turns = Counter[tuple[Path, str]]()
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if parameters.get("node") == "process" and not item.get_closest_marker("both_ways"):
            item.add_marker("slow")
        kind = parameters.get("main_plugin") or parameters.get("any_plugin")
        if kind == "cni-v6-macvlan" or (kind == "cni-v6-routed" and not item.get_closest_marker("core")):
            item.add_marker("slow")
        if kind in ("cni-v6-routed", "cni-v6-macvlan") and parameters.get("node") in ("process", "courier") and (
            item.path.stem != "test_add_del" or kind == "cni-v6-macvlan"
        ):
            item.add_marker("crossed")
        if kind == "cni-v6-macvlan" and len(parameters.get("subnets", DUAL)) < len(DUAL):
            item.add_marker("crossed")
        folder = item.nodeid.split("/")[1]  # tests/FOLDER/...
        if folder in MARKED_FOLDERS:
            item.add_marker(folder)
        way = parameters.get("node")
        if folder == "netns" and way in IN_TURN and not any(map(item.get_closest_marker, ALL_WAYS)):
            turns[item.path, way] += 1
            if turns[item.path, way] % 2 != IN_TURN.index(way):
                item.add_marker("crossed")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture of it is made."""
    if any(item.get_closest_marker(name) for name in SANDBOXED):
        need_sandbox()


@pytest.fixture(scope="session", autouse=True)
def checked_outputs() -> Iterator[None]:
    """Whatever a test has a command of cni-v6ctl print with --json is valid."""
    with outputs.checked():
        yield


@pytest.fixture(scope="session")
def couriers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of couriers in front of the checkout's executables."""
    return str(build(tmp_path_factory.mktemp("courier") / "bin"))


def node_reached_by(request: pytest.FixtureRequest) -> Iterator[Node]:
    """A throwaway node whose plugins are called in the way that the fixture's parameter names."""
    mode = request.param
    folder = {"plugins": request.getfixturevalue("couriers")} if mode == "courier" else {}
    made = Node(engine=mode != "process", **folder)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(params=["engine", COURIER])
def warm_node(request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node whose calls find an engine, or leave one behind."""
    yield from node_reached_by(request)


@pytest.fixture
def quiet_node() -> Iterator[Node]:
    """A node without an engine: between calls nobody sees to anything."""
    with closing(Node()) as made:
        yield made


@pytest.fixture(params=MODES)
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    """A throwaway node, once for each way to reach the plugins."""
    yield from node_reached_by(request)
