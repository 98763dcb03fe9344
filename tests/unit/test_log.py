"""``cni-v6ctl log`` and ``watch``, and the file that they read."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cni_v6.ctl import log_lines, main
from cni_v6.ctl.follow import LogFile
from cni_v6.engine import log_file
from cni_v6.log import counted
from tests import outputs

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).resolve().parents[2]
ID = "3f8a1b2c4d5e6f708192"
ADD: dict[str, Any] = {
    "time": "2026-01-02T03:04:05.000006Z", "id": "5f0c1d2e", "plugin": "cni-v6", "command": "ADD", "network": "pods",
    "container": ID, "ifname": "eth0", "netns": "/run/netns/c1", "pod": "web/a-1",
    "addresses": ["fd00:7::2", "10.7.0.2"], "ms": 2.345, "steps": {"compute": 1.2, "apply": 1.145}, "pid": 7,
}
FAILED: dict[str, Any] = {
    **{key: value for key, value in ADD.items() if key not in ("addresses", "pod")}, "id": "aa0c1d2e", "ms": 30012.5,
    "network": "web", "warnings": ["the node has no default route"],
    "error": {"code": 101, "msg": "no address is free in the ranges of network web", "details": "add a range\x1b[2J"},
}
EVENT: dict[str, Any] = {"time": "2026-01-02T03:04:06.000006Z", "event": "nft changed the tables; loaded again"}
LINES = [ADD, FAILED, EVENT]


def text(*lines: dict[str, Any]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.fixture(autouse=True)
def utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        yield


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "calls.jsonl"
    path.with_name("calls.jsonl.1").write_text(text(ADD))
    path.write_text(f"damaged\n{text(FAILED, EVENT)}{{\"time\": \"half")
    return str(path)


def test_for_a_person(file: str, capsys: Capture) -> None:
    assert main(["log", "--file", file]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert shown == """\
2026-01-02 03:04:05  ADD      2.3 ms  pods 3f8a1b2c4d5e/eth0
                     pod       web/a-1
                     addresses fd00:7::2 10.7.0.2
