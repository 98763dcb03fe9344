"""Pieces of a test in processes of their own: killed before each of their system calls, or many at once.

Started as ``python -m tests.killed_processes <what> <folder>`` it is a process without threads, so that it may fork; it
prints one JSON object for each round.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from cni_v6.errors import CniError
from cni_v6.leases.disk.store import DiskLeases
from tests.stores import (
    LARGE,
    NETWORK,
    SMALL,
    Choice,
    add,
    attachment,
    delete,
    lease_files,
    owner,
    pool,
    record_files,
)

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def each_call(watch: Callable[[str], None]) -> Iterator[None]:
    """Call ``watch`` with its name before every function of the ``os`` module that this thread calls."""

    def profile(_frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call" and argument.__module__ == "posix":
            watch(argument.__name__)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(before)


def calls(step: Callable[[], object]) -> list[str]:
    """The functions of the ``os`` module that a step calls, in order."""
    names: list[str] = []
    with each_call(names.append):
        step()
    return names


def listings(step: Callable[[], object]) -> int:
    """How many folders a step reads."""
    return sum(name in ("listdir", "scandir") for name in calls(step))


def syncs(step: Callable[[], object]) -> int:
    """How often a step waits for the disk."""
    return sum(name in ("fsync", "fdatasync", "sync") for name in calls(step))


def run(what: str, *words: str, wrapper: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Run one of the programs below and read what it prints."""
    command = [*wrapper, sys.executable, "-m", "tests.killed_processes", what, *words]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def fork(step: Callable[[], object]) -> int:
    """Start a process that runs the step and leaves without cleaning up."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            step()
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    return child


def killed_at(number: int, step: Callable[[], object]) -> bool:
    """Run a step in a process that is killed before its system call of this number; whether it came that far."""

    def count(_name: str) -> None:
        nonlocal number
        if number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        number -= 1

    def watched() -> None:
        with each_call(count):
            step()

    _, status = os.waitpid(fork(watched), 0)
    if os.WIFSIGNALED(status):
        return True
    assert status == 0
    return False


def kill_everywhere(folder: str, scenario: str) -> Iterator[dict[str, Any]]:
    """An ADD, or a DEL, killed before every one of its system calls in turn; every round is another boot.

    Scenarios: ``fresh`` an ADD where there is no folder yet, ``add``, ``del``, ``walk`` a DEL of what another wrote.
    """
    number, going = 0, True
    root = Path(folder, NETWORK)
    while going:
        leases = DiskLeases(NETWORK, folder, boot=f"boot {number}")
        if scenario == "fresh":
            folder = str(Path(folder, "next"))
            root, leases = Path(folder, NETWORK), DiskLeases(NETWORK, folder, boot="boot")
        name = f"c{number}"
        given = add(leases, name, SMALL, LARGE) if scenario == "del" else ()
        if scenario == "walk":
            _write_foreign(root, name)

        def step(leases: DiskLeases = leases, name: str = name) -> None:
            if scenario in ("del", "walk"):
                delete(leases, name)
            else:
                add(leases, name, SMALL, LARGE)

        going = killed_at(number, step)
        yield {"number": number, "killed": going, "given": given, **_state(root), "after": _finish(leases, name, root)}
        number += 1


class Step(NamedTuple):
    """An ADD, or a DEL where there is nothing to choose from; killed before its system call of number ``at``."""

    at: int
    folder: str
    boot: str
    now: float
    name: str
    choices: tuple[Choice, ...] = ()


class Killer:
    """A process without threads that forks one for each step and kills it, since a test's own may have threads."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.killed_processes", "steps"]
        self._process = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, step: Step) -> bool:
        """Whether the step came as far as the call that it was to be killed at."""
        assert self._process.stdin and self._process.stdout
        print(pickle.dumps(step).hex(), file=self._process.stdin, flush=True)
        return bool(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate()


def steps() -> Iterator[bool]:
    """What ``Killer`` asks for, one after the other."""
    for line in sys.stdin:
        step: Step = pickle.loads(bytes.fromhex(line))

        def take(step: Step = step) -> None:
            leases = DiskLeases(NETWORK, step.folder, boot=step.boot, now=lambda: step.now)
            with suppress(CniError), leases.transaction() as work:
                if step.choices:
                    chosen = [work.choose(index, *choice) for index, choice in enumerate(step.choices)]
                    work.put(attachment(step.name, chosen, step.choices, boot=step.boot, created=step.now))
                else:
                    work.drop(owner(step.name))

        yield killed_at(step.at, take)


def _write_foreign(root: Path, name: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for address in ("10.1.0.5", "fd00::5"):
        (root / address).write_bytes(f"{name}\r\neth0".encode())


def _state(root: Path) -> dict[str, Any]:
    if not (root / "attachments").exists():
        return {"leases": {}, "records": {}}
    return {"leases": lease_files(root), "records": record_files(root)}


def _finish(leases: DiskLeases, name: str, root: Path) -> dict[str, Any]:
    """What a DEL leaves, after a retried ADD was refused or done."""
    try:
        again: object = add(leases, name, SMALL, LARGE)
    except CniError as error:
        again = error.code
    delete(leases, name)
    return {"again": again, **_state(root)}


def storm(folder: str, count: str) -> Iterator[dict[str, Any]]:
    """Many processes at once, each with three ADDs and one DEL."""
    pipe, end = os.pipe()

    def step() -> None:
        leases = DiskLeases(NETWORK, folder, boot="boot")
        for turn in range(3):
            name = f"c{os.getpid()}-{turn}"
            addresses = add(leases, name, pool("10.3.0.0/24"), LARGE)
            os.write(end, (json.dumps([name, *addresses]) + "\n").encode())
        delete(leases, f"c{os.getpid()}-0")

    children = [fork(step) for _ in range(int(count))]
    codes = [os.waitpid(child, 0)[1] for child in children]
    os.close(end)
    with open(pipe, encoding="ascii") as lines:
        given = [json.loads(line) for line in lines]
    yield {"codes": codes, "given": given, **_state(Path(folder, NETWORK))}


def full(folder: str, kind: str) -> Iterator[dict[str, Any]]:
    """ADDs on a file system with ever more room, or none, or read-only. Needs a mount namespace of its own."""
    mount = ("mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=1000", "none", folder)
    subprocess.run(mount, check=True)
    root = Path(folder, NETWORK)
    leases = DiskLeases(NETWORK, folder, boot="boot")
    add(leases, "before", SMALL, LARGE)
    status = os.statvfs(folder)
    used = status.f_files - status.f_ffree
    rooms = [f"nr_inodes={used + more}" for more in range(8)] if kind == "inodes" else ["ro"] if kind == "ro" else [""]
    for number, room in enumerate(rooms):
        if kind == "space":
            _fill(Path(folder, "filler"))
        else:
            subprocess.run(("mount", "-o", f"remount,{room}", "none", folder), check=True)
        try:
            result: object = add(leases, f"c{number}", SMALL, LARGE)
        except CniError as error:
            result = [error.code, error.msg, error.details]
        yield {"room": room, "result": result, "spare": os.path.exists(root / "attachments/.new"), **_state(root)}
        subprocess.run(("mount", "-o", "remount,rw,nr_inodes=1000", "none", folder), check=True)
        Path(folder, "filler").unlink(missing_ok=True)
        delete(leases, f"c{number}")
    yield {"room": "enough", "result": add(leases, "last", SMALL, LARGE), "spare": False, **_state(root)}


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return


PROGRAMS: dict[str, Callable[..., Iterator[object]]] = {
    "kill": kill_everywhere, "storm": storm, "full": full, "steps": steps,
}

if __name__ == "__main__":
    for line in PROGRAMS[sys.argv[1]](*sys.argv[2:]):
        print(json.dumps(line), flush=True)
