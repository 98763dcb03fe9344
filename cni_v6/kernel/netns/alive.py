"""Which network namespaces are alive.

The kernel says so of one whose id is known, from 6.18 on: its file handle leads to it, or is stale. Of others every
place is looked at that can keep one: a namespace lives as long as a thread is in it, a descriptor of
it is open, or it is mounted somewhere (namespaces(7)). All three are below /proc, for whoever may see every process
there. Whoever may not, or meets anything unexpected, has to take every namespace for alive.

Not seen: a namespace that nothing keeps but a socket made in it, a descriptor on its way between two processes, or a
mount that was detached. Nobody can enter such a one by a path.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
from collections.abc import Iterable, Iterator
from threading import Thread

from cni_v6.kernel.netns.enter import CLONE_NEWNET, NS_GET_NSTYPE, OWN, libc, nsfs_device

# linux/nsfs.h: the inodes of the namespaces that the system began with.
USER_INIT, PID_INIT = 0xEFFFFFFD, 0xEFFFFFFC
CAP_SYS_PTRACE = 19  # linux/capability.h: what it takes to see other people's processes whole
CLONE_FS, CLONE_NEWNS = 0x200, 0x20000  # linux/sched.h
OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
GONE = (errno.ENOENT, errno.ESRCH)  # a process that ends meanwhile
NAMESPACE = re.compile(r"(net|mnt):\[(\d+)\]")  # fs/nsfs.c, ns_get_name
INODE = re.compile(r"^ino:\s*(\d+)$", re.MULTILINE)  # in fdinfo, since Linux 5.14
FIRST_DYNAMIC = 0xF0000000  # fs/proc/generic.c, PROC_DYNAMIC_FIRST: namespaces have no lower inode
ESCAPE = re.compile(r"\\([0-7]{3})")  # of blanks in mountinfo, proc(5)
# A process may start another behind the place where a first look is, and end before the look comes to it.
LOOKS = 2

# linux/exportfs.h: struct file_handle with FILEID_NSFS; linux/nsfs.h: struct nsfs_file_handle, its first version.
HANDLE = struct.Struct("=IiQII")  # bytes, type; id, type of namespace, inode
HANDLE_BYTES, FILEID_NSFS = 16, 0xF1
AT_EMPTY_PATH = 0x1000  # linux/fcntl.h

Namespaces = frozenset[tuple[int, int]]


def alive(namespaces: Iterable[tuple[int, int]], proc: str = "/proc") -> Namespaces:
    """Those of the namespaces that are alive or cannot be told from ones that are.

    :param namespaces: as ``netns.lasting_identity`` tells them.
    """
    wanted = frozenset(namespaces)
    numbered = [each for each in wanted if each[0] != nsfs_device()]
    return seen(wanted - stale(numbered), proc)


# By file handle


def stale(namespaces: Iterable[tuple[int, int]]) -> Namespaces:
    """Those of the namespaces, (id, inode) each, that the kernel says are gone; none where it cannot be asked."""
    wanted = frozenset(namespaces)
    if not wanted:
        return wanted
    own = os.open(OWN, OPEN_FLAGS)
    try:
        if not _has_handles(own):
            return frozenset()
        return frozenset(each for each in wanted if _open_handle(own, each) == errno.ESTALE)
    finally:
        os.close(own)


def _has_handles(own: int) -> bool:
    """Whether handles are what we take them for: our own namespace's must be, and lead to it."""
    import ctypes

    answer, mount = ctypes.create_string_buffer(HANDLE.pack(128, 0, 0, 0, 0), HANDLE.size + 128), ctypes.c_int()
    if libc().name_to_handle_at(own, b"", answer, ctypes.byref(mount), AT_EMPTY_PATH):
        return False
    size, kind, number, type_of_namespace, inode = HANDLE.unpack_from(answer)
    expected = HANDLE_BYTES, FILEID_NSFS, CLONE_NEWNET, os.fstat(own).st_ino
    return (size, kind, type_of_namespace, inode) == expected and _open_handle(own, (number, inode)) == 0


def _open_handle(own: int, namespace: tuple[int, int]) -> int:
    """Open a namespace by its handle, and close it; the errno of a failure, 0 for none.

    :param own: any namespace's descriptor: it says which file system is meant.
    """
    number, inode = namespace
    file = libc().open_by_handle_at(
        own, HANDLE.pack(HANDLE_BYTES, FILEID_NSFS, number, CLONE_NEWNET, inode), OPEN_FLAGS)
    if file < 0:
        import ctypes

        return ctypes.get_errno()
    os.close(file)
    return 0


# By looking everywhere


def seen(namespaces: Iterable[tuple[int, int]], proc: str = "/proc") -> Namespaces:
    """Those of the namespaces, by their inodes, that are seen below /proc; all where not everything can be seen."""
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
    return frozenset(each for each in wanted if each[1] not in missing)


def _shows_everything(proc: str) -> bool:
    """Whether it is the /proc of the whole system, and hides nothing from us.

    The process with number 1 is of the pid namespace that /proc was mounted for, which need not be ours.
    """
    status = _read(os.open(f"{proc}/self/status", OPEN_FLAGS))
    capabilities = int(re.findall(r"^CapEff:\s*(\w+)$", status, re.MULTILINE)[0], 16)
    return (
        os.stat(f"{proc}/1/ns/pid").st_ino == PID_INIT
        and os.stat(f"{proc}/self/ns/user").st_ino == USER_INIT
        and bool(capabilities & 1 << CAP_SYS_PTRACE)
    )


def _look(missing: set[int], proc: str) -> None:
    """Take out of ``missing`` what is seen; what costs least comes first."""
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
    """Enter every mount namespace: what it has is not all to be seen from a process whose root is elsewhere.

    One may be mounted itself, with no process in it. Where that is done by whoever rules the system (in the mount
    namespace of process 1), its path can be trusted; anybody else could lead us to a file system that never answers.
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
    """The namespaces mounted in a mount namespace: what each is, its inode, where it is."""
    for path in paths:
        file = _opened(path)
        if file is None:
            continue
        try:
            if os.fstat(file).st_ino == inode:
                return list(_namespaces(_mountinfo(file, proc)))
        finally:
            os.close(file)
    return []  # gone with its last process; who was its heir is seen at the second look


def _namespaces(mountinfo: str) -> Iterator[tuple[str, int, str]]:
    for line in mountinfo.splitlines():
        root, place = line.split(" ")[3:5]
        match = NAMESPACE.fullmatch(root)
        if match:
            yield match[1], int(match[2]), ESCAPE.sub(lambda found: chr(int(found[1], 8)), place)


def _mountinfo(file: int, proc: str) -> str:
    """All mounts of a mount namespace, seen by a thread that enters it, and ends."""
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
    """setns(2): a thread that shares root and working directory with others cannot enter a mount namespace."""
    import ctypes

    if libc().unshare(CLONE_FS) or libc().setns(file, CLONE_NEWNS):  # Python has both from 3.12 on
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _namespace(path: str) -> tuple[str, int]:
    """What a link below /proc leads to: ``net`` or ``mnt`` and the inode; ("", 0) for anything else.

    The link is read, not followed: what it leads to may never answer.
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
    """As ``_namespace``, for a descriptor: one that was opened where a namespace is mounted shows that path.

    Its inode is told without asking its file system, which may never answer, and may be that of some other file. What
    could be a mount namespace is opened.
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
    """Of what may not be seen we know nothing, and that nothing must not look like an end."""
    if error.errno not in GONE:
        raise error
