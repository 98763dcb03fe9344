"""The courier does what the Python shim does, byte for byte: whatever an engine answers, or does not."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from cni_v6 import shim, wire
from cni_v6.engine import start
from cni_v6.engine.inprocess import for_courier, lost_engine
from tests.couriers import build
from tests.process.fake_engine import DEAF, HANGS, Call, FakeEngine, Outcome
from tests.sandbox import ROOT, TIMEOUT, need

pytestmark = pytest.mark.courier

SANITIZERS = "-fsanitize=address,undefined"
SHIM = ROOT / "bin/cni-v6"
# In 1.0.0 there is no STATUS: an answer that needs no node.
CONFIG = b'{"cniVersion": "1.0.0", "name": "pods", "type": "cni-v6"}'
STATUS = Call({"CNI_COMMAND": "STATUS", "CNI_PATH": "/opt/cni/bin"}, CONFIG)
LARGE = CONFIG[:-1] + b', "name": "' + b"x" * (5 << 18) + b'"}'


RESULT = b'{"cniVersion": "1.0.0"}\n'


def reply(word: bytes = b"done", status: bytes = b"0", out: bytes = RESULT, err: bytes = b"") -> bytes:
    return wire.pack(word, status, out, err)


def lying(message: bytes, place: int, length: int) -> bytes:
    """A message in which a length of 4 bytes is another."""
    return message[:place] + length.to_bytes(4, "big") + message[place + 4 :]


DONE = reply()
BODY = len(DONE) - wire.HEADER
ANSWERS: dict[str, tuple[bytes | str, ...]] = {
    "success": (DONE,),
    "nothing on stdout": (reply(out=b""),),
    "a failure": (reply(status=b"1", out=b'{"code": 7}\n', err=b"cni-v6: error 7\n"),),
    "any bytes": (reply(out=bytes(range(256)), err=bytes(range(256))),),
    "the largest status": (reply(status=b"255"),),
    "a status too large": (reply(status=b"256"),),
    "a status of many digits": (reply(status=b"0" * 4),),
    "a huge status": (reply(status=b"9" * 40),),
    "no status": (reply(status=b""),),
    "a status below zero": (reply(status=b"-1"),),
    "a status in words": (reply(status=b"one"),),
    "a huge answer": (reply(out=b"out" * (1 << 20), err=b"err" * (1 << 18)),),
    "handed back": (reply(b"yourself"),),
    "handed back with words": (reply(b"yourself", b"3", b"out", b"err"),),
    "an unknown word": (reply(b"don"),),
    "a word too long": (reply(b"done "),),
    "no word": (reply(b""),),
    "nothing": (),
    "a field missing": (wire.pack(b"done", b"0", b"out"),),
    "a field too many": (wire.pack(b"done", b"0", b"out", b"err", b""),),
    "no fields": (wire.pack(),),
    "something behind it": (DONE + b"x",),
    "another message behind it": (DONE + DONE,),
    "another magic": (b"CNI7" + DONE[4:],),
    "no message": (b"HTTP/1.1 400 Bad Request\r\n\r\n",),
    "longer than allowed": (lying(DONE, 4, wire.LIMIT + 1),),
    "the longest of all": (lying(DONE, 4, (1 << 32) - 1),),
    "a body longer than it is": (lying(DONE, 4, BODY + 1),),
    "a body shorter than it is": (lying(DONE, 4, BODY - 1),),
    "a body of nothing": (lying(DONE, 4, 0),),
    "a field longer than the body": (lying(DONE, 8, BODY),),
    "a field beyond all": (lying(DONE, 8, (1 << 32) - 1),),
    "a field that wraps around": (lying(DONE, 8, (1 << 32) - 4),),
    "a field shorter than it is": (lying(DONE, 8, 3),),
    "byte by byte": tuple(bytes([byte]) for byte in DONE),
    "header and body apart": (DONE[: wire.HEADER], DONE[wire.HEADER :]),
}


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("courier")) / "cni-v6"


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sanitized")
    return build(folder, "-g", "-fno-sanitize-recover=all", compiler="gcc", link=SANITIZERS) / "cni-v6"


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The courier under valgrind, which ends with 99 where it finds something."""
    need(os.access("/usr/bin/valgrind", os.X_OK), "needs valgrind")
    courier = build(tmp_path_factory.mktemp("watched"), "-g", compiler="gcc", link="-O0") / "cni-v6"
    return ["/usr/bin/valgrind", "--quiet", "--error-exitcode=99", "--track-fds=no", str(courier)]


