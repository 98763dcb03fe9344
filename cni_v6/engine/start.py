"""Leaves an engine behind: the first call on an idle node starts one, and is its first client.

The listening socket is there before the engine has imported anything, so thirty calls that arrive on a cold node find
it and wait in its queue: one process pays for the imports, the others for nothing. Two locks: ``.start`` is held while
a socket is being made, ``.alive`` by the engine for its life; both end with the processes that hold them.
"""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import socket
import stat
import traceback
from contextlib import suppress

from cni_v6.kernel.privilege import may_change_the_network
from cni_v6.wire import ASK_SECONDS, HANDLE_LOCALLY, STOP_SECONDS, pack

BACKLOG = 4096  # calls that may wait while the engine imports; the kernel caps it at net.core.somaxconn
IDLE_SECONDS = 300.0


def start(run_dir: bytes, path: bytes) -> bool:
    """See to it that an engine listens at ``path``, in a process of its own that this one leaves behind.

    :returns: whether one listens now; False where the folder cannot be used, an engine is on its way out, or an engine
        could not change the network either.
    """
    try:
        if not may_change_the_network():
            return False  # an engine of this user could do no more than this process
        _occupy_standard_streams()
        claimed = claim(run_dir, path)
    except OSError:
        return False
    if claimed is None:
        return _listens(path)
    listener, alive = claimed
    if os.fork() == 0:
        _become(listener, alive, path)
    listener.close()
    os.close(alive)
    return True


def claim(run_dir: bytes, path: bytes) -> tuple[socket.socket, int] | None:
    """Become the one that listens at ``path``: a listening socket, and the descriptor whose lock says so.

    :returns: None where another process is, or was and has not ended yet.
    :raises OSError: where the folder cannot be used.
    """
    _private_folder(run_dir)
    with open(path + b".start", "wb", opener=_private) as starting:
        if not take(starting.fileno(), ASK_SECONDS):  # whoever holds it has a socket ready within a millisecond
            raise TimeoutError(f"somebody holds {os.fsdecode(path)}.start")
        alive = os.open(path + b".alive", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return listen(path), alive
        except BlockingIOError:
            os.close(alive)
            return None


def take(lock: int, seconds: float) -> bool:
    """Whether the lock of an open file can be had in time. Who waits is a thread, which goes on after that."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        from threading import Thread  # in a stampede only

    waiter = Thread(target=_await, args=(os.dup(lock),), daemon=True)
    waiter.start()
    waiter.join(seconds)
    return not waiter.is_alive()


def _await(duplicate: int) -> None:
    """Get the lock: it stays as long as the other descriptor is open (flock(2))."""
    fcntl.flock(duplicate, fcntl.LOCK_EX)
    os.close(duplicate)


def sign(alive: int) -> None:
    """Write this process's id into the file whose lock says that it lives, for ``stop``."""
    os.ftruncate(alive, 0)
    os.pwrite(alive, b"%d" % os.getpid(), 0)


def stop(path: bytes, seconds: float = STOP_SECONDS) -> bool:
    """Ask the engine that listens at ``path`` to end, and wait until it has answered its calls and is gone.

    :returns: whether there was one.
    :raises TimeoutError: where it goes on after so many seconds.
    :raises OSError: where it cannot be asked.
    """
    try:
        alive = os.open(path + b".alive", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        pid = int(os.read(alive, 20))
        os.kill(pid, signal.SIGTERM)
        if not take(alive, seconds):
            raise TimeoutError(f"process {pid} has not ended within {seconds:g} seconds") from None
        return True
    finally:
        os.close(alive)


def listen(path: bytes) -> socket.socket:
    """A listening socket at ``path``, in place of one nobody listens to any more."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    aside = path + b".new"
    try:
        os.unlink(aside)
    except FileNotFoundError:
        pass
    listener.bind(aside)
    listener.listen(BACKLOG)
    os.rename(aside, path)  # appears listening
    return listener


def give_back(listener: socket.socket, path: bytes | None) -> None:
    """An engine cannot start: those who wait already are told to handle their calls themselves.

    :param path: the socket's, where it is to go; None for systemd's.
    """
    with suppress(OSError):  # it has ended in good order, or nobody waits any more
        if path is not None:
            os.unlink(path)
        listener.setblocking(False)
        while True:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.setblocking(False)
                connection.send(pack(HANDLE_LOCALLY, b"0", b"", b""))


def _listens(path: bytes) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a queue that is full is one that nobody takes from
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _become(listener: socket.socket, alive: int, path: bytes) -> None:
    """The child: of no terminal, no folder, no stream of its parent's, so that nobody waits for it. Never returns."""
    status = 1
    try:
        os.setsid()
        sign(alive)
        os.chdir("/")
        _close_all_but({listener.fileno(), alive})
        gc.disable()
        from cni_v6.engine.inheritance import drop_inherited
        from cni_v6.engine.server import Server

        drop_inherited()

        gc.freeze()  # modules stay: no collection has to look at them again
        gc.enable()
        os.environ.clear()
        Server(listener, path=path, idle=IDLE_SECONDS).run()
        status = 0
    except BaseException:
        _note(path + b".log")
        give_back(listener, path)
    finally:
        os._exit(status)


def _occupy_standard_streams() -> None:
    """Open those of descriptors 0 to 2 that the caller left closed: the engine replaces them, so nothing of its own may
    get one of these numbers."""
    while (descriptor := os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)) <= 2:
        pass
    os.close(descriptor)


def _close_all_but(kept: set[int]) -> None:
    nothing = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor > 2 and descriptor not in kept:
            try:
                os.close(descriptor)
            except OSError:
                pass  # the listing's own


def _note(path: bytes) -> None:
    """Why an engine could not start, where an operator finds it; the calls went in-process."""
    try:
        with open(path, "wb", opener=_private) as log:
            log.write(traceback.format_exc().encode(errors="replace"))
    except OSError:
        pass


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _private_folder(path: bytes) -> None:
    """The folder of the sockets is its owner's alone, and its owner is this process's.

    :raises OSError: where it cannot be made, or is somebody else's.
    """
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{os.fsdecode(path)} is not a folder of this user's alone")
