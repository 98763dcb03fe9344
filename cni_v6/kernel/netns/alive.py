"""Which network namespaces are alive.

From Linux 6.18 on, the kernel tells it for a namespace with a known id: its file handle can be opened, or is stale. For
others, every place is searched that can keep a namespace alive: a thread in it, an open descriptor of it, a mount of it
(namespaces(7)). All three are visible below /proc for a process that can see every other process there. If this process
cannot, or finds anything unexpected, every namespace counts as alive.

Not visible are namespaces that are kept alive only by a socket that was made in them, by a descriptor in transit
between two processes, or by a detached mount. Nobody can enter such a namespace by a path.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
from collections.abc import Iterable, Iterator
from threading import Thread

from cni_v6.kernel.netns.enter import CLONE_NEWNET, NS_GET_NSTYPE, OWN, failure, libc, nsfs_device

# linux/nsfs.h: the inodes of the initial namespaces.
USER_INIT, PID_INIT = 0xEFFFFFFD, 0xEFFFFFFC
CAP_SYS_PTRACE = 19  # linux/capability.h: needed to see all of another user's process
CLONE_FS, CLONE_NEWNS = 0x200, 0x20000  # linux/sched.h
OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
GONE = (errno.ENOENT, errno.ESRCH)  # the process has ended meanwhile
NAMESPACE = re.compile(r"(net|mnt):\[(\d+)\]")  # fs/nsfs.c, ns_get_name
INODE = re.compile(r"^ino:\s*(\d+)$", re.MULTILINE)  # in fdinfo, since Linux 5.14
FIRST_DYNAMIC = 0xF0000000  # fs/proc/generic.c, PROC_DYNAMIC_FIRST: namespaces have no lower inode
ESCAPE = re.compile(r"\\([0-7]{3})")  # of blanks in mountinfo (proc(5))
# A process may start another one where the first search has been already, and end before the search reaches it.
LOOKS = 2

# linux/exportfs.h: struct file_handle with FILEID_NSFS; linux/nsfs.h: struct nsfs_file_handle, its first version.
HANDLE = struct.Struct("=IiQII")  # bytes, type; id, type of namespace, inode
HANDLE_BYTES, FILEID_NSFS = 16, 0xF1
AT_EMPTY_PATH = 0x1000  # linux/fcntl.h

Namespaces = frozenset[tuple[int, int]]


def alive(namespaces: Iterable[tuple[int, int]], proc: str = "/proc") -> Namespaces:
    """Those of the namespaces that are alive, or may be.

    :param namespaces: as ``enter.lasting_identity`` returns them.
    """
    wanted = frozenset(namespaces)
    numbered = [namespace for namespace in wanted if namespace[0] != nsfs_device()]
    return seen(wanted - stale(numbered), proc)


# By file handle


def stale(namespaces: Iterable[tuple[int, int]]) -> Namespaces:
    """Those of the namespaces, as (id, inode), that the kernel says are gone; none if it has no file handles."""
    wanted = frozenset(namespaces)
    if not wanted:
        return wanted
    own = os.open(OWN, OPEN_FLAGS)
    try:
        if not _has_handles(own):
            return frozenset()
        return frozenset(namespace for namespace in wanted if _open_handle(own, namespace) == errno.ESTALE)
    finally:
        os.close(own)


def _has_handles(own: int) -> bool:
    """Whether file handles have the expected format: tested with our own namespace, whose handle must open."""
    import ctypes

    answer, mount = ctypes.create_string_buffer(HANDLE.pack(128, 0, 0, 0, 0), HANDLE.size + 128), ctypes.c_int()
    if libc().name_to_handle_at(own, b"", answer, ctypes.byref(mount), AT_EMPTY_PATH):
        return False
    size, kind, number, type_of_namespace, inode = HANDLE.unpack_from(answer)
    expected = HANDLE_BYTES, FILEID_NSFS, CLONE_NEWNET, os.fstat(own).st_ino
    return (size, kind, type_of_namespace, inode) == expected and _open_handle(own, (number, inode)) == 0


def _open_handle(own: int, namespace: tuple[int, int]) -> int:
    """Open a namespace by its file handle, and close it; the errno of a failure, 0 on success.

    :param own: a descriptor of any namespace, which identifies the file system.
    """
    number, inode = namespace
    file = libc().open_by_handle_at(
        own, HANDLE.pack(HANDLE_BYTES, FILEID_NSFS, number, CLONE_NEWNET, inode), OPEN_FLAGS)
    if file < 0:
        import ctypes

        return ctypes.get_errno()
    os.close(file)
    return 0


# By a search of /proc


def seen(namespaces: Iterable[tuple[int, int]], proc: str = "/proc") -> Namespaces:
    """Those of the namespaces whose inodes are found below /proc; all if not everything there is visible."""
    wanted = frozenset(namespaces)
    missing = {inode for _, inode in wanted}
    if not missing:
        return wanted
    try:
        if not _shows_everything(proc):
            return wanted
        for _ in range(LOOKS):
            _look(missing, proc)
    except (OSError, ValueError, IndexError):
        return wanted
    return frozenset(namespace for namespace in wanted if namespace[1] not in missing)


def _shows_everything(proc: str) -> bool:
    """Whether this is the /proc of the initial pid namespace, and hides nothing from this process.

    Process 1 belongs to the pid namespace for which /proc was mounted, which need not be ours.
    """
    status = _read(os.open(f"{proc}/self/status", OPEN_FLAGS))
    capabilities = int(re.findall(r"^CapEff:\s*(\w+)$", status, re.MULTILINE)[0], 16)
    return (
        os.stat(f"{proc}/1/ns/pid").st_ino == PID_INIT
        and os.stat(f"{proc}/self/ns/user").st_ino == USER_INIT
        and bool(capabilities & 1 << CAP_SYS_PTRACE)
    )


def _look(missing: set[int], proc: str) -> None:
    """Remove from ``missing`` the inodes that are found; the cheapest search comes first."""
    if not missing:
        return
    tasks = [task for pid in _names(proc) if pid.isdecimal() for task in _paths(f"{proc}/{pid}/task")]
    mounts: dict[int, list[str]] = {}  # a mount namespace's inode -> where it can be opened
    for task in tasks:
        missing.discard(_namespace(f"{task}/ns/net")[1])
        mounts.setdefault(_namespace(f"{task}/ns/mnt")[1], []).append(f"{task}/ns/mnt")
    for task in tasks:
        for descriptor in _names(f"{task}/fd") if missing else ():
            kind, inode = _described(task, descriptor)
            if kind == "mnt":
                mounts.setdefault(inode, []).append(f"{task}/fd/{descriptor}")
            else:
                missing.discard(inode)
    mounts.pop(0, None)
    _look_at_mounts(missing, mounts, proc)


def _look_at_mounts(missing: set[int], mounts: dict[int, list[str]], proc: str) -> None:
    """Enter every mount namespace: not all of its mounts are visible to a process with another root.

    A mount namespace may itself be mounted, without a process in it. If it is mounted in the mount namespace of process
    1, its path can be trusted. Anybody else could direct us to a file system that never answers.
    """
    known = {0, *mounts}
    ruler = _namespace(f"{proc}/1/ns/mnt")[1]
    while mounts and missing:
        inode, paths = mounts.popitem()
        for kind, mounted, place in _mounted(paths, inode, proc):
            if kind == "net":
                missing.discard(mounted)
            elif mounted not in known and inode == ruler:
                mounts[mounted] = [f"{proc}/1/root{place}"]
                known.add(mounted)
            elif mounted not in known:
                raise ValueError(f"mount namespace {mounted} at {place} is out of sight")


def _mounted(paths: Iterable[str], inode: int, proc: str) -> list[tuple[str, int, str]]:
    """The namespaces that are mounted in a mount namespace: (kind, inode, path) of each."""
    for path in paths:
        file = _opened(path)
        if file is None:
            continue
        try:
            if os.fstat(file).st_ino == inode:
                return list(_namespaces(_mountinfo(file, proc)))
        finally:
            os.close(file)
    return []  # it ended with its last process; the second search sees a process that took over its mounts


def _namespaces(mountinfo: str) -> Iterator[tuple[str, int, str]]:
    for line in mountinfo.splitlines():
        root, place = line.split(" ")[3:5]
        match = NAMESPACE.fullmatch(root)
        if match:
            yield match[1], int(match[2]), ESCAPE.sub(lambda found: chr(int(found[1], 8)), place)


def _mountinfo(file: int, proc: str) -> str:
    """The mountinfo of a mount namespace, read by a thread that enters it and then ends."""
    outcome: list[str] = []
    failure: list[BaseException] = []
    folder = os.open(f"{proc}/self/..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def look() -> None:
        try:
            _enter(file)
            outcome.append(_read(os.open("thread-self/mountinfo", OPEN_FLAGS, dir_fd=folder)))
        except BaseException as error:
            failure.append(error)

    thread = Thread(target=look)
    thread.start()
    thread.join()
    os.close(folder)
    if failure:
        raise failure[0]
    return outcome[0]


def _enter(file: int) -> None:
    """Enter a mount namespace. setns(2) refuses a thread that shares its root and working directory: unshare first."""
    if libc().unshare(CLONE_FS) or libc().setns(file, CLONE_NEWNS):  # Python has both from 3.12 on
        raise failure()


def _namespace(path: str) -> tuple[str, int]:
    """The target of a link below /proc: ``net`` or ``mnt`` and the inode; ("", 0) for anything else.

    The link is read, not followed: its target's file system may never answer.
    """
    match = NAMESPACE.fullmatch(_link(path))
    return (match[1], int(match[2])) if match else ("", 0)


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError as error:
        _require_gone(error)
        return ""


def _described(task: str, descriptor: str) -> tuple[str, int]:
    """As ``_namespace``, for a descriptor. If it was opened at a mount of a namespace, its link is that path.

    Then fdinfo has the inode, without a request to its file system, which may never answer. Another file may have the
    same inode. If it may be a mount namespace, it is opened.
    """
    path = f"{task}/fd/{descriptor}"
    text = _link(path)
    match = NAMESPACE.fullmatch(text)
    if match or not text.startswith("/"):
        return (match[1], int(match[2])) if match else ("", 0)
    try:
        with open(f"{task}/fdinfo/{descriptor}", encoding="ascii", errors="replace") as told:
            inode = int(INODE.findall(told.read())[0])
        return "mnt" if inode >= FIRST_DYNAMIC and _is_mount_namespace(path) else "", inode
    except OSError as error:
        _require_gone(error)
        return "", 0


def _is_mount_namespace(path: str) -> bool:
    if os.stat(path).st_dev != nsfs_device():
        return False
    with open(path, "rb", buffering=0) as file:
        return fcntl.ioctl(file, NS_GET_NSTYPE) == CLONE_NEWNS


def _opened(path: str) -> int | None:
    try:
        return os.open(path, OPEN_FLAGS)
    except OSError as error:
        _require_gone(error)
        return None


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        _require_gone(error)
        return []


def _paths(folder: str) -> Iterator[str]:
    return (f"{folder}/{name}" for name in _names(folder))


def _read(file: int) -> str:
    with open(file, encoding="utf-8", errors="surrogateescape") as opened:
        return opened.read()


def _require_gone(error: OSError) -> None:
    """Raise any error unless the process has ended: a namespace that is not visible must not count as gone."""
    if error.errno not in GONE:
        raise error