@pytest.fixture(params=["plain", "sanitized"])
def courier(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> FakeEngine:
    return FakeEngine(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def of_the_shim(engine: FakeEngine) -> Shim:
    return Shim(engine)


class Shim:
    """What the shim does in each case; it is asked once, however many couriers are compared with it."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self.outcome = cache(self._outcome)

    def _outcome(self, answer: str, call: str = "an ordinary one") -> Outcome:
        return self._engine.outcome([str(SHIM)], CALLS[call], ANSWERS[answer])


# How it is built


@pytest.mark.parametrize(
    "compiler", ["gcc", *(pytest.param(name, marks=pytest.mark.slow) for name in ("clang", "musl-gcc"))]
)
def test_each_compiler_builds_it_without_a_warning(tmp_path: Path, compiler: str, engine: FakeEngine) -> None:
    built = build(tmp_path, compiler=compiler) / "cni-v6"
    assert b"/ld-" not in built.read_bytes(), "it needs a loader"
    assert engine.outcome([str(built)], STATUS, ANSWERS["a failure"]).code == 1


def test_a_compiler_that_is_none_is_told(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "CC": "no-such-compiler"}
    argv = [str(ROOT / "tools/courier"), "/usr/lib", str(tmp_path / "courier")]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "there is no C compiler" in done.stderr


def test_both_sides_have_the_same_constants() -> None:
    source = (ROOT / "courier/courier.c").read_text(encoding="utf-8")
    found = dict(re.findall(r"^#define (\w+) +(.+?)(?: +/\*.*)?$", source, re.MULTILINE))
    assert int(found["ANSWER_SECONDS"]) == wire.ANSWER_SECONDS
    assert int(found["ASK_SECONDS"]) == wire.ASK_SECONDS
    assert found["MAGIC"] == f'"{wire.MAGIC.decode()}"'
    assert found["HEADER"] == f"{wire.HEADER}u"
    assert found["LIMIT"] == "(32u << 20)" and wire.LIMIT == 32 << 20
    assert found["ACK"] == r'"\x06"' and wire.ACK == b"\x06"
    assert found["STDIN_BYTES"] == "(1u << 20)" and wire.STDIN_BYTES == 1 << 20
    assert found["STDIN_BYTES_AFTER_ADD"] == "(16u << 20)" and wire.STDIN_BYTES_AFTER_ADD == 16 << 20
    assert found["RUN_DIR"] == f'"{shim.RUN_DIR.decode()}"'


# What it makes of an answer


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_is_treated_as_the_shim_treats_it(
    engine: FakeEngine, courier: str, of_the_shim: Shim, answer: str
) -> None:
    assert engine.outcome([courier], STATUS, ANSWERS[answer]) == of_the_shim.outcome(answer)


def test_what_the_shim_does_is_what_the_cases_are_about(of_the_shim: Shim) -> None:
    assert of_the_shim.outcome("a failure").stdout == b'{"code": 7}\n'
    assert of_the_shim.outcome("a huge answer").code == 0
    assert json.loads(of_the_shim.outcome("handed back").stdout)["code"] == 1
    assert json.loads(of_the_shim.outcome("nothing").stdout)["code"] == 11
    assert json.loads(of_the_shim.outcome("a status too large").stdout)["code"] == 11


def test_an_answer_that_is_cut_at_any_byte_is_a_lost_engine(
    engine: FakeEngine, plain: Path, without_python: Path, of_the_shim: Shim
) -> None:
    for place in range(len(DONE)):
        assert b"ended before it" in engine.outcome([str(without_python)], STATUS, (DONE[:place],)).stdout, place
    for place in (1, wire.HEADER, wire.HEADER + 3, len(DONE) - 1):
        assert engine.outcome([str(plain)], STATUS, (DONE[:place],)) == of_the_shim.outcome("nothing"), place


WATCHED = (
    "success", "any bytes", "a huge answer", "handed back", "nothing", "a status of many digits", "a field too many",
    "longer than allowed", "a body of nothing", "a field that wraps around", "byte by byte",
)


@pytest.mark.slow
@pytest.mark.parametrize("answer", WATCHED)
def test_nothing_is_wrong_under_valgrind(
    engine: FakeEngine, watched: list[str], of_the_shim: Shim, answer: str
) -> None:
    found, wanted = engine.outcome(watched, STATUS, ANSWERS[answer]), of_the_shim.outcome(answer)
    assert (found.stdout, found.stderr, found.code) == (wanted.stdout, wanted.stderr, wanted.code)


def understood(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Status, stdout and stderr of an answer; None where it is none."""
    try:
        word, status, stdout, stderr = wire.unpack_reply(data[wire.HEADER :])
        return (status, stdout, stderr) if wire.body_length(data[: wire.HEADER]) == len(data) - wire.HEADER else None
    except ValueError:
        return None


WORDS = st.sampled_from([b"done", b"", b"yourself!", b"\0"]) | st.binary(max_size=12)
STATUSES = st.integers(0, 300).map(lambda value: b"%d" % value) | st.binary(max_size=5)
MESSAGES = st.builds(reply, WORDS, STATUSES, st.binary(max_size=200), st.binary(max_size=200))


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Messages, and messages with some bytes or a length changed, cut, or with something behind them."""
    data = bytearray(draw(MESSAGES))
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        place = draw(st.integers(0, len(data) - 4))
        data[place : place + 4] = draw(st.integers(0, 60) | st.integers(0, (1 << 32) - 1)).to_bytes(4, "big")
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data) + draw(st.binary(max_size=3))


@pytest.mark.slow
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer=answers())
def test_whatever_comes_is_an_answer_or_a_lost_engine(engine: FakeEngine, without_python: Path, answer: bytes) -> None:
    found = engine.outcome([str(without_python)], STATUS, (answer,))
    wanted = understood(answer)
    if answer[8:20] == b"\0\0\0\x08yourself" and wanted:
        assert "does not take this call" in json.loads(found.stdout)["msg"]
    elif wanted:
        assert (found.code, found.stdout, found.stderr) == wanted
        assert found.heard and found.heard.taken == wire.ACK
    else:
        assert found.code == 1 and json.loads(found.stdout)["msg"] == "the cni-v6 engine ended before it answered"
        assert found.heard and found.heard.taken == b""


# What it makes of its caller


@pytest.fixture(scope="session")
def without_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A courier, watched by the sanitizers, on a node where its Python executable is not."""
    folder = tmp_path_factory.mktemp("alone")
    flags = ("-g", "-fno-sanitize-recover=all")
    return build(folder, *flags, python=Path("/nonexistent"), compiler="gcc", link=SANITIZERS) / "cni-v6"


CALLS: dict[str, Call] = {
    "an ordinary one": STATUS,
    "much environment": Call({**STATUS.env, **{f"NAME{number}": "x" * 1000 for number in range(500)}}, CONFIG),
    "bytes that are no text": Call({**STATUS.env, "CNI_ARGS": os.fsdecode(b"\xff\x80=;"), "\xe4": ""}, CONFIG),
    "an empty value": Call({**STATUS.env, "CNI_ARGS": "", "CNI_NETNS": ""}, CONFIG),
    "no input": Call(STATUS.env, b""),
    "input that is no JSON": Call(STATUS.env, b"\0\xff{"),
    "too much input": Call(STATUS.env, LARGE),
    "much input": Call({**STATUS.env, "CNI_COMMAND": "DEL"}, LARGE),
    "much input for CHECK": Call({**STATUS.env, "CNI_COMMAND": "CHECK"}, LARGE),
    "far too much input": Call({**STATUS.env, "CNI_COMMAND": "GC"}, b" " * (17 << 20)),
    "VERSION": Call({"CNI_COMMAND": "VERSION"}, CONFIG),
    "no command": Call({}, CONFIG),
    "a namespace": Call({**STATUS.env, "CNI_NETNS": "/proc/self/ns/net"}, CONFIG),
    "a namespace that is gone": Call({**STATUS.env, "CNI_NETNS": "/run/netns/gone"}, CONFIG),
    "a folder for a namespace": Call({**STATUS.env, "CNI_NETNS": "/"}, CONFIG),
    "a word that is nearly one": Call(STATUS.env, CONFIG[:-1] + b', "engineIdle": 5}'),
    "the engine's key": Call(STATUS.env, CONFIG[:-1] + b', "engine": "auto"}'),
    "the engine forbidden": Call(STATUS.env, CONFIG[:-1] + b', "engine": "off"}'),
    "the engine's key in bad JSON": Call(STATUS.env, b'{"engine": '),
    "the engine forbidden in the environment": Call({**STATUS.env, "CNI_V6_ENGINE": "off"}, CONFIG),
    "the engine allowed in the environment": Call({**STATUS.env, "CNI_V6_ENGINE": "auto"}, CONFIG),
}


@pytest.mark.parametrize("answer", ["a failure", "handed back", "nothing"])
@pytest.mark.parametrize("call", CALLS)
def test_a_call_reaches_the_engine_as_the_shim_has_it(
    engine: FakeEngine, courier: str, of_the_shim: Shim, call: str, answer: str
) -> None:
    assert engine.outcome([courier], CALLS[call], ANSWERS[answer]) == of_the_shim.outcome(answer, call)


@pytest.mark.parametrize("call", ["an ordinary one", "VERSION", "no command", "no input", "the engine's key"])
@pytest.mark.parametrize("folder", ["/dev/null/none", f"/dev/null/{'x' * 100}", "where nobody listens"])
def test_a_call_that_finds_no_engine_is_handled_by_python(
    tmp_path: Path, engine: FakeEngine, courier: str, call: str, folder: str
) -> None:
    """In folders that Python cannot use either, so that it leaves no engine behind."""
    tmp_path.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / engine.name))
    path = folder if folder.startswith("/") else str(tmp_path)
    each = Call({**CALLS[call].env, "CNI_V6_RUN_DIR": path}, CALLS[call].stdin)
    wanted = engine.outcome([str(SHIM)], each, ())
    assert wanted.heard is None
    assert without_id(engine.outcome([courier], each, ())) == without_id(wanted)