2026-01-02 03:04:05  ADD      30.0 s  web 3f8a1b2c4d5e/eth0
                     warning   the node has no default route
                     error     101: no address is free in the ranges of network
                               web: add a range?[2J
                     call      aa0c1d2e
2026-01-02 03:04:06  engine: nft changed the tables; loaded again
"""


def test_as_json_it_is_what_the_file_has(file: str, capsys: Capture) -> None:
    assert main(["log", "--file", file, "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == LINES


@pytest.mark.parametrize(("options", "found"), [
    (["--network", "pods"], [ADD]), (["--container", ID[:4]], [ADD, FAILED]), (["--errors"], [FAILED]),
    (["--call", "aa0c"], [FAILED]), (["--network", "pods", "--errors"], []), (["--lines", "1"], [EVENT]),
    (["--lines", "0"], []), (["--errors", "-n", "5"], [FAILED]),
])
def test_a_choice(file: str, options: list[str], found: list[dict[str, Any]], capsys: Capture) -> None:
    is_all = options[0] == "--lines"
    assert main(["log", "--file", file, "--json", *options]) == int(not found and not is_all)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == found


def test_steps(file: str, capsys: Capture) -> None:
    assert main(["log", "--file", file, "--steps", "--network", "pods"]) == 0
    assert "steps     compute 1.2 ms, apply 1.145 ms\n" in capsys.readouterr().out


def test_no_call_yet(tmp_path: Path, capsys: Capture) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNI_V6_RUN_DIR", str(tmp_path / "run"))
        assert main(["log"]) == 0
        assert main(["log", "--errors"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("cni-v6ctl: there is no log yet: ") == 2
    assert not (tmp_path / "run").exists()


def test_a_file_that_cannot_be_read(tmp_path: Path, capsys: Capture) -> None:
    assert main(["log", "--file", str(tmp_path)]) == 1
    assert main(["watch", "--file", str(tmp_path / "no" / "such.jsonl")]) == 1
    assert capsys.readouterr().err.count("cni-v6ctl: error 5: cannot read") == 2


def test_a_number_of_lines_that_is_none(file: str, capsys: Capture) -> None:
    assert main(["log", "--file", file, "--lines", "-1"]) == 1
    assert "error 7: --lines -1 is no number of lines" in capsys.readouterr().err


def test_a_line_behind_the_half_of_another_is_read() -> None:
    """A full disk takes a part of a line; the next one stands behind it."""
    tricky = {**EVENT, "event": '{"time": "then"}'}
    half = text(FAILED).encode()[:99]
    assert list(log_lines.parse([half + text(tricky).encode(), half + b"\n"])) == [tricky]


@pytest.mark.parametrize(("said", "line"), [
    (ADD, "03:04:05  ADD     pods 3f8a1b2c4d5e/eth0  2.3 ms  fd00:7::2 10.7.0.2"),
    (FAILED, "03:04:05  ADD     web 3f8a1b2c4d5e/eth0  30.0 s  error 101: no address is fre..."),
    (EVENT, "03:04:06  engine  nft changed the tables; loaded again"),
])
def test_one_line_each(said: dict[str, Any], line: str) -> None:
    assert log_lines.in_a_line(said) == line


def test_values_of_other_kinds_are_passed_over() -> None:
    odd = {"time": "now\x1b", "addresses": 1, "error": "x", "steps": 2, "ms": "fast", "command": None}
    assert list(log_lines.rendered(odd, steps=True)) == ["now?  -             -"]
    assert log_lines.in_a_line(odd) == "  -         -  error"


def next_line(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout
    line = process.stdout.readline().decode()
    outputs.check([str(ROOT / "bin/cni-v6ctl"), "watch", "--json"], line)
    return json.loads(line)


@pytest.mark.parametrize("command", [["log", "--follow", "--lines", "1"], ["watch"]])
def test_what_happens_from_now_on(tmp_path: Path, command: list[str]) -> None:
    """Through a renaming, as of a file that is full."""
    path = tmp_path / "calls.jsonl"
    path.write_text(text(ADD, EVENT))
    argv = [str(ROOT / "bin/cni-v6ctl"), *command, "--file", str(path), "--json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout and process.stderr
        try:
            if command == ["watch"]:  # both have opened the file before they say anything
                assert process.stderr.readline() == f"cni-v6ctl: watching {path}\n".encode()
            else:
                assert next_line(process) == EVENT
            for said in (FAILED, EVENT):
                log_file.append(str(path), text(said).encode(), most=1)
                assert next_line(process) == said
            with open(path, "ab", buffering=0) as file:
                file.write(text(ADD).encode()[:9])
                file.write(text(ADD).encode()[9:])
            assert next_line(process) == ADD
        finally:
            process.kill()


# The file


def test_a_full_file_is_renamed(tmp_path: Path) -> None:
    path = str(tmp_path / "calls.jsonl")
    for number in range(5):
        log_file.append(path, b"%d\n" % number, most=4)
    assert Path(path).read_bytes() == b"4\n"
    assert Path(f"{path}.1").read_bytes() == b"2\n3\n"
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["calls.jsonl", "calls.jsonl.1"]


def test_only_one_of_many_writers_renames_it(tmp_path: Path) -> None:
    """Who comes second writes to the file as it is, and the older file is not lost."""
    path = str(tmp_path / "calls.jsonl")
    log_file.append(path, b"first\n", most=1)
    file = os.open(path, os.O_RDONLY)
    fcntl.flock(file, fcntl.LOCK_EX)
    log_file.append(path, b"second\n", most=1)
    assert Path(path).read_bytes() == b"first\nsecond\n"
    os.close(file)


def test_a_disk_that_takes_a_part_of_a_line_is_full(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    path.write_bytes(b"1234")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6, before[1]))  # as a full disk: write(2) is short
    try:
        with pytest.raises(OSError) as raised:
            log_file.append(str(path), b"line\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.errno == errno.ENOSPC and path.read_bytes() == b"1234li"


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_what_is_no_plain_file_is_not_written_to(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "calls.jsonl"
    (tmp_path / "other").write_text("mine")
    if kind == "link":
        path.symlink_to("other")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(OSError):
        log_file.append(str(path), b"line\n")
    assert (tmp_path / "other").read_text() == "mine"


def test_a_file_that_somebody_empties_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    path.write_text("one\ntwo\n")
    with closing(LogFile(str(path))) as file:
        path.write_text("3\n")
        assert next(file.following()) == b"3\n"


def test_a_number_with_its_noun() -> None:
    assert [counted(number, "rule") for number in (0, 1, 2000)] == ["0 rules", "1 rule", "2,000 rules"]
    assert counted(2, "address", "addresses") == "2 addresses"
