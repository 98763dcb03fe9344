"""Puts files into folders of this node, and takes away exactly those later.

Each folder has a list of them, in the format of sha256sum(1). A file that somebody has changed since is no longer ours.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby

from cni_v6.errors import IO_FAILURE, NODE_CONFLICT, CniError
from cni_v6.kernel.privilege import needs_root

LIST = ".cni-v6.sha256"
HEAD = "# What cni-v6ctl install put here. cni-v6ctl uninstall takes it away.\n"
MADE = "# Folders that were made for it, this one and above: "
NEW, REPLACED, UNCHANGED, REMOVED, LEFT = "new", "replaced", "unchanged", "removed", "left, changed by others"
ACTIONS = (NEW, REPLACED, UNCHANGED, REMOVED, LEFT)


@dataclass(frozen=True, slots=True)
class File:
    """A file that is wanted. ``may_replace``: whether other content at its place may be replaced, if it is not on the
    folder's list."""

    path: str
    content: bytes
    mode: int
    may_replace: Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of a file. ``action``: one of the words above."""

    path: str
    action: str


@dataclass(slots=True)
class _Listed:
    """A folder's list: name -> sha256. ``made``: how many folders were made for it, this one and those above it."""

    sums: dict[str, str] = field(default_factory=dict)
    made: int = 0

    def text(self) -> str:
        lines = (f"{checksum}  {name}\n" for name, checksum in sorted(self.sums.items()))
        return "".join((HEAD, f"{MADE}{self.made}\n" if self.made else "", *lines))


def plan(files: Iterable[File], *, force: bool = False) -> list[Step]:
    """What ``put`` will do.

    :param force: replace anything.
    :raises CniError: NODE_CONFLICT for files that may not be replaced; IO_FAILURE.
    """
    steps, foreign = [], []
    for file in files:
        content = _read(file.path)
        listed = _read_list(os.path.dirname(file.path)).sums.get(os.path.basename(file.path))
        if content is None:
            action = NEW
        elif content == file.content:
            action = UNCHANGED
        else:
            action = REPLACED
            if not (force or listed == _sum(content) or file.may_replace(content)):
                foreign.append(file.path)
        steps.append(Step(file.path, action))
    if foreign:
        words = f"{', '.join(foreign)} {'is' if len(foreign) == 1 else 'are'} not of cni-v6ctl install"
        raise CniError(NODE_CONFLICT, words, "move it away, or replace it with --force")
    return steps


def put(files: Iterable[File], steps: Iterable[Step]) -> None:
    """Put files into their folders, each in one step: a runtime may be reading or executing it.

    :param steps: of ``plan`` for these files.
    :raises CniError: IO_FAILURE. Then all is as before, unless only some files could be renamed.
    """
    actions = {step.path: step.action for step in steps}
    pending = sorted((file for file in files if actions[file.path] != UNCHANGED), key=_folder)
    with _undone_on_failure() as (made, written):
        for folder, group in groupby(pending, _folder):
            listed = _read_list(folder)
            listed.made = _make(folder, made) or listed.made
            for file in group:
                listed.sums[os.path.basename(file.path)] = _sum(file.content)
                written.append((_write(file.path, file.content, file.mode), file.path))
            path = f"{folder}/{LIST}"  # renamed first: what is in a list but not there yet does no harm
            written.insert(0, (_write(path, listed.text().encode(), 0o644), path))
        for temporary, path in written:
            with _naming(path):
                os.rename(temporary, path)
            _sync(os.path.dirname(path))


def remove(folders: Iterable[str], *, dry: bool = False) -> list[Step]:
    """Take away what the lists of these folders name, the lists, and the folders that were made for it.

    :param dry: change nothing.
    :raises CniError: IO_FAILURE.
    """
    steps = []
    for folder in folders:
        if _read(f"{folder}/{LIST}") is None:
            continue
        listed = _read_list(folder)
        for name, checksum in sorted(listed.sums.items()):
            content = _read(f"{folder}/{name}")
            if content is None:
                continue
            is_same = _sum(content) == checksum
            steps.append(Step(f"{folder}/{name}", REMOVED if is_same else LEFT))
            if is_same and not dry:
                _unlink(f"{folder}/{name}")
        if not dry:
            _unlink(f"{folder}/{LIST}")
            _remove_made(folder, listed.made)
    return steps


def read(path: str) -> bytes:
    """A file's content.

    :raises CniError: IO_FAILURE, also if it does not exist.
    """
    content = _read(path)
    if content is None:
        raise CniError(IO_FAILURE, f"cannot read {path}", "there is no such file")
    return content


@contextmanager
def _undone_on_failure() -> Iterator[tuple[list[str], list[tuple[str, str]]]]:
    """Lists of folders that were made, and of (temporary file, its path to be): a failure removes both."""
    made: list[str] = []
    written: list[tuple[str, str]] = []
    try:
        yield made, written
    except CniError:
        for temporary, _ in written:
            with suppress(OSError):
                os.unlink(temporary)
        for folder in reversed(made):
            with suppress(OSError):
                os.rmdir(folder)
        raise


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Turn an OSError into a CniError that names the path."""
    try:
        yield
    except OSError as error:
        words = f"{needs_root(error)}cannot write {path}"
        raise CniError(IO_FAILURE, words, str(error.strerror)) from error


def _folder(file: File) -> str:
    return os.path.dirname(file.path)


def _make(folder: str, made: list[str]) -> int:
    """Create a folder and its parents; how many of them did not exist."""
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for parent in reversed(missing):
        with _naming(parent):
            os.mkdir(parent, 0o755)
            os.chmod(parent, 0o755)  # whatever the umask is: a runtime's user must be able to look there
        made.append(parent)
    return len(missing)


def _remove_made(folder: str, count: int) -> None:
    with suppress(OSError):  # others have put something into it
        for _ in range(count):
            os.rmdir(folder)
            folder = os.path.dirname(folder)


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CniError(IO_FAILURE, f"{needs_root(error)}cannot read {path}", str(error.strerror)) from error


def _read_list(folder: str) -> _Listed:
    lines = (_read(f"{folder}/{LIST}") or b"").decode(errors="replace").splitlines(keepends=True)
    pairs = (line.split() for line in lines if not line.startswith("#"))
    # A name, not a path: a list that somebody has changed leads nowhere else.
    sums = {pair[1]: pair[0] for pair in pairs if len(pair) == 2 and "/" not in pair[1]}
    made = next((line.removeprefix(MADE).strip() for line in lines if line.startswith(MADE)), "")
    return _Listed(sums, int(made) if made.isdecimal() else 0)


def _write(path: str, content: bytes, mode: int) -> str:
    """Write a file beside ``path``; its path. A conflist's must not look like a configuration meanwhile."""
    temporary = f"{os.path.dirname(path)}/.{os.path.basename(path)}.{os.getpid()}"
    with _naming(path):
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            with open(file, "wb") as stream:
                stream.write(content)
                os.fchmod(file, mode)
                stream.flush()
                os.fsync(file)
        except OSError:
            os.unlink(temporary)
            raise
    return temporary


def _unlink(path: str) -> None:
    with _naming(path), suppress(FileNotFoundError):
        os.unlink(path)


def _sync(folder: str) -> None:
    with _naming(folder):
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