def without_id(outcome: Outcome) -> Outcome:
    """Each call that an engine handled has an id of its own in its error."""
    stdout, stderr = (re.sub(rb"\(call [0-9a-f]{8}\)", b"(call)", said) for said in (outcome.stdout, outcome.stderr))
    return replace(outcome, stdout=stdout, stderr=stderr)


def test_an_engine_that_never_had_the_whole_request_is_done_without(engine: FakeEngine, courier: str) -> None:
    """It hangs up while the request is sent: the call has not begun."""
    each = Call({**STATUS.env, "CNI_COMMAND": "DEL"}, LARGE)
    wanted, found = (engine.outcome([program], each, (DEAF,)) for program in (str(SHIM), courier))
    assert json.loads(wanted.stdout)["code"] == 4, "answered by Python: it has no container"
    assert (found.stdout, found.stderr, found.code) == (wanted.stdout, wanted.stderr, wanted.code)


def test_the_engine_of_systemd_is_asked_where_there_is_no_other(engine: FakeEngine, courier: str) -> None:
    eager = FakeEngine(engine.folder, "engine.sock")
    assert eager.outcome([courier], STATUS, (DONE,)) == eager.outcome([str(SHIM)], STATUS, (DONE,))


def test_the_name_it_is_called_by_is_the_plugins(tmp_path: Path, engine: FakeEngine, courier: str) -> None:
    link = tmp_path / "cni-v6-ipam"
    link.symlink_to(courier)
    found = engine.outcome([str(link)], STATUS, (DONE,))
    wanted = engine.outcome([str(ROOT / "bin/cni-v6-ipam")], STATUS, (DONE,))
    assert found.heard and wire.unpack(found.heard.request[wire.HEADER :], 5)[2] == b"cni-v6-ipam"
    assert found == wanted


