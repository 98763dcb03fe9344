"""What the agent asks of BIRD and tells it: the fake and the real one."""

from __future__ import annotations

import re
import select
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cni_v6.cluster import bgp
from cni_v6.cluster.bird import Bird
from cni_v6.cluster.bird_messages import Running
from cni_v6.cluster.config import Peer
from cni_v6.cluster.fake import GARBAGE, FakeBird
from cni_v6.errors import CniError
from tests import bird
from tests.sandbox import Node
from tests.unit.test_cluster_bgp import BLOCKS, CONF, SPEAKER

KERNELS = frozenset({"master4", "master6"})
PEERS = (Peer("fd00:11::fe", 64512, bfd=True), Peer("fe80::1", 65000, ttl_security=False),
         Peer("unnumbered", 65001, bfd=True))
FIRST, SECOND = (bgp.render(CONF, replace(SPEAKER, peers=PEERS), blocks, "lo") for blocks in (BLOCKS, BLOCKS[:1]))


@dataclass
class Bench:
    """A BIRD that does not run yet, and what starts and ends it."""

    speaker: bgp.Speaker
    start: Callable[[], None]
    stop: Callable[[], None]


@contextmanager
def real() -> Iterator[tuple[Bird, bird.Bird, Path]]:
    """(what is tested, the daemon, the file)."""
    with ExitStack() as undo:
        folder = Path(undo.enter_context(TemporaryDirectory(prefix="bird-")))
        folder.chmod(0o755)
        node = undo.enter_context(closing(Node()))
        file = folder / "included/cni-v6.conf"
        daemon = bird.Bird(folder / "bird", "node.conf", ["nsenter", f"--net={node.path}", "--"],
                           {"/var/lib/cni/bird/": f"{file.parent}/"})
        undo.callback(daemon.stop, signal.SIGKILL)
        yield undo.enter_context(closing(Bird(str(file), str(daemon.socket)))), daemon, file


@pytest.fixture(params=["fake", pytest.param("BIRD 2", marks=[pytest.mark.netns, pytest.mark.slow])])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "fake":
        fake = FakeBird()
        fake.stop()
        yield Bench(fake, fake.start, fake.stop)
        return
    with real() as (speaker, daemon, _):
        yield Bench(speaker, daemon.start, daemon.stop)


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(CniError) as caught:
        act()
    return str(caught.value)


def test_what_it_has_read_is_known(bench: Bench) -> None:
    speaker = bench.speaker
    assert speaker.running() is None and speaker.read() is None
    bench.start()
    assert speaker.running() == Running("", KERNELS, bfd=True)
    speaker.check(FIRST)
    assert speaker.read() is None
    speaker.replace(FIRST)
    assert speaker.read() == FIRST and speaker.running() == Running("", KERNELS, bfd=True)
    speaker.reload()
    assert speaker.running() == Running(bgp.tag_of(FIRST), KERNELS, bfd=True)
    speaker.replace(SECOND)
    bench.stop()
    assert speaker.running() is None and speaker.read() == SECOND
    bench.start()
    assert speaker.running() == Running(bgp.tag_of(SECOND), KERNELS, bfd=True)


def test_garbage_is_refused(bench: Bench) -> None:
    speaker = bench.speaker
    speaker.replace(FIRST)
    bench.start()
    assert "BIRD refuses what" in refusal(lambda: speaker.check(f"{SECOND}\n{GARBAGE};"))
    assert speaker.read() == FIRST
    speaker.replace(GARBAGE)
    assert "goes on with the one before" in refusal(speaker.reload)
    assert speaker.running() == Running(bgp.tag_of(FIRST), KERNELS, bfd=True)


@pytest.mark.netns
@pytest.mark.slow
def test_what_is_news() -> None:
    """BIRD begins or ends; anybody changes the file. Not a file beside it."""
    with real() as (speaker, daemon, file):
        def news() -> bool:
            assert select.select([speaker], [], [], bird.PATIENCE)[0]
            return speaker.drain()

        assert speaker.running() is None
        daemon.start()
        assert news() and speaker.running()
        daemon.stop(signal.SIGKILL)
        assert news() and speaker.running() is None
        for act, told in ((lambda: speaker.replace(FIRST), True), (lambda: file.with_name("other.conf").touch(), False),
                          (lambda: file.write_text(GARBAGE), True), (file.unlink, True)):
            act()
            assert news() is told
        assert not select.select([speaker], [], [], 0)[0]


@pytest.mark.parametrize(("part", "says"), [
    (b"1002-" + b"x" * (1 << 18), "the answer has no end|does not answer"),
    (b"1", "does not answer"),  # a byte at a time
])
def test_an_answer_that_has_no_end(tmp_path: Path, part: bytes, says: str) -> None:
    """By whatever listens there: neither the time nor the memory of the agent is without limit."""
    control = tmp_path / "control"
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor() as threads:
        listener.bind(str(control))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, suppress(BrokenPipeError, ConnectionResetError):
                while True:
                    connection.sendall(part)

        threads.submit(answer)
        with closing(Bird(str(tmp_path / "file/cni-v6.conf"), str(control), 0.2)) as speaker:
            assert re.search(says, refusal(speaker.running))


@pytest.mark.netns
@pytest.mark.slow
def test_what_cannot_be_used_is_said() -> None:
    with real() as (speaker, daemon, file), closing(Bird(str(file), str(daemon.socket), 0.1)) as hasty:
        daemon.start()
        assert speaker.running()
        daemon.signal(signal.SIGSTOP)
        assert "BIRD does not answer" in refusal(hasty.running)
        daemon.signal(signal.SIGCONT)
        assert speaker.running()
        with closing(Bird(str(file), f"/run/{'x' * 200}")) as nowhere:
            assert "cannot use /run/xxx" in refusal(nowhere.running)
