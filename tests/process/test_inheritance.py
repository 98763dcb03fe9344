"""An engine that an odd caller left behind: it has nothing of that one's limits, and serves all others."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cni_v6.engine import inheritance
from tests.process.test_engine import (
    CONFIG,
    add,
    delete,
    engine_of,
    leases,
    processes_of,
    run_dir,
    running,
    socket_of,
)
from tests.sandbox import ROOT, Node, make_call, need, reply

ODD = """
umask 0
trap '' TERM HUP USR1
for group in $GROUPS_OF_TEST; do
    echo $$ >"$group/cgroup.procs"
done
echo 500 >/proc/self/oom_score_adj
exec prlimit --nofile=40: --stack=262144: --cpu=3600: --fsize=1000000: --nproc=4000: --as=400000000: \
    nice -n 19 chrt --idle 0 ionice -c 3 taskset 1 "$PLUGIN"
"""


@pytest.fixture
def groups(warm_node: Node) -> Iterator[list[Path]]:
    """A control group in each hierarchy, removed in the end, which takes that nobody is in it."""
    mounts = re.findall(r"^\S+ (\S+) cgroup2? ", Path("/proc/mounts").read_text(encoding="utf-8"), re.MULTILINE)
    made = []
    for mount in mounts:
        folder = Path(mount) / f"cni-v6-{warm_node.name}"
        if "cpuset" not in mount:  # a group of that one takes nobody before it has processors
            try:
                folder.mkdir()
            except OSError:
                continue
            made.append(folder)
    need(made, "needs a control group hierarchy that can be written")
    yield made
    for folder in made:
        folder.rmdir()


FEW = 'exec prlimit --nofile=40: --stack=262144: "$PLUGIN"'
POOR = 'exec setpriv --bounding-set=-sys_resource prlimit --nofile=40:60 "$PLUGIN"'


def start_oddly(node: Node, groups: list[Path], script: str = ODD) -> None:
    call = make_call("cni-v6", "ADD", CONFIG, container_id="a", ifname="eth0", netns=node.container("a"))
    plugin = str(ROOT / "bin/cni-v6")
    env = {**call.env, **node.environment, "GROUPS_OF_TEST": " ".join(map(str, groups)), "PLUGIN": plugin}
    done = node.run("sh", "-euc", script, stdin=call.stdin.decode(), env=env, check=False)
    reply(done.stdout.encode(), done.stderr.encode(), done.returncode).ok()


def limits(pid: int) -> dict[str, tuple[str, str]]:
    lines = Path(f"/proc/{pid}/limits").read_text(encoding="ascii").splitlines()[1:]
    return {line[:26].strip(): (line[26:47].strip(), line[47:68].strip()) for line in lines}


def status(pid: int, key: str) -> str:
    found = re.search(rf"^{key}:\s*(.*)$", Path(f"/proc/{pid}/status").read_text(encoding="ascii"), re.MULTILINE)
    assert found
    return found[1]


def test_nothing_of_it_stays(warm_node: Node, groups: list[Path]) -> None:
    start_oddly(warm_node, groups)
    engine = running(warm_node)
    has, could = limits(engine), limits(os.getpid())
    files = could["Max open files"][1]
    assert has["Max open files"][0] == str(min(int(files), inheritance.FILES))
    assert int(has["Max stack size"][0]) == inheritance.STACK_BYTES
    for name in ("cpu time", "file size", "processes", "address space"):
        soft, hard = has[f"Max {name}"]
        assert soft == hard and hard in ("unlimited", could[f"Max {name}"][1]), name
    assert os.getpriority(os.PRIO_PROCESS, engine) == 0
    assert os.sched_getscheduler(engine) == os.SCHED_OTHER
    assert warm_node.run("ionice", "-p", str(engine)).stdout.startswith("none")
    assert os.sched_getaffinity(engine) == os.sched_getaffinity(0)
    assert status(engine, "Umask") == "0077"
    ignored = int(status(engine, "SigIgn"), 16)
    assert not any(ignored >> number - 1 & 1 for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1))
    assert int(status(engine, "SigBlk"), 16) == 0
    assert Path(f"/proc/{engine}/oom_score_adj").read_text(encoding="ascii") == "0\n"
    assert warm_node.name not in Path(f"/proc/{engine}/cgroup").read_text(encoding="ascii")
    assert run_dir(warm_node).stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in run_dir(warm_node).iterdir() if path.is_file()} == {0}


def test_it_serves_the_others_as_any(warm_node: Node, groups: list[Path]) -> None:
    """More of them than it could have had descriptors for."""
    start_oddly(warm_node, groups)
    engine = running(warm_node)
    names = [f"c{number}" for number in range(30)]
    calls = [make_call("cni-v6", "ADD", CONFIG, container_id=name, ifname="eth0", netns=warm_node.container(name))
             for name in names]
    started = [warm_node.start(call) for call in calls]
    for process, call in zip(started, calls):
        reply(*process.communicate(call.stdin), process.returncode).ok()
    for name in ("a", *names):
        delete(warm_node, name)
    add(warm_node, "a")
    assert leases(warm_node) == {"a:eth0"} and running(warm_node) == engine and processes_of(warm_node) == [engine]


def test_nobody_is_left_behind_who_could_not_serve(warm_node: Node) -> None:
    """With limits that may not be raised; the call is handled all the same, and the next caller leaves an engine."""
    start_oddly(warm_node, [], POOR)
    assert engine_of(warm_node) is None
    assert "limit of open files: 60" in Path(f"{socket_of(warm_node)}.log").read_text(encoding="utf-8")
    add(warm_node, "b")
    assert running(warm_node) and leases(warm_node) == {"a:eth0", "b:eth0"}