EXECUTE = """
import ctypes, sys
words = lambda *each: (ctypes.c_char_p * (len(each) + 1))(*each, None)
environment = [each.encode() for each in sys.argv[2:]]
ctypes.CDLL(None).execve(sys.argv[1].encode(), words(b"cni-v6"), words(*environment))
"""


def test_of_a_variable_that_is_there_twice_the_first_counts(engine: FakeEngine, courier: str) -> None:
    """And what is no variable is left out: as Python reads its environment."""
    own = [f"{key}={value}" for key, value in engine.environment(STATUS).items()]
    odd = ["CNI_COMMAND=ADD", "=nameless", "=again", "none", "CNI_PATH=/other", "CNI_PATHS=1", "CNI=2"]
    argv = [sys.executable, "-c", EXECUTE]
    found, wanted = (
        engine.outcome([*argv, program, *own, *odd], STATUS, (DONE,)) for program in (courier, str(SHIM))
    )
    assert found.heard and wanted.heard
    sent = [wire.unpack(each.heard.request[wire.HEADER :], 5)[3] for each in (found, wanted) if each.heard]
    assert sent[0] == sent[1]
    assert b"\0=nameless\0CNI_PATHS=1\0CNI=2" in sent[0]


def test_a_stream_that_is_closed_is_no_connection(engine: FakeEngine, courier: str) -> None:
    argv = ["sh", "-c", 'exec "$@" >&-', "sh", courier]
    found = engine.outcome(argv, STATUS, (DONE,))
    assert found.heard and found.heard.taken == wire.ACK
    assert (found.stdout, found.stderr, found.code) == (b"", b"", 0)


