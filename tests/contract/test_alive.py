"""Which namespaces are alive: kept in every way that Linux has, then let go; by file handle, and by looking everywhere.

Looking everywhere is done below a folder of links to the processes of /proc that the test started, so that one of them
can stand for the system's first, and nobody else's come in between.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cni_v6.kernel.netns import alive
from cni_v6.kernel.netns.enter import lasting_identity, nsfs_device
from tests.netns import wire
from tests.netns_holders import ELSEWHERE, MOUNTED_ELSEWHERE, NETNS_HOLDERS, WAIT, running
from tests.sandbox import Node, need

pytestmark = pytest.mark.netns

NEVER = nsfs_device(), 1


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    try:
        yield made
    finally:
        made.close()


def seen(folder: Path, namespace: tuple[int, int], first: int) -> bool:
    """Whether a namespace is seen by looking everywhere, and one that never was is not.

    Not asked of one that has ended: the kernel gives its inode to the next, perhaps to that of another test.

    :param first: the process that stands for the system's first.
    """
    return _look(folder, [namespace, NEVER], first) == {namespace}


def everything_alive(folder: Path, first: int) -> bool:
    """Whether even a namespace that never was is taken for alive."""
    return _look(folder, [NEVER], first) == {NEVER}


def family(pid: int) -> set[int]:
    """A process and all that it and its children have started."""
    parents = {each: parent for each in map(int, filter(str.isdigit, os.listdir("/proc"))) if (parent := _parent(each))}
    found = {pid}
    while more := {each for each, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended
        return 0


def _look(folder: Path, namespaces: list[tuple[int, int]], first: int) -> alive.Namespaces:
    need(os.stat("/proc/self/ns/pid").st_ino == alive.PID_INIT, "needs to run in the first pid namespace")
    folder.mkdir()
    for name in ("self", *map(str, family(os.getpid()))):
        (folder / name).symlink_to(f"/proc/{name}")
    (folder / "1").symlink_to(f"/proc/{first}")
    try:
        return alive.seen(namespaces, str(folder))
    finally:
        for entry in folder.iterdir():
            entry.unlink()
        folder.rmdir()


@pytest.mark.parametrize("holder", NETNS_HOLDERS)
def test_a_namespace_that_something_keeps(node: Node, tmp_path: Path, holder: str) -> None:
    path = node.container("a")
    namespace = lasting_identity(path)
    with NETNS_HOLDERS[holder](path):
        node.remove_container("a")
        assert seen(tmp_path / "proc", namespace, os.getpid())
        assert alive.alive([namespace]) == {namespace}


def test_a_namespace_that_is_mounted_as_ever(node: Node, tmp_path: Path) -> None:
    namespace = lasting_identity(node.container("a"))
    assert seen(tmp_path / "proc", namespace, os.getpid()) and alive.alive([namespace]) == {namespace}


@pytest.fixture
def out_of_sight() -> Iterator[tuple[Node, tuple[int, int]]]:
    """A node, and a namespace that is mounted in a mount namespace that has no process, and is mounted on the node.

    All on one processor: one mount namespace can be mounted in another only if its number is higher, and Linux 6.18
    counts for each processor.
    """
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    node = Node()
    path = node.container("a")
    namespace = lasting_identity(path)
    place = "/var/lib/cni/mount namespace"
    node.run("touch", place)
    with running(MOUNTED_ELSEWHERE + WAIT, path, *ELSEWHERE) as process:
        node.run("mount", "--bind", f"/proc/{process.pid}/ns/mnt", place)
    node.remove_container("a")
    yield node, namespace
    node.run("umount", place)
    node.close()
    os.sched_setaffinity(0, processors)


def test_a_mount_namespace_without_a_process(tmp_path: Path, out_of_sight: tuple[Node, tuple[int, int]]) -> None:
    node, namespace = out_of_sight
    holder = int(node.mount_namespace.split("/")[2])
    assert seen(tmp_path / "proc", namespace, holder)
    # Made by somebody whose word on where it is we do not take: nothing is certain any more.
    assert everything_alive(tmp_path / "proc", os.getpid())


@pytest.mark.parametrize("what", ["another pid namespace", "no first process", "no processes"])
def test_where_not_everything_can_be_seen_everything_is_alive(tmp_path: Path, what: str) -> None:
    if what == "another pid namespace":
        with running(WAIT, "", "unshare", "--pid", "--fork") as process:
            [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            assert everything_alive(tmp_path / "proc", int(child))
    else:
        (tmp_path / "self").symlink_to("/proc/self")
        if what == "no processes":
            (tmp_path / "1").symlink_to("/proc/none")
        assert alive.seen([NEVER], str(tmp_path)) == {NEVER}


def test_a_process_that_shows_itself_to_nobody(tmp_path: Path) -> None:
    """The one who looks lacks the privilege: to see nothing there proves nothing."""
    need(os.geteuid() == 0, "needs root, to do without its privileges")
    program = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from cni_v6.kernel.netns import alive
print(alive.seen([(4, 1)]) == {{(4, 1)}})
"""
    without = subprocess.run(
        ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", sys.executable, "-c", program],
        capture_output=True, text=True, check=True,
    )
    assert without.stdout == "True\n"


def ended(node: Node) -> tuple[int, int]:
    """A namespace that has come and gone: its end takes an interface of the node away."""
    path = node.container("a")
    namespace = lasting_identity(path)
    assert alive.alive([namespace]) == {namespace}
    node.run("ip", "link", "add", "here", "type", "veth", "peer", "name", "there", "netns", Path(path).name)
    node.remove_container("a")
    wire.await_state(node.path, lambda: not node.ip_json("link", "show", "type", "veth"), "the end of a namespace")
    return namespace


def test_by_its_handle(node: Node) -> None:
    """The kernel gives the inode of one that has ended to the next."""
    first = ended(node)
    need(first[0] != nsfs_device(), "needs Linux 6.18, which counts namespaces")
    second = lasting_identity(node.container("a"))
    assert first[0] != second[0]
    assert alive.stale([first, second]) == {first} and alive.alive([first, second]) == {second}


def test_nothing_is_asked_about_nothing() -> None:
    assert alive.alive([]) == alive.seen([]) == alive.stale([]) == frozenset()


@pytest.mark.parametrize("path", ["/proc/self/ns/mnt", "/dev/null", "/etc/hostname"])
def test_what_is_no_network_namespace_has_no_identity(path: str) -> None:
    assert lasting_identity(path) == (0, 0)
