"""The copy of a store's objects that a watch keeps up to date."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

import pytest

from cni_v6.cluster.mirror import MOST_CHARACTERS, Event, Kept, Mirror
from cni_v6.errors import CniError

NOW, PATIENCE = 0.0, 30.0


@pytest.fixture
def mirror() -> Mirror:
    made = Mirror()
    made.replace({"a": Kept("1", 5), "b": Kept("2", 7)}, 10)
    made.follow(True)
    return made


def texts(mirror: Mirror, least: int = 0) -> dict[str, str] | None:
    found = mirror.read(least, NOW)
    return None if found is None else {key: kept.text for key, kept in found.items()}


def test_what_a_watch_tells_of_is_applied(mirror: Mirror) -> None:
    assert mirror.apply([Event("a", "3", 11), Event("b", None, 12), Event("c", "4", 12)], 12)
    assert texts(mirror) == {"a": "3", "c": "4"} and mirror.start() == 12
    assert mirror.read(12, NOW) == {"a": Kept("3", 11), "c": Kept("4", 12)} and texts(mirror, 13) is None


def test_a_store_that_grows_without_end(mirror: Mirror) -> None:
    """What is replaced or deleted does not count; then what a watch tells of is refused."""
    much = "x" * (MOST_CHARACTERS - 10)
    for revision in range(11, 15):
        mirror.apply([Event("c", much, revision)], revision)
    assert mirror.apply([Event("c", None, 15), Event("d", much, 15)], 15)
    with pytest.raises(CniError, match="more than 67108864 characters"):
        mirror.apply([Event("e", "1234567890", 16)], 16)
    mirror.forget()
    mirror.replace({}, 3)
    assert mirror.apply([Event("e", much, 16)], 16)


def test_news_is_what_changes_a_text(mirror: Mirror) -> None:
    assert not mirror.apply([Event("a", "1", 11)], 11) and mirror.read(11, NOW) == {
        "a": Kept("1", 11), "b": Kept("2", 7)}
    assert not mirror.apply([], 15) and texts(mirror, 15) is not None  # a bookmark
    assert not mirror.apply([Event("z", None, 16)], 16)


def test_what_a_read_has_shown_already_is_left_out(mirror: Mirror) -> None:
    """The server was read meanwhile; the watch is behind."""
    mirror.replace({"b": Kept("9", 14)}, 14)
    assert not mirror.apply([Event("a", "3", 12)], 12) and texts(mirror) == {"b": "9"}
    assert mirror.apply([Event("b", None, 13), Event("c", "4", 15)], 15) and texts(mirror) == {"b": "9", "c": "4"}
    mirror.replace({}, 14)  # an answer that was under way for long
    assert texts(mirror) == {"b": "9", "c": "4"}


def test_without_a_watch_there_is_no_copy(mirror: Mirror) -> None:
    mirror.follow(False)
    assert texts(mirror) is None
    mirror.follow(True)
    assert texts(mirror) == {"a": "1", "b": "2"}
    mirror.forget()
    mirror.follow(True)
    assert texts(mirror) is None and not mirror.apply([Event("a", "3", 11)], 11)


def test_a_reader_waits_for_its_own_change_but_not_for_a_watch_that_ended(mirror: Mirror) -> None:
    found: list[object] = []
    reader = Thread(target=lambda: found.append(mirror.read(11, PATIENCE)))
    reader.start()
    mirror.apply([Event("a", None, 11)], 11)
    reader.join()
    reader = Thread(target=lambda: found.append(mirror.read(12, PATIENCE)))
    reader.start()
    mirror.follow(False)
    reader.join()
    assert found == [{"b": Kept("2", 7)}, None]


@pytest.mark.parametrize(("act", "expected"), [(lambda made: made.replace({}, 3), 3), (Mirror.end, None)])
def test_a_listener_waits_until_there_are_objects(act: Callable[[Mirror], None], expected: int | None) -> None:
    mirror = Mirror()
    found: list[int | None] = []
    listener = Thread(target=lambda: found.append(mirror.start()))
    listener.start()
    act(mirror)
    listener.join()
    assert found == [expected] and mirror.start() == expected
