"""What every store of a cluster does: in memory, in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from cni_v6.cluster.file_store import FileStore
from cni_v6.cluster.records import Change, to_text
from cni_v6.cluster.store import ClusterStore, MemoryStore

NODE, OTHER = to_text({"id": "1", "addresses": ["fd00::1"]}), to_text({"id": "2"})
Open = Callable[[], ClusterStore]  # the same objects each time, as another node sees them


@pytest.fixture(params=["memory", "file"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    if request.param == "memory":
        store = MemoryStore()
        yield lambda: store
    else:
        yield lambda: FileStore(str(tmp_path / "cluster.json"))


def test_objects_are_what_was_written(opened: Open) -> None:
    store = opened()
    assert store.read() == {}
    assert store.commit([Change("nodes/a", None, NODE), Change("blocks/fd42::/64", None, OTHER)])
    assert opened().read() == {"nodes/a": NODE, "blocks/fd42::/64": OTHER}
    assert store.commit([Change("nodes/a", NODE, OTHER), Change("blocks/fd42::/64", OTHER, None)])
    assert opened().read() == {"nodes/a": OTHER}


def test_all_changes_are_made_or_none(opened: Open) -> None:
    store = opened()
    assert store.commit([Change("nodes/a", None, NODE)])
    for changes in (
        [Change("nodes/b", None, OTHER), Change("nodes/a", None, OTHER)],
        [Change("nodes/b", None, OTHER), Change("nodes/a", OTHER, NODE)],
        [Change("nodes/b", None, OTHER), Change("nodes/c", NODE, None)],
        [Change("nodes/b", None, OTHER), Change("nodes/a", OTHER, OTHER)],
    ):
        assert not store.commit(changes) and store.read() == {"nodes/a": NODE}
    assert store.commit([Change("nodes/b", None, OTHER), Change("nodes/a", NODE, NODE), Change("nodes/c", None, None)])
    assert store.read() == {"nodes/a": NODE, "nodes/b": OTHER}
    assert store.commit([])


def test_one_of_many_creates_an_object(opened: Open) -> None:
    def claim(number: int) -> bool:
        return opened().commit([Change("blocks/fd42::/64", None, to_text({"node": str(number)}))])

    with ThreadPoolExecutor(8) as nodes:
        made = list(nodes.map(claim, range(16)))
    assert sum(made) == 1
    assert opened().read() == {"blocks/fd42::/64": to_text({"node": str(made.index(True))})}


def test_a_file_store_tells_of_changes_of_its_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    with closing(FileStore(str(path))) as store:
        assert not store.drain()
        assert FileStore(str(path)).commit([Change("nodes/a", None, NODE)]) and store.drain()
        assert not FileStore(str(path)).commit([Change("nodes/a", None, NODE)]) and not store.drain()
        assert store.commit([Change("nodes/a", NODE, NODE)]) and not store.drain()
        path.write_text(path.read_text().replace("fd00::1", "fd00::2"))  # by hand
        assert store.drain() and store.read()["nodes/a"] == NODE.replace("fd00::1", "fd00::2")
        path.unlink()
        assert store.drain() and store.read() == {}