def test_closed_input_is_no_configuration(engine: FakeEngine, courier: str) -> None:
    found = engine.outcome([courier], Call(STATUS.env, None), (DONE,))
    assert found.heard and wire.unpack(found.heard.request[wire.HEADER :], 5)[4] == b""
    assert found.code == 0


def test_a_fifo_for_a_namespace_is_not_waited_for(tmp_path: Path, engine: FakeEngine, courier: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    each = Call({**STATUS.env, "CNI_NETNS": str(tmp_path / "fifo")}, CONFIG)
    found = engine.outcome([courier], each, (DONE,))
    assert found.heard and found.heard.passed == (tmp_path / "fifo").stat().st_ino


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["--nonsense"], ["", "x"]])
@pytest.mark.parametrize("call", ["an ordinary one", "no command"])
def test_arguments_are_for_python(engine: FakeEngine, courier: str, call: str, arguments: list[str]) -> None:
    wanted = engine.outcome([str(SHIM), *arguments], CALLS[call], ANSWERS["a failure"])
    assert engine.outcome([courier, *arguments], CALLS[call], ANSWERS["a failure"]) == wanted


def test_a_person_at_a_terminal_is_told_what_it_is(courier: str) -> None:
    words = []
    for program in (courier, str(SHIM)):
        terminal, own = pty.openpty()
        done = subprocess.run([program], env={"PATH": "/usr/bin"}, stdin=own, capture_output=True, timeout=TIMEOUT)
        words.append((done.returncode, done.stdout, done.stderr))
        os.close(terminal)
        os.close(own)
    assert words[0] == words[1]
    assert b"a CNI plugin" in words[0][2]


def test_input_that_is_too_large_is_not_read_to_its_end(engine: FakeEngine, courier: str) -> None:
    """The engine has one byte too many, and refuses it; what is still to come is not waited for."""
    reading, writing = os.pipe()
    with engine.answering((DONE,)) as heard, subprocess.Popen(
        [courier], env=engine.environment(STATUS), stdin=reading, stdout=subprocess.PIPE
    ) as process:
        os.close(reading)
        with pytest.raises(BrokenPipeError):
            while True:
                os.write(writing, b" " * (1 << 16))
        out, _ = process.communicate(timeout=TIMEOUT)
    os.close(writing)
    assert out == RESULT and process.returncode == 0
    assert len(wire.unpack(heard[0].request[wire.HEADER :], 5)[4]) == wire.STDIN_BYTES + 1


