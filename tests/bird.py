"""A BIRD of the test's own, as Debian runs it: with a user and a group of its own, on a sample of ours."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import which

import pytest

from tests.sandbox import COMMANDS, ROOT, need

PATIENCE = 30.0
USER = "bird"
PROGRAM, CLIENT = which("bird") or "/usr/sbin/bird", which("birdcl") or "/usr/sbin/birdcl"
SAMPLES = ROOT / "conf/cluster/bird"


def need_bird() -> None:
    need(os.path.exists(PROGRAM), "needs BIRD (Debian: bird2)")


class Bird:
    """
    :param folder: is made; for its configuration and its socket.
    :param sample: a configuration of ours, which says ``log syslog``; here it logs to a file.
    :param before: a command that runs another one where BIRD is to run.
    :param others: texts to replace in the configuration, each of which it has.
    """

    def __init__(self, folder: Path, sample: str, before: Sequence[str], others: Mapping[str, str]) -> None:
        need_bird()
        folder.mkdir()
        shutil.chown(folder, USER, USER)
        self.socket, self._config, self._log = folder / "bird.ctl", folder / "bird.conf", folder / "log"
        text = (SAMPLES / sample).read_text(encoding="utf-8")
        log = f'log "{self._log}" all; log stderr {{ info }};'
        for old, new in {"log syslog all;": log, **others}.items():
            assert old in text, f"{sample} has no {old}"
            text = text.replace(old, new)
        self._config.write_text(text)
        self._before = before
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Until it serves."""
        argv = [*self._before, PROGRAM, "-f", "-u", USER, "-g", USER, "-c", str(self._config), "-s", str(self.socket)]
        self._process = subprocess.Popen(
            argv, env=COMMANDS, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=0,
        )
        stream, said = self._process.stderr, b""
        assert stream
        while b"<INFO> Started" not in said:
            ready, _, _ = select.select([stream], [], [], PATIENCE)
            part = os.read(stream.fileno(), 1 << 16) if ready else b""
            if not part:
                self.stop(signal.SIGKILL)
                pytest.fail(f"BIRD has not come up: {said.decode()}")
            said += part

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process:
            self._process.send_signal(number)
            self._process.communicate(timeout=PATIENCE)
            self._process = None

    def signal(self, number: int) -> None:
        assert self._process
        self._process.send_signal(number)
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def reconfigured(self) -> int:
        """How often it has read its configuration anew. Its status has the time of the last one, but in each answer by
        what two clocks say now: the same moment may be a millisecond later."""
        return self._log.read_text(encoding="utf-8").count("<INFO> Reconfigured")

    def ask(self, command: str) -> str:
        """What it answers, as its own client shows it."""
        argv = [CLIENT, "-s", str(self.socket), *command.split()]
        return subprocess.run(argv, env=COMMANDS, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout
