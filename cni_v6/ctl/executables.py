"""The executables that runtimes call: the courier, where this installation carries one, and those in Python.

``tools/install`` and ``cni-v6ctl install`` put them into folders.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cni_v6
from cni_v6.plugins.registry import PLUGINS

PLUGIN_NAMES = tuple(PLUGINS)
CTL = "cni-v6ctl"
PACKAGE = Path(cni_v6.__file__).resolve().parent
LIBRARIES = ("cni_v6", "pyroute2", "netaddr", "filelock")  # what a call imports
LIST = "INSTALLED"  # tools/install keeps it in a folder that has nothing but ours

_MADE = re.compile(rb"cni-v6 courier ([^ \0]+) for (/[^\0]*)\0")  # courier/courier.c
_PYTHON = re.compile(rb"^from cni_v6\.[a-z_.]+ import ", re.MULTILINE)
_ELF_BYTES = 20  # elf(5): up to e_machine, all that tells one processor from another

_PLUGIN_BODY = '''
from posix import _exit  # noqa: E402

from cni_v6.shim import main  # noqa: E402

# The answer is written: taking the interpreter down in good order would cost the caller a quarter of its start again.
_exit(main("{name}"))
'''
_CTL_BODY = '''
from cni_v6.ctl import main  # noqa: E402
from cni_v6.engine.inprocess import leave_interrupts_to_the_kernel  # noqa: E402

leave_interrupts_to_the_kernel()
sys.exit(main())
'''


@dataclass(frozen=True, slots=True)
class Courier:
    """``folder``: where it looks for the Python executables."""

    content: bytes
    version: str
    folder: str


def courier(package: Path = PACKAGE) -> Courier | None:
    """The courier that the package carries; None if it carries none, or one for another processor."""
    try:
        content = package.joinpath("courier").read_bytes()
    except OSError:
        return None
    made = _MADE.search(content)
    if made is None or _processor(content) != _processor(_interpreter()):
        return None
    return Courier(content, made[1].decode(), os.fsdecode(made[2]))


def _interpreter() -> bytes:
    with open("/proc/self/exe", "rb") as file:
        return file.read(_ELF_BYTES)


def _processor(program: bytes) -> tuple[bytes, bytes]:
    """Bits and order of bytes, and e_machine."""
    return program[4:6], program[18:20]


def python(name: str, interpreter: str, folders: list[str], *, first: bool) -> str:
    """The text of an executable in Python, for a plugin or the operator's command.

    :param folders: where the package and its libraries are.
    :param first: look there before Python's own library. This is faster, but only safe for folders that have nothing
        that Python's library has too.
    """
    is_plugin = name in PLUGINS
    title = f"The CNI plugin of type ``{name}``." if is_plugin else "The operator's command."
    place = "[:0] =" if first else " +="
    body = _PLUGIN_BODY.format(name=name) if is_plugin else _CTL_BODY
    return f'#!{interpreter} -ISE\n"""{title}"""\n\nimport sys\n\nsys.path{place} {folders!r}\n{body}'


def own_python(name: str) -> bytes:
    """The executable in Python that runs this installation."""
    folders = _folders()
    first = len(folders) == 1 and os.path.exists(f"{folders[0]}/{LIST}")
    return python(name, sys.executable, folders, first=first).encode()


def _folders() -> list[str]:
    specs = (find_spec(name) for name in LIBRARIES)
    return list(dict.fromkeys(str(Path(spec.origin).resolve().parents[1]) for spec in specs if spec and spec.origin))


def exposed() -> list[str]:
    """What others than root may change of what ``own_python`` makes root execute: whoever may is root."""
    places = (os.path.realpath(sys.executable), sys.executable, *_folders())
    paths = dict.fromkeys(path for place in places for path in _with_parents(place))
    return [path for path in paths if _may_be_changed(os.stat(path))]


def _with_parents(path: str) -> Iterator[str]:
    yield path
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        yield path


def _may_be_changed(status: os.stat_result) -> bool:
    """In a folder with the sticky bit, such as /tmp, only the owner of a file may replace it (inode(7))."""
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
    return status.st_uid != 0 or bool(shared)


def is_ours(content: bytes) -> bool:
    """Whether a file is an executable of cni-v6, of any version."""
    return bool(_MADE.search(content) or content.startswith(b"#!") and _PYTHON.search(content))


def main() -> None:
    """For ``tools/install``. Arguments: the interpreter, the folder of the package and its libraries, the folder into
    which the executables are written, their names."""
    interpreter, folder, target, *names = sys.argv[1:]
    for name in names:
        Path(target, name).write_text(python(name, interpreter, [folder], first=True), encoding="utf-8")


if __name__ == "__main__":
    main()
