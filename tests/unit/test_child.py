"""Other programs, run to their end, or to that of somebody's patience."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cni_v6.kernel import child_process
from cni_v6.kernel.child_process import LOG_BYTES, OUTPUT_BYTES, Done, Stopped
from cni_v6.kernel.deadline import Limits, Patience

ENOUGH = 30.0  # seconds, for what does end
SHORT = 0.2
Run = Callable[..., Done]


@pytest.fixture(params=["pidfd", "before Linux 5.3"])
def run(request: pytest.FixtureRequest) -> Run:
    """A shell's script, with its name for a word, run with each way to see its end."""
    watch = child_process.pidfd if request.param == "pidfd" else lambda _: None

    def start(
        script: str, *words: str, stdin: bytes = b"", seconds: float = ENOUGH, patience: Patience | None = None
    ) -> Done:
        argv = ["/bin/sh", "-c", script, "script", *words]
        env = {"PATH": "/usr/bin:/bin", "WORD": "word"}
        return child_process.run(
            argv, stdin=stdin, env=env, patience=patience or Patience(), seconds=seconds, watch=watch
        )

    return start


def test_what_it_gets_and_gives(run: Run) -> None:
    done = run('cat; echo "$WORD" >&2; exit 3', stdin=b"given")
    assert done == Done(3, b"given", b"word\n")
    assert run("kill -9 $$") == Done(-9, b"", b"")


def test_more_than_a_pipe_holds_both_ways(run: Run) -> None:
    given = os.urandom(OUTPUT_BYTES)
    assert run("cat", stdin=given).stdout == given


def test_what_it_does_not_read_is_its_own_affair(run: Run) -> None:
    assert run("exec <&-; echo no", stdin=b"x" * (1 << 20)).stdout == b"no\n"


def test_one_that_hangs_is_ended_with_its_children(run: Run, tmp_path: Path) -> None:
    """Its caller goes once all of them are there: the second fifo has no other writer."""
    fifos = tmp_path / "fifo", tmp_path / "caller"
    for fifo in fifos:
        os.mkfifo(fifo)
    with held_open(fifos[0]) as ended, held_open(fifos[1]) as caller:
        patience = Patience(Limits(gone=SHORT), caller=caller.descriptor)
        with pytest.raises(Stopped, match="its caller has gone") as caught:
            script = 'echo begun >&2; (: >"$2"; exec sleep 1000) >"$1" & read line <"$1"'
            run(script, *map(str, fifos), patience=patience)
        assert ended.by_all_writers(), "its child has the fifo open still"
    assert caught.value.logged == b"begun\n"
    assert patience.left(1000) <= patience.limits.undo


class held_open:
    """A fifo's reader, which is told when all writers have come to their end."""

    def __init__(self, fifo: Path) -> None:
        self._fifo = fifo

    def __enter__(self) -> held_open:
        self.descriptor = os.open(self._fifo, os.O_RDONLY | os.O_NONBLOCK)
        return self

    def by_all_writers(self) -> bool:
        poll = select.poll()
        poll.register(self.descriptor, 0)
        return bool(poll.poll(ENOUGH * 1000))

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


@pytest.mark.parametrize("script", ["exec sleep 1000", "exec >&- 2>&-; exec sleep 1000", "trap '' TERM; sleep 1000"])
def test_one_that_does_nothing(run: Run, script: str) -> None:
    with pytest.raises(Stopped, match="did not end within"):
        run(script, seconds=SHORT)


def test_what_it_leaves_behind_is_not_waited_for(tmp_path: Path) -> None:
    """A daemon that has the plugin's output open still, and needs no end of it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    argv = ["/bin/sh", "-c", 'cat "$1" & echo done', "script", str(fifo)]
    done = child_process.run(argv, stdin=b"", env={"PATH": "/usr/bin:/bin"}, patience=Patience(), seconds=ENOUGH)
    assert done.stdout == b"done\n"
    fifo.write_text("")  # it ends


def test_one_that_prints_without_end(run: Run) -> None:
    with pytest.raises(Stopped, match=f"printed more than {OUTPUT_BYTES} bytes"):
        run("cat /dev/zero")


def test_one_that_logs_without_end_until_it_fails(run: Run) -> None:
    done = run("head -c 1000000 /dev/zero >&2")
    assert done.status == 0 and len(done.stderr) == LOG_BYTES


@pytest.mark.timeout(60)
def test_one_that_logs_without_end(run: Run) -> None:
    with pytest.raises(Stopped, match="did not end within 0.2 seconds"):
        run("exec cat /dev/zero >&2", seconds=SHORT)


@pytest.mark.timeout(60)
def test_what_it_leaves_behind_logs_without_end() -> None:
    """Of that no more is read than a pipe holds. It ends when the pipe is closed."""
    argv = ["/bin/sh", "-c", "cat /dev/zero >&2 & head -c 1 /dev/zero"]
    done = child_process.run(argv, stdin=b"", env={"PATH": "/usr/bin:/bin"}, patience=Patience(), seconds=ENOUGH)
    assert done.stdout == b"\0"


@pytest.fixture
def callers() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A caller's end, and ours."""
    theirs, ours = socket.socketpair()
    with theirs, ours:
        yield theirs, ours


def test_the_caller_has_gone(run: Run, callers: tuple[socket.socket, socket.socket]) -> None:
    theirs, ours = callers
    theirs.close()
    patience = Patience(Limits(gone=ENOUGH), caller=ours.fileno())
    assert run("echo done", patience=patience).stdout == b"done\n", "it ends by itself"
    patience = Patience(Limits(gone=SHORT), caller=ours.fileno())
    with pytest.raises(Stopped, match="its caller has gone"):
        run("sleep 1000", patience=patience)
    assert run("echo undone", patience=patience).stdout == b"undone\n", "to undo it, nobody need be there"


def test_the_caller_is_there(run: Run, callers: tuple[socket.socket, socket.socket]) -> None:
    theirs, ours = callers
    theirs.sendall(b"more than it was asked for")
    theirs.shutdown(socket.SHUT_WR)
    assert run("echo done", patience=Patience(caller=ours.fileno())).stdout == b"done\n"


def test_a_call_that_is_late_gives_it_less(run: Run) -> None:
    with pytest.raises(Stopped, match="did not end within 0.2 seconds"):
        run("sleep 1000", patience=Patience(Limits(work=SHORT, undo=ENOUGH), clock=lambda: 0.0))


def test_it_cannot_be_started() -> None:
    with pytest.raises(FileNotFoundError):
        child_process.run(["/no/such/program"], stdin=b"", env={}, patience=Patience(), seconds=ENOUGH)
