"""User-mode Linux: a kernel with what the running one may lack, as a process, on the machine's file system.

It is Debian's, with modules, or the one that tools/uml-kernel builds, with all of it built in.

Its root is the machine's own, read-only; one folder can be written. It runs in a process id namespace of its own, so
that nothing of it outlives the one process that is ended when it hangs.
"""

from __future__ import annotations

import compileall
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.sandbox import ROOT

KERNEL = "/usr/bin/linux.uml"
BUILT = str(ROOT / ".tools/uml/linux")
MODULES = Path("/usr/lib/uml/modules")
INIT = Path(__file__).with_name("init")
TIMEOUT = 600  # seconds, on a busy machine; less than these tests are given, so that the console is shown
# Beside IPv6, which comes first: the bridge and ipvlan are linked to it, also where it is switched off.
NETWORK = ("bridge", "veth", "8021q", "ipvlan", "macvlan", "dummy numdummies=0")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went: the exit status of the command (None where it did not come to its end), what was printed."""

    status: int | None
    output: str
    console: str

    def text(self) -> str:
        """What there is to read, for a test that failed."""
        return f"status {self.status}\n--- output\n{self.output}\n--- console\n{self.console}"


def missing(kernel: str = KERNEL) -> str:
    """What this machine lacks to boot it, "" where nothing is."""
    if kernel == BUILT and not os.access(BUILT, os.X_OK):
        return "the kernel that tools/uml-kernel builds"
    if kernel == KERNEL and not (os.access(KERNEL, os.X_OK) and MODULES.is_dir()):
        return "Debian's user-mode-linux"
    return "" if os.access("/usr/bin/busybox", os.X_OK) else "busybox, for insmod"


def boot(
    command: Sequence[str], folder: Path, env: Mapping[str, str], parameters: str = "", kernel: str = KERNEL
) -> Outcome:
    """Boot, run a command in the checkout, switch off.

    :param folder: the one folder that the command can write, at the same path; its TMPDIR. Must be empty.
    :param parameters: of the kernel, such as ``ipv6.disable=1``. Those of a module go to the module.
    """
    compileall.compile_dir(ROOT / "cni_v6", quiet=2)  # it could not keep the byte code: every call would compile
    ipv6 = " ".join(each.removeprefix("ipv6.") for each in parameters.split() if each.startswith("ipv6."))
    modules = [f"ipv6 {ipv6}", *NETWORK, ""] if kernel == KERNEL else []
    (folder / "modules").write_text("\n".join(modules), encoding="ascii")
    exports = [f"export {key}={shlex.quote(value)}" for key, value in {**env, "TMPDIR": str(folder)}.items()]
    lines = [*exports, shlex.join(["cd", str(ROOT)]), shlex.join(["exec", *command]), ""]
    (folder / "run").write_text("\n".join(lines), encoding="utf-8")
    console = _run(
        kernel, "mem=256M", f"uml_dir={folder}/", "rootfstype=hostfs", "rootflags=/", "ro", *parameters.split(),
        "random.trust_bootloader=1",  # what the machine gives it at its start: else it waits for chance, for minutes
        "loglevel=3", "con=null", "con0=null,fd:1", "init=/bin/sh", "--", str(INIT), str(folder), folder=folder,
    )
    status = _read(folder / "status").strip()
    return Outcome(int(status) if status else None, _read(folder / "output"), console)


def _run(*argv: str, folder: Path) -> str:
    """Until it is off. Its memory is a file in TMPDIR that has no name: in the sandbox's /run it is memory indeed."""
    process = subprocess.Popen(
        ["taskset", "--cpu-list", str(_cpu()), "unshare", "--pid", "--fork", "--kill-child", *argv],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": "/run", "HOME": str(folder)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    try:
        out, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
        out += f"\nstill running after {TIMEOUT} seconds: ended".encode()
    finally:  # however the wait ended; --kill-child takes the rest along
        process.kill()
        process.wait()
    return out.decode(errors="replace")


def _cpu() -> int:
    """One CPU: the kernel and what runs in it take turns, and waking another CPU each time makes it three times slower.

    Another one for each of the processes that run tests.
    """
    cpus = sorted(os.sched_getaffinity(0))
    return cpus[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % len(cpus)]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
