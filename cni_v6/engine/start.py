"""Starts an engine: the first call on a node without one starts it, and is its first client.

The listening socket exists before the engine has imported anything. Other calls that arrive then wait in its queue, so
only one process pays for the imports. There are two lock files: ``.start`` is locked while a socket is being made,
``.alive`` by the engine for its life. The kernel releases both locks when the processes end.
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

BACKLOG = 4096  # calls that may wait while the engine imports; net.core.somaxconn limits it
IDLE_SECONDS = 300.0


def start(run_dir: bytes, path: bytes, starting: int = -1) -> bool:
    """Start an engine that listens at ``path``, in a process of its own, unless there is one.

    :param run_dir: the folder of the socket, created if it is absent.
    :param starting: as of ``claim``; it is closed.
    :returns: whether an engine listens now. False: the folder cannot be used, an earlier engine has not ended yet, or
        this user may not change the network.
    """
    try:
        if not may_change_the_network():
            return False  # an engine of this user could not either
        _occupy_standard_streams()
        claimed = claim(run_dir, path, starting)
    except OSError:
        return False
    finally:
        if starting >= 0:
            with suppress(OSError):
                os.close(starting)  # other couriers wait for that
    if claimed is None:
        return _listens(path)
    listener, alive = claimed
    if os.fork() == 0:
        _become(listener, alive, path)
    listener.close()
    os.close(alive)
    return True


def claim(run_dir: bytes, path: bytes, starting: int = -1) -> tuple[socket.socket, int] | None:
    """Make the listening socket at ``path`` and take the lock ``.alive``.

    :param starting: a descriptor of ``.start`` that a courier has locked before it became this process; -1 for none.
    :returns: the socket and the descriptor of the lock; None if another engine listens, or has not ended yet.
    :raises OSError: the folder cannot be used.
    """
    private_folder(run_dir)
    opened = path + b".start" if starting < 0 else starting
    with open(opened, "wb", opener=_private, closefd=starting < 0) as lock:
        if not take(lock.fileno(), ASK_SECONDS):  # it is held for a millisecond, or by a courier until Python runs
            raise TimeoutError(f"somebody holds {os.fsdecode(path)}.start")
        alive = be_alive(path)
        return None if alive is None else (listen(path), alive)


def be_alive(path: bytes) -> int | None:
    """Take the lock ``.alive`` beside a socket; None if another engine has it."""
    alive = os.open(path + b".alive", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return alive
    except BlockingIOError:
        os.close(alive)
        return None


def take(lock: int, seconds: float) -> bool:
    """Take the lock of an open file; whether it succeeded in time. A thread waits, and goes on waiting after that."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        from threading import Thread  # needed only if several calls start an engine at once

    waiter = Thread(target=_await, args=(os.dup(lock),), daemon=True)
    waiter.start()
    waiter.join(seconds)
    return not waiter.is_alive()


def _await(duplicate: int) -> None:
    """Take the lock. It lasts while the other descriptor of the file is open (flock(2))."""
    fcntl.flock(duplicate, fcntl.LOCK_EX)
    os.close(duplicate)


def sign(alive: int) -> None:
    """Write this process's id into the file ``.alive``, for ``stop``.

    :param alive: its descriptor.
    """
    os.ftruncate(alive, 0)
    os.pwrite(alive, b"%d" % os.getpid(), 0)


def stop(path: bytes, seconds: float = STOP_SECONDS) -> bool:
    """Stop the engine that listens at ``path``, and wait until it has answered its calls and has ended.

    :returns: whether there was one.
    :raises TimeoutError: it has not ended after this number of seconds.
    :raises OSError: it cannot be signalled.
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
    """A listening socket at ``path``. It replaces the socket of an engine that has ended."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    aside = path + b".new"
    try:
        os.unlink(aside)
    except FileNotFoundError:
        pass
    listener.bind(aside)
    listener.listen(BACKLOG)
    os.rename(aside, path)  # so the socket listens before it appears at its path
    return listener


def give_back(listener: socket.socket, path: bytes | None) -> None:
    """After an engine failed to start: tell the waiting callers to handle their calls themselves.

    :param path: of the socket, to remove it; None for systemd's socket.
    """
    with suppress(OSError):  # the engine has removed its socket, or no caller waits any more
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
        probe.setblocking(False)  # a full queue means that no engine accepts from it
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _become(listener: socket.socket, alive: int, path: bytes) -> None:
    """Run the engine in the child, without terminal, working directory and streams of the parent. Never returns."""
    status = 1
    try:
        os.setsid()
        sign(alive)
        os.chdir("/")
        _close_all_but({listener.fileno(), alive})
        gc.disable()
        from threading import Thread

        from cni_v6.engine.inheritance import drop_inherited, leave_control_groups

        drop_inherited()
        leaving = Thread(target=leave_control_groups)  # most of it is waiting, and the imports go on meanwhile
        leaving.start()
        from cni_v6.engine.server import Server

        leaving.join()
        gc.freeze()  # modules are never freed: later collections need not look at them
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
    """Open those of descriptors 0 to 2 that the caller had closed: the engine replaces these three numbers, so no
    descriptor of its own may get one of them."""
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
                pass  # the descriptor of the listing itself


def _note(path: bytes) -> None:
    """Write the reason why an engine could not start into the log file; the callers handle their calls themselves."""
    try:
        with open(path, "wb", opener=_private) as log:
            log.write(traceback.format_exc().encode(errors="replace"))
    except OSError:
        pass


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def private_folder(path: bytes) -> None:
    """Create the folder of the sockets with mode 0700, or check an existing one.

    One that others may look into is narrowed: kubelet makes the folder of a ``hostPath`` with mode 0755.

    :raises OSError: it cannot be created, belongs to another user, or others may write to it.
    """
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"{os.fsdecode(path)} is not a folder of this user's alone")
    if found.st_mode & 0o077:
        os.chmod(path, 0o700)
