"""An etcd of the test's own, of one member."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree, which
from tempfile import TemporaryDirectory

import pytest

from tests.sandbox import COMMANDS, need

PATIENCE = 30.0
PROGRAM = which("etcd")


class Etcd:
    """
    :param address: to listen on; nobody else of its network namespace does.
    :param before: a command that runs another one where etcd is to run.
    :param more: further arguments; with certificates, clients must have one too.
    """

    def __init__(self, folder: Path, address: str, before: Sequence[str] = (), more: Sequence[str] = ()) -> None:
        host = f"[{address}]" if ":" in address else address
        self.url = f"http{'s' if more else ''}://{host}:2379"
        peer = f"http://{host}:2380"
        self._argv = [
            *before, PROGRAM or "etcd", "--name", "one", "--data-dir", f"{folder}/data",
            "--listen-client-urls", self.url, "--advertise-client-urls", self.url, "--listen-peer-urls", peer,
            "--initial-advertise-peer-urls", peer, "--initial-cluster", f"one={peer}", *more,
        ]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Until it serves, which it tells as systemd's services do."""
        path = self._folder / "notify"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, open(self._folder / "log", "ab") as log:
            manager.bind(str(path))
            self._process = subprocess.Popen(
                self._argv, env={**COMMANDS, "NOTIFY_SOCKET": str(path)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
            end = os.pidfd_open(self._process.pid)
            ready, _, _ = select.select([manager.fileno(), end], [], [], PATIENCE)
            os.close(end)
            serves = manager.fileno() in ready
        if not serves:
            pytest.fail(f"etcd has not come up:\n{(self._folder / 'log').read_text()}")

    def signal(self, number: int) -> None:
        assert self._process
        self._process.send_signal(number)
        if number == signal.SIGSTOP:  # its threads answer until all of them have stopped
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def lose(self) -> None:
        """Everything that it has, while it does not run."""
        rmtree(self._folder / "data")

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait(PATIENCE)


@contextmanager
def etcd(address: str, before: Sequence[str] = (), more: Sequence[str] = ()) -> Iterator[Etcd]:
    """One that serves; arguments as of ``Etcd``."""
    need(PROGRAM, "needs etcd (Debian: etcd-server)")
    with TemporaryDirectory(prefix="etcd-") as folder:
        made = Etcd(Path(folder), address, before, more)
        try:
            made.start()
            yield made
        finally:
            made.stop()


def own_address() -> str:
    """An address of the loopback interface that no other test process takes."""
    pid = os.getpid()
    return f"127.{pid >> 16 & 0xFF | 0x80}.{pid >> 8 & 0xFF}.{pid & 0xFF}"


def certificates(folder: Path, *addresses: str) -> tuple[str, str, str]:
    """(certificate of an authority, certificate of addresses by it, key of that), as files."""
    authority, own = folder / "ca", folder / "own"
    made = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    for path, name, more in (
        (authority, "authority", ()),
        (own, "etcd", ("-CA", f"{authority}.crt", "-CAkey", f"{authority}.key", "-addext", "basicConstraints=CA:FALSE",
                       "-addext", f"subjectAltName={','.join(f'IP:{address}' for address in addresses)}")),
    ):
        argv = ("openssl", *made, "-keyout", f"{path}.key", "-out", f"{path}.crt", "-subj", f"/CN={name}", *more)
        subprocess.run(argv, env=COMMANDS, check=True, capture_output=True)
    return f"{authority}.crt", f"{own}.crt", f"{own}.key"