def test_the_largest_answer_arrives(engine: FakeEngine, courier: str) -> None:
    lengths = 4 * 4
    out = b"o" * (wire.LIMIT - lengths - len(b"done" + b"0"))
    found = engine.outcome([courier], STATUS, (reply(out=out),))
    assert found.code == 0 and found.stdout == out


# Time, and what interrupts it


@pytest.fixture(scope="session")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> str:
    seconds = ("-DANSWER_SECONDS=1", "-DASK_SECONDS=1")
    return str(build(tmp_path_factory.mktemp("impatient"), *seconds) / "cni-v6")


IMPATIENT = f"""
import sys
sys.path[:0] = {[str(ROOT), *sys.path]!r}
from cni_v6 import wire
wire.ASK_SECONDS = 1
from cni_v6.shim import main
sys.exit(main("cni-v6", 1))
"""


@pytest.mark.parametrize("begun", [0, 3, wire.HEADER, wire.HEADER + 10, len(DONE) - 1])
def test_an_engine_that_stops_is_given_up_with_the_same_words(engine: FakeEngine, impatient: str, begun: int) -> None:
    parts = (DONE[:begun], HANGS)
    wanted = engine.outcome([sys.executable, "-ISE", "-c", IMPATIENT], STATUS, parts)
    assert "has not answered for 1 seconds" in json.loads(wanted.stdout)["msg"]
    assert engine.outcome([impatient], STATUS, parts) == wanted


@pytest.mark.slow
def test_a_full_queue_is_not_waited_for(tmp_path: Path, engine: FakeEngine, impatient: str) -> None:
    """It handles the call without: it has told nobody of it. The folder is none that Python leaves an engine in."""
    tmp_path.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(tmp_path / engine.name))
        listener.listen(0)
        first.connect(str(tmp_path / engine.name))
        env = engine.environment(STATUS) | {"CNI_V6_RUN_DIR": str(tmp_path)}
        done = subprocess.run([impatient], env=env, input=CONFIG, capture_output=True, timeout=TIMEOUT)
    assert json.loads(done.stdout)["code"] == 1, "Python's answer"


# Calls at once that find no engine

FIRST = """#!/bin/sh
# The first call's Python: it tells with which arguments it came, and ends when it is told to.
echo "python $*" >&2
read -r _ <"$0.go"
"""


@pytest.fixture
def no_engine(tmp_path: Path) -> Iterator[tuple[str, Path, dict[str, str]]]:
    """A patient courier, the pipe that ends its Python, and the environment of its calls."""
    (tmp_path / "cni-v6").write_text(FIRST, encoding="utf-8")
    (tmp_path / "cni-v6").chmod(0o755)
    os.mkfifo(tmp_path / "cni-v6.go")
    seconds = ("-DANSWER_SECONDS=1000", "-DASK_SECONDS=1000")
    patient = build(tmp_path / "courier", *seconds, python=tmp_path, names=["cni-v6"]) / "cni-v6"
    (tmp_path / "run").mkdir(0o700)
    # Held open, so that none reads the end that belongs to a line for another.
    with open(os.open(tmp_path / "cni-v6.go", os.O_RDWR), "wb"):
        yield str(patient), tmp_path / "cni-v6.go", {**STATUS.env, "CNI_V6_RUN_DIR": str(tmp_path / "run")}


