"""What is read from a copy and what from the server, whatever becomes of the watch; the test plays the server."""

from __future__ import annotations

import select
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from queue import SimpleQueue

import pytest

from cni_v6.cluster import follow
from cni_v6.cluster.follow import Bell, Follower
from cni_v6.cluster.mirror import Event, Forgotten, Kept
from cni_v6.errors import DECODING_FAILURE, IO_FAILURE, CniError

PATIENCE = 30.0
ENDED = object()
BROKEN = CniError(IO_FAILURE, "the connection is reset")
GARBAGE = CniError(DECODING_FAILURE, "that is not JSON")


class Played:
    """A server. ``lists``: how often it was asked for all objects. ``watched``: from which revisions."""

    def __init__(self) -> None:
        self.objects = {"a": Kept("1", 1)}
        self.revision = 1
        self.lists = 0
        self.watched: list[int] = []
        self.refusal: CniError | type[Forgotten] | None = None
        self.away: CniError | None = None
        self.told: SimpleQueue[object] = SimpleQueue()

    def list(self) -> tuple[dict[str, Kept], int]:
        self.lists += 1
        if self.away:
            raise self.away
        return dict(self.objects), self.revision

    @contextmanager
    def watch(self, revision: int, attempt: int) -> Iterator[Played]:
        self.watched.append(revision)
        if self.refusal:
            raise self.refusal
        yield self

    def opened(self) -> None:
        return None

    def __iter__(self) -> Iterator[tuple[Sequence[Event], int]]:
        while True:
            told = self.told.get()
            if told is ENDED:
                return
            if isinstance(told, Event):
                yield [told], told.revision
            else:
                raise told  # type: ignore[misc]

    def change(self, key: str, text: str, told: bool = True) -> None:
        self.revision += 1
        self.objects[key] = Kept(text, self.revision)
        if told:
            self.told.put(Event(key, text, self.revision))


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(follow, "FIRST_PAUSE_SECONDS", 0.001)
        patch.setattr(follow, "LAST_PAUSE_SECONDS", 0.01)
        yield


@pytest.fixture
def server() -> Played:
    return Played()


@pytest.fixture
def bell() -> Iterator[Bell]:
    with closing(Bell()) as made:
        yield made


@pytest.fixture
def follower(server: Played, bell: Bell) -> Iterator[Follower]:
    made = Follower(server, PATIENCE)
    made.start(bell)
    assert read(made) == {"a": "1"}
    heard(bell)
    assert server.watched == [1] and server.lists == 1
    yield made
    server.refusal = BROKEN
    server.told.put(ENDED)
    made.close()


def read(follower: Follower) -> dict[str, str]:
    return {key: kept.text for key, kept in follower.read().items()}


def heard(bell: Bell) -> None:
    assert select.select([bell.reader], [], [], PATIENCE)[0] and bell.drain()


def test_changes_are_applied_and_nothing_is_asked_for(server: Played, follower: Follower, bell: Bell) -> None:
    for number in range(5):
        server.change("b", str(number))
        heard(bell)
        assert read(follower) == {"a": "1", "b": str(number)}
    assert server.lists == 1 and server.watched == [1]


def test_a_change_of_ones_own_is_in_what_is_read_next(server: Played, follower: Follower) -> None:
    server.change("a", "mine")
    follower.written(server.revision)
    assert read(follower) == {"a": "mine"} and server.lists == 1
    server.change("a", "others", told=False)
    follower.written(None)  # it was not made as another one was faster
    assert read(follower) == {"a": "others"} and server.lists == 2
    assert read(follower) == {"a": "others"} and server.lists == 2


def test_a_watch_that_is_too_slow_is_not_waited_for(server: Played, bell: Bell) -> None:
    slow = Follower(server, 0.01)
    slow.start(bell)
    assert read(slow) == {"a": "1"}
    heard(bell)
    server.change("a", "mine", told=False)
    slow.written(server.revision)
    assert read(slow) == {"a": "mine"} and server.lists == 2
    server.told.put(ENDED)
    slow.close()


@pytest.mark.parametrize("how", [ENDED, BROKEN], ids=["ended", "broken"])
def test_a_watch_goes_on_where_it_ended(how: object, server: Played, follower: Follower, bell: Bell) -> None:
    server.change("b", "2")
    heard(bell)
    server.told.put(how)
    heard(bell)  # it has begun again
    server.change("c", "3")
    heard(bell)
    assert read(follower) == {"a": "1", "b": "2", "c": "3"}
    assert server.watched == [1, 2] and server.lists == 1 and follower.unheard() is None


def test_what_the_server_has_forgotten_is_read_again(server: Played, follower: Follower, bell: Bell) -> None:
    server.change("b", "2", told=False)
    server.told.put(Forgotten())
    heard(bell)
    assert read(follower) == {"a": "1", "b": "2"} and server.lists == 2
    heard(bell)
    server.change("c", "3")
    heard(bell)
    assert read(follower) == {"a": "1", "b": "2", "c": "3"} and server.lists == 2 and server.watched == [1, 2]


def test_garbage_is_said_and_not_asked_for_again(server: Played, follower: Follower, bell: Bell) -> None:
    server.change("b", "2", told=False)
    server.told.put(GARBAGE)
    heard(bell)
    assert follower.unheard() == "that is not JSON"
    assert read(follower) == {"a": "1", "b": "2"} and server.lists == 2
    heard(bell)
    assert follower.unheard() is None and server.watched == [1, 2]


def test_a_watch_that_is_refused_is_said_and_the_server_is_read(
    server: Played, follower: Follower, bell: Bell
) -> None:
    server.refusal = CniError(IO_FAILURE, "forbidden")
    server.told.put(ENDED)
    heard(bell)
    assert follower.unheard() == "forbidden"
    server.change("b", "2", told=False)
    assert read(follower) == {"a": "1", "b": "2"} and server.lists == 2
    server.refusal = None
    heard(bell)
    assert follower.unheard() is None


def test_a_server_that_is_away(server: Played, follower: Follower, bell: Bell) -> None:
    server.refusal = server.away = BROKEN
    server.told.put(ENDED)
    heard(bell)
    with pytest.raises(CniError, match="reset"):
        follower.read()
    server.refusal = server.away = None
    heard(bell)
    assert read(follower) == {"a": "1"}


def test_without_a_listener_each_read_asks(server: Played) -> None:
    follower = Follower(server, PATIENCE)
    assert read(follower) == {"a": "1"}
    server.change("a", "2", told=False)
    assert read(follower) == {"a": "2"} and server.lists == 2 and follower.unheard() is None
    follower.close()
