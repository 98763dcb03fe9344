"""One file that is ``cni-v6ctl``, for nodes without pip: an archive that Python executes (zipapp), of ``make dist``.

It runs every command as it is. Only ``install`` needs files, which plugins and engine start from: it unpacks the
library into LIB first, as ``make install`` does, and goes on from there. ``uninstall`` takes all of that away again.
"""

from __future__ import annotations

import compileall
import os
import platform
import py_compile
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from zipfile import ZipFile

from cni_v6.ctl import executables, main
from cni_v6.errors import IO_FAILURE, NODE_CONFLICT, CniError
from cni_v6.kernel import whole_file
from cni_v6.kernel.privilege import needs_root

LIB, CTL = Path("/usr/local/lib/cni-v6"), Path("/usr/local/sbin/cni-v6ctl")
MARK = "FROM_SINGLE_FILE"  # in the list, where it was this file that has made it
COURIERS = "couriers"  # in the archive, by processor
PLAIN = ("-h", "--help", "--dry-run")  # nothing is unpacked then


def run(archive: Path, given: list[str]) -> int:
    """What the archive does when it is executed.

    :returns: the exit status.
    """
    changes = given[:1] and not set(PLAIN).intersection(given)
    try:
        if changes and given[0] == "install":
            _unpack(archive)
            os.execv(CTL, [str(CTL), *given])
        if changes and given[0] == "uninstall" and CTL.exists():
            return _uninstall(given)
    except CniError as error:
        print(f"cni-v6ctl: error {error.code}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        words = f"{needs_root(error)}cannot change {error.filename or LIB}: {error.strerror}"
        print(f"cni-v6ctl: error {IO_FAILURE}: {words}", file=sys.stderr)
        return 1
    if given[:1] == ["install"] and "--dry-run" in given:
        print(f"cni-v6ctl: note: before that, it would be unpacked into {LIB}, with {CTL}", file=sys.stderr)
    return main(given)


def _unpack(archive: Path) -> None:
    """The library into LIB: each file in one step, since plugins may be starting from it. Then the command itself.

    :raises CniError: NODE_CONFLICT if somebody else's is there.
    :raises OSError: it cannot be written.
    """
    before = _listed()
    if before is None or (CTL.exists() and not executables.is_ours(CTL.read_bytes())):
        where = CTL if before is not None else LIB
        raise CniError(NODE_CONFLICT, f"{where} is there already, and is not of this file",
                       "take it away as it was made: make uninstall, or the package manager")
    LIB.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=LIB.parent, prefix=".cni-v6.") as place:
        names = _stage(archive, Path(place))
        for name in names:
            LIB.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(place, name), LIB / name)
    _remove(set(before) - set(names))
    CTL.parent.mkdir(parents=True, exist_ok=True)
    content = executables.python(executables.CTL, sys.executable, [str(LIB)], first=True).encode()
    whole_file.replace(str(CTL), content, f"{CTL}.new", 0o755)
    whole_file.replace(str(LIB / executables.LIST), "".join(f"{name}\n" for name in (MARK, *names)).encode(),
                       str(LIB / f"{executables.LIST}.new"), 0o644)


def _stage(archive: Path, place: Path) -> list[str]:
    """The library as files below ``place``, with its byte code and this processor's courier; their names."""
    with ZipFile(archive) as packed:
        couriers = {name for name in packed.namelist() if name.startswith(f"{COURIERS}/")}
        packed.extractall(place, [name for name in packed.namelist() if "/" in name and name not in couriers])
        own = f"{COURIERS}/{platform.machine()}"
        if own in couriers:
            place.joinpath("cni_v6/courier").write_bytes(packed.read(own))
            place.joinpath("cni_v6/courier").chmod(0o755)
    compileall.compile_dir(
        place, quiet=1, stripdir=str(place), prependdir=str(LIB),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())


def _listed() -> list[str] | None:
    """The files of LIB that this file has put there; None if they are somebody else's."""
    try:
        mark, *names = LIB.joinpath(executables.LIST).read_text(encoding="utf-8").splitlines() or [""]
    except FileNotFoundError:
        return None if LIB.joinpath("cni_v6").exists() else []
    return names if mark == MARK else None


def _uninstall(given: list[str]) -> int:
    """``cni-v6ctl uninstall`` of what is installed; if it does not refuse, the library and the command go, too."""
    status = subprocess.run([CTL, *given], check=False).returncode
    names = _listed()
    if status or names is None:
        return status
    _remove({*names, executables.LIST})
    with suppress(OSError):  # somebody else has put something there
        LIB.rmdir()
    CTL.unlink()
    return 0


def _remove(names: set[str]) -> None:
    """Files of LIB, and the folders that are empty then."""
    for name in names:
        LIB.joinpath(name).unlink(missing_ok=True)
    for folder in sorted({parent for name in names for parent in Path(name).parents}, reverse=True):
        with suppress(OSError):
            LIB.joinpath(folder).rmdir()