def called(courier: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [courier], env={**environment, "PATH": "/usr/bin:/bin"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin
    process.stdin.write(CONFIG)
    process.stdin.close()
    process.stdin = None
    return process


def test_of_calls_that_find_no_engine_the_first_alone_becomes_python(
    no_engine: tuple[str, Path, dict[str, str]]
) -> None:
    courier, go, environment = no_engine
    first = called(courier, environment)
    assert first.stderr
    said = first.stderr.readline()
    assert re.fullmatch(rb"python --starting \d+\n", said), "with the lock that it has taken"
    others = [called(courier, environment) for _ in range(3)]
    for process in others:
        wait_in(process, FLOCK)
    with FakeEngine(Path(environment["CNI_V6_RUN_DIR"])).answering((DONE,)) as heard:
        go.write_text("go\n", encoding="utf-8")  # it ends, and its lock with it
        assert [process.communicate(timeout=TIMEOUT) for process in others] == [(RESULT, b"")] * 3
    assert len(heard) == 3
    first.communicate(timeout=TIMEOUT)


def test_who_has_waited_for_an_engine_in_vain_becomes_python(no_engine: tuple[str, Path, dict[str, str]]) -> None:
    courier, go, environment = no_engine
    first = called(courier, environment)
    assert first.stderr
    first.stderr.readline()
    second = called(courier, environment)
    wait_in(second, FLOCK)
    go.write_text("go\n", encoding="utf-8")
    first.communicate(timeout=TIMEOUT)
    assert second.stderr
    assert second.stderr.readline() == b"python \n", "there is nothing left that it keeps others from"
    go.write_text("go\n", encoding="utf-8")
    second.communicate(timeout=TIMEOUT)


LATE = """
#undef flock
int pause(void), flock(int, int), late_flock(int, int);

int late_flock(int descriptor, int operation)
{
    if (operation == 1) /* LOCK_SH */
        pause();
    return flock(descriptor, operation);
}
"""


def test_a_start_that_hangs_is_not_waited_for(tmp_path: Path, engine: FakeEngine) -> None:
    """Not even where the alarm comes before the wait, as on a node that is too busy to run the call meanwhile."""
    (tmp_path / "late.c").write_text(LATE, encoding="utf-8")
    flags = ("-DANSWER_SECONDS=1", "-DASK_SECONDS=1", "-Dflock=late_flock", str(tmp_path / "late.c"))
    courier = build(tmp_path / "late", *flags) / "cni-v6"
    with open(engine.folder / f"{engine.name}.start", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        env = engine.environment(STATUS) | {"CNI_V6_RUN_DIR": str(engine.folder)}
        done = subprocess.run([courier], env=env, input=CONFIG, capture_output=True, timeout=TIMEOUT)
    assert json.loads(done.stdout)["code"] == 1, "Python's answer"


def test_python_keeps_the_lock_until_the_socket_is_there(tmp_path: Path) -> None:
    """So nobody who waits for the lock finds no engine."""
    path = os.fsencode(tmp_path / "run" / "engine.sock")
    (tmp_path / "run").mkdir(0o700)
    lock = os.open(path + b".start", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    claimed = start.claim(os.path.dirname(path), path, lock)
    assert claimed
    with claimed[0], open(path + b".start", "rb") as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert start.start(os.path.dirname(path), path, lock), "somebody listens"
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(claimed[1])


RECVFROM, READ, WRITE, SENDMSG, FLOCK = 45, 0, 1, 46, 73  # asm/unistd_64.h


def wait_in(process: subprocess.Popen[bytes], call: int) -> None:
    """Return when a process is in a system call. It is looked at again and again, as a debugger does: the kernel tells
    nobody that it waits."""
    need(platform.machine() == "x86_64", "needs the numbers of its system calls")
    while Path(f"/proc/{process.pid}/syscall").read_text(encoding="ascii").split()[0] != str(call):
        assert process.poll() is None, "it has ended"


def interrupt(process: subprocess.Popen[bytes], call: int) -> None:
    """Stop a process in a system call, and let it go on: that ends a wait which has a limit, though there is no handler
    (signal(7))."""
    wait_in(process, call)
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    os.kill(process.pid, signal.SIGCONT)
    os.waitid(os.P_PID, process.pid, os.WCONTINUED)


def test_an_interruption_ends_no_wait(tmp_path: Path, engine: FakeEngine, courier: str) -> None:
    need(platform.machine() == "x86_64", "needs the numbers of its system calls")
    env = engine.environment(STATUS) | {"CNI_V6_RUN_DIR": str(tmp_path), "CNI_COMMAND": "DEL"}
    answer = reply(out=b"x" * (1 << 20))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / engine.name))
        listener.listen()
        process = subprocess.Popen([courier], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin and process.stdout
        process.stdin.write(LARGE[:1000])
        process.stdin.flush()
        interrupt(process, READ)
        process.stdin.write(LARGE[1000:])
        process.stdin.close()
        connection, _ = listener.accept()
        with connection:
            interrupt(process, SENDMSG)  # it is larger than what the kernel holds
            data = b""
            while not data.endswith(LARGE):
                data += connection.recv(1 << 20)
            for begin, end in ((0, 100), (100, 5000), (5000, len(answer))):
                interrupt(process, RECVFROM)
                connection.sendall(answer[begin:end])
            assert connection.recv(2) == wire.ACK
        interrupt(process, WRITE)
        assert process.stdout.read() == b"x" * (1 << 20)
        assert process.wait(TIMEOUT) == 0
        process.stdout.close()


def test_a_stream_that_cannot_take_all_at_once_gets_all(engine: FakeEngine, courier: str) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    answer = bytes(range(256)) * (1 << 12)
    with engine.answering((reply(out=answer),)), subprocess.Popen(
        [courier], env=engine.environment(STATUS), stdin=subprocess.DEVNULL, stdout=writing
    ) as process:
        os.close(writing)
        with open(reading, "rb") as stream:
            assert stream.read() == answer
    assert process.returncode == 0


def test_a_caller_that_reads_no_answer_is_a_failure(engine: FakeEngine, courier: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with engine.answering((DONE,)), subprocess.Popen(
        [courier], env=engine.environment(STATUS), stdin=subprocess.DEVNULL, stdout=writing, stderr=subprocess.PIPE
    ) as process:
        os.close(writing)
        assert process.communicate(timeout=TIMEOUT)[1] == b""
    assert process.returncode == 1


# A node without Python


@dataclass(frozen=True)
class Alone:
    """What a courier says that has neither engine nor Python, and what of it helps."""

    call: Call
    answer: str
    words: tuple[str, ...]


ALONE = {
    "no engine": Alone(Call({**STATUS.env, "CNI_V6_RUN_DIR": "/dev/null/run"}, CONFIG), "nothing", (
        "no cni-v6 engine answers on this node", "cni-v6ctl engine", "/dev/null/run/engine.sock",
        "/nonexistent/cni-v6: No such file or directory",
    )),
    "no engine for VERSION": Alone(
        Call({"CNI_COMMAND": "VERSION", "CNI_V6_RUN_DIR": "/dev/null"}), "nothing", ("no cni-v6 engine",)
    ),
    "an odd folder": Alone(
        Call({**STATUS.env, "CNI_V6_RUN_DIR": '/"\\\n\xe4' + "x" * 5000}, CONFIG), "nothing", ("/?????xxx",)
    ),
    "sent back": Alone(STATUS, "handed back", ("another network namespace", "does not take this call")),
    "forbidden": Alone(Call({**STATUS.env, "CNI_V6_ENGINE": "off"}, CONFIG), "success", ("CNI_V6_ENGINE=off forbids",)),
    "lost": Alone(STATUS, "nothing", ("the cni-v6 engine ended before it answered", "run the command again")),
}


@pytest.mark.parametrize("case", ALONE)
def test_without_python_it_says_what_to_do(engine: FakeEngine, without_python: Path, case: str) -> None:
    found = engine.outcome([str(without_python)], ALONE[case].call, ANSWERS[ALONE[case].answer])
    answer = json.loads(found.stdout)
    assert set(answer) == {"cniVersion", "code", "msg", "details"} and (found.code, answer["code"]) == (1, 11)
    for words in ALONE[case].words:
        assert words in f"{answer['msg']}: {answer['details']}"
    assert found.stderr.decode() == f"cni-v6: error 11: {answer['msg']}: {answer['details']}\n"


def test_without_python_the_engine_is_asked_for_all_and_told_no_version(
    engine: FakeEngine, without_python: Path
) -> None:
    """The engine reads what the configuration says of it: a courier cannot."""
    found = engine.outcome([str(without_python)], CALLS["the engine's key"], (DONE,))
    assert found.code == 0 and found.heard
    assert wire.unpack(found.heard.request[wire.HEADER :], 5)[0] == b""


def test_what_it_says_of_an_engine_is_asked_of_nobody_else() -> None:
    """Its own arguments, and only those, are no call."""
    assert for_courier(["--lost", "/run/x", "100"], CONFIG) == lost_engine(CONFIG)
    assert for_courier(["--help"], CONFIG) is None and for_courier(["--silent"], CONFIG) is None
