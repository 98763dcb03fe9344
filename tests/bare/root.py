"""A bare Debian root, and a shell in it that is typed into as a newcomer would."""

from __future__ import annotations

import base64
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.sandbox import ROOT, SANDBOX, need

END = "what was printed ends here:"  # the shell says it after each command, with the exit status


class Root:
    """The shell; its working folder is the clone.

    What is called through ``own`` finds a network namespace that is the root's alone, without a way out. Everything
    else is in the one through which packages can be downloaded.
    """

    def __init__(self, shell: subprocess.Popen[str]) -> None:
        assert shell.stdin and shell.stdout
        self._commands, self._printed = shell.stdin, shell.stdout
        self.run("mkdir /run/netns && touch /run/netns/node && unshare --net=/run/netns/node true")

    def run(self, command: str) -> str:
        """Run a command to its end and return all that it prints; it has to succeed."""
        # A subshell of its own, without our standard input, from which the next commands come.
        self._commands.write(f"(set -eu\n{command}\n) </dev/null 2>&1; echo \"{END} $?\"\n")
        self._commands.flush()
        printed = list(self._until_end())
        status = printed.pop().removeprefix(END).strip() if printed and printed[-1].startswith(END) else "none"
        text = "".join(printed)
        assert status == "0", f"exit status {status}: {command}\n{text}"
        return text

    def bring(self, file: Path, target: str) -> None:
        """Copy a file of this machine into the root."""
        text = base64.encodebytes(file.read_bytes()).decode()
        self.run(f"base64 --decode >{shlex.quote(target)} <<END\n{text}END")

    def own(self, command: str) -> str:
        """The same in the root's own network namespace."""
        return self.run(f"nsenter --net=/run/netns/node sh -euc {shlex.quote(command)}")

    def _until_end(self) -> Iterator[str]:
        for line in self._printed:
            before, end, status = line.partition(END)
            if end:
                yield from filter(None, (before, end + status))
                return
            yield line


@contextmanager
def bare(release: str) -> Iterator[Root]:
    """A fresh one. It ends with all that runs in it."""
    need(os.geteuid() == 0, "needs root, to make namespaces")
    need(shutil.which("mmdebstrap"), "needs mmdebstrap")
    command = [*_outside(), str(ROOT / "tools/bare"), release, "sh"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as shell:
        try:
            yield Root(shell)
        finally:
            shell.kill()  # unshare(1) in there takes everything along (--kill-child)


def _outside() -> list[str]:
    """What leads back from tools/sandbox's network, which has no way out, to that of whoever called it."""
    if not SANDBOX.exists():
        return []
    wanted = SANDBOX.read_text(encoding="ascii").strip()
    for pid in _ancestors(os.getpid()):
        if os.readlink(f"/proc/{pid}/ns/net") == wanted:
            return ["nsenter", f"--net=/proc/{pid}/ns/net"]
    pytest.fail("no process above this one is outside tools/sandbox: its network is out of reach", pytrace=False)


def _ancestors(pid: int) -> Iterator[int]:
    while pid:
        yield pid
        # proc_pid_stat(5): the parent is the second field after the command's closing parenthesis.
        pid = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
