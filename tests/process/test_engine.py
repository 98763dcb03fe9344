"""The engine's life: left behind, found, asked, drained, lost; and what it never does twice."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from cni_v6 import __version__, shim, wire
from cni_v6.engine.fair_shares import WORKERS
from cni_v6.kernel.netfilter.socket import NETLINK_NETFILTER
from cni_v6.leases.disk.directory import Folder
from tests.bench.node import Size, size
from tests.client import Client
from tests.netns.networks import veths
from tests.netns.wire import await_state, inside
from tests.processes import interruptible
from tests.sandbox import NSENTER, ROOT, TIMEOUT, Call, Node, make_call, reply

CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "type": "cni-v6",
    "bridge": "br0",
    "isDefaultGateway": True,
    "ipam": {"type": "cni-v6-ipam", "ranges": [[{"subnet": "fd00:7::/64"}], [{"subnet": "10.7.0.0/24"}]]},
}


def call(command: str, container: str, netns: str, config: dict[str, Any] | None = None) -> Call:
    return make_call("cni-v6", command, config or CONFIG, container_id=container, ifname="eth0", netns=netns)


def add(node: Node, name: str) -> Any:
    netns = node.containers.get(name) or node.container(name)
    return node.plugin("cni-v6", "ADD", CONFIG, container_id=name, ifname="eth0", netns=netns).ok()


def delete(node: Node, name: str) -> None:
    netns = node.containers[name]
    node.plugin("cni-v6", "DEL", CONFIG, container_id=name, ifname="eth0", netns=netns).ok()


def run_dir(node: Node) -> Path:
    return Path(node.environment["CNI_V6_RUN_DIR"])


def socket_of(node: Node) -> Path:
    return run_dir(node) / f"engine-{os.stat(node.path).st_ino}.sock"


def engine_of(node: Node) -> int | None:
    """The engine on the node, where no call is under way; None where there is none."""
    found = processes_of(node)
    assert len(found) < 2, found
    return found[0] if found else None


def processes_of(node: Node) -> list[int]:
    """Our executables that run on the node."""
    inode = os.stat(node.path).st_ino
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.stat(process / "ns/net").st_ino == inode and b"bin/cni-v6" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def running(node: Node) -> int:
    found = engine_of(node)
    assert found, "no engine"
    return found


def ended(pid: int) -> Callable[[], None]:
    """Take hold of a process now; what comes back waits until it has ended."""
    handle = os.pidfd_open(pid)

    def wait() -> None:
        ready, _, _ = select.select([handle], [], [], TIMEOUT)
        os.close(handle)
        assert ready, f"process {pid} goes on"

    return wait


def leases(node: Node) -> set[str]:
    folder = node.file("/var/lib/cni/networks/pods/attachments")
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.exists() else set()


def test_the_first_call_leaves_one_behind_and_the_next_finds_it(warm_node: Node) -> None:
    add(warm_node, "a")
    engine = running(warm_node)
    add(warm_node, "b")
    delete(warm_node, "a")
    assert running(warm_node) == engine
    assert leases(warm_node) == {"b:eth0"}


def test_what_is_left_behind_is_in_nobodys_way(warm_node: Node) -> None:
    add(warm_node, "a")
    process = Path(f"/proc/{running(warm_node)}")
    assert os.readlink(process / "cwd") == "/"
    assert {os.readlink(process / "fd" / stream) for stream in "012"} == {"/dev/null"}
    assert os.getsid(running(warm_node)) == running(warm_node)
    assert run_dir(warm_node).stat().st_mode & 0o777 == 0o700
    # It lets go of the container's namespace a moment after the answer.
    warm_node.remove_container("a")
    await_state(warm_node.path, lambda: not veths(warm_node), "the end of a namespace that an engine has worked in")
    assert running(warm_node) == int(process.name)


@pytest.mark.parametrize("how", ["environment", "configuration"])
def test_it_can_be_forbidden(warm_node: Node, how: str) -> None:
    netns = warm_node.container("a")
    config = CONFIG | ({"engine": "off"} if how == "configuration" else {})
    env = {"CNI_V6_ENGINE": "off"} if how == "environment" else {}
    warm_node.plugin("cni-v6", "ADD", config, container_id="a", ifname="eth0", netns=netns, env=env).ok()
    assert engine_of(warm_node) is None and not run_dir(warm_node).exists()


@pytest.mark.parametrize("how", ["left behind", "by systemd"])
def test_its_folder_is_that_of_its_socket_for_everything(warm_node: Node, how: str) -> None:
    """Though its environment says nothing of it. Where other data folders are noted decides on what a reload loads."""
    config = {**CONFIG, "ipMasq": True, "ipam": {**CONFIG["ipam"], "dataDir": "/var/lib/cni/elsewhere"}}
    with activated(warm_node) if how == "by systemd" else nullcontext():
        netns = warm_node.container("a")
        warm_node.plugin("cni-v6", "ADD", config, container_id="a", ifname="eth0", netns=netns).ok()
        noted = [os.readlink(link) for link in (run_dir(warm_node) / "data-dirs").iterdir()]
        assert noted == ["/var/lib/cni/elsewhere"]
        warm_node.run("nft", "flush", "ruleset")
        done = warm_node.run(str(ROOT / "bin/cni-v6ctl"), "reload", env=warm_node.environment)
        assert done.stdout == "loaded the firewall's tables, with 1 attachment\n"
        warm_node.plugin("cni-v6", "DEL", config, container_id="a", ifname="eth0", netns=netns).ok()


def test_a_stampede_on_a_cold_node_starts_one(warm_node: Node) -> None:
    calls = [call("ADD", f"c{number}", warm_node.container(f"c{number}")) for number in range(30)]
    started = [(warm_node.start(each), each) for each in calls]
    for process, each in started:
        assert process.stdin
        process.stdin.write(each.stdin)
        process.stdin.close()
        process.stdin = None
    answers = [reply(*process.communicate(timeout=TIMEOUT), process.returncode).ok() for process, _ in started]
    assert len({ip["address"] for answer in answers for ip in answer["ips"]}) == 60
    assert running(warm_node)


def test_it_ends_when_idle(warm_node: Node) -> None:
    add(warm_node, "z")
    wait, netns = ended(running(warm_node)), warm_node.container("a")
    warm_node.plugin("cni-v6", "ADD", CONFIG | {"engineIdle": 1}, container_id="a", ifname="eth0", netns=netns).ok()
    wait()
    assert not socket_of(warm_node).exists()
    delete(warm_node, "a")
    assert leases(warm_node) == {"z:eth0"}


def test_sigterm_drains_it_and_the_next_call_has_a_new_one(warm_node: Node) -> None:
    add(warm_node, "a")
    first = running(warm_node)
    wait = ended(first)
    os.kill(first, signal.SIGTERM)
    wait()
    delete(warm_node, "a")
    assert running(warm_node) != first


def test_calls_in_its_queue_when_it_drains_are_answered(warm_node: Node) -> None:
    add(warm_node, "z")
    first = running(warm_node)
    wait = ended(first)
    calls = [call("ADD", f"c{number}", warm_node.container(f"c{number}")) for number in range(12)]
    started = [warm_node.start(each) for each in calls]
    for process, each in zip(started, calls):
        assert process.stdin
        process.stdin.write(each.stdin)
        process.stdin.close()
        process.stdin = None
    os.kill(first, signal.SIGTERM)
    for process in started:
        reply(*process.communicate(timeout=TIMEOUT), process.returncode).ok()
    wait()
    assert len(leases(warm_node)) == 13


def test_an_engine_killed_in_the_middle_is_code_11_and_the_next_call_works(warm_node: Node) -> None:
    add(warm_node, "z")
    first = running(warm_node)
    os.kill(first, signal.SIGSTOP)
    each = call("ADD", "a", warm_node.container("a"))
    process = warm_node.start(each)
    assert process.stdin
    process.stdin.write(each.stdin)
    process.stdin.close()
    process.stdin = None
    wait_for_connection(process.pid)
    wait = ended(first)
    os.kill(first, signal.SIGKILL)
    answer = reply(*process.communicate(timeout=TIMEOUT), process.returncode)
    assert "run the command again" in answer.error(11)
    wait()
    delete(warm_node, "a")
    add(warm_node, "a")
    assert leases(warm_node) == {"z:eth0", "a:eth0"}


def wait_for_connection(pid: int) -> None:
    """Until a process blocks in reading a socket: it has sent its request. It is looked at again and again, as a
    debugger does: the kernel tells nobody that a process began to wait."""
    while True:
        status = Path(f"/proc/{pid}/syscall").read_text(encoding="ascii").split()
        if status[0] in ("45", "47"):  # recvfrom, recvmsg
            return


def talk(node: Node, *parts: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(str(socket_of(node)))
        for part in parts:
            connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
        try:
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except ConnectionResetError:
            return b""


def request(node: Node, each: Call, version: str = __version__, inode: int = 0) -> bytes:
    env = {key.encode(): value.encode() for key, value in each.env.items()}
    own = inode or os.stat(node.path).st_ino
    return wire.pack(version.encode(), str(own).encode(), each.type.encode(), wire.pack_environment(env), each.stdin)


def test_a_caller_of_another_version_is_sent_back_and_the_engine_drains(warm_node: Node) -> None:
    add(warm_node, "a")
    wait = ended(running(warm_node))
    answer = talk(warm_node, request(warm_node, call("DEL", "a", warm_node.containers["a"]), version="0.0.1"))
    assert wire.unpack(answer[wire.HEADER :], 4)[0] == wire.HANDLE_LOCALLY
    wait()
    assert leases(warm_node) == {"a:eth0"}


def test_a_caller_in_another_network_namespace_is_sent_back(warm_node: Node) -> None:
    add(warm_node, "a")
    answer = talk(warm_node, request(warm_node, call("DEL", "a", warm_node.containers["a"]), inode=1))
    assert wire.unpack(answer[wire.HEADER :], 4)[0] == wire.HANDLE_LOCALLY
    assert running(warm_node) and leases(warm_node) == {"a:eth0"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        wire.MAGIC + (wire.LIMIT + 1).to_bytes(4, "big"),
        wire.MAGIC + (100).to_bytes(4, "big") + b"short",
        wire.pack(b"only", b"two"),
        wire.pack(b"\xff", b"x", b"cni-v6", b"", b"{}"),
        wire.pack(__version__.encode(), b"not a number", b"cni-v6", b"", b"{}"),
    ],
    ids=["nothing", "http", "too long", "cut short", "fields", "version", "inode"],
)
def test_garbled_requests_harm_nobody(warm_node: Node, data: bytes) -> None:
    add(warm_node, "a")
    engine = running(warm_node)
    assert talk(warm_node, data) == b""
    add(warm_node, "b")
    assert running(warm_node) == engine


def test_a_caller_that_goes_away_gets_its_add_undone(warm_node: Node) -> None:
    add(warm_node, "z")
    netns = warm_node.container("a")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(socket_of(warm_node)))
        connection.sendall(request(warm_node, call("ADD", "a", netns)))
        answer = connection.recv(65536)
        assert wire.unpack(answer[wire.HEADER :], 4)[0] == wire.DONE
        assert leases(warm_node) == {"z:eth0", "a:eth0"}
    add(warm_node, "b")
    wait = ended(running(warm_node))
    os.kill(running(warm_node), signal.SIGTERM)  # it ends when everything is done
    wait()
    assert leases(warm_node) == {"z:eth0", "b:eth0"}
    assert [link["ifname"] for link in warm_node.ip_json("link", netns=netns)] == ["lo"]


@pytest.mark.parametrize("mode", [0o755, 0o775])
def test_a_folder_that_others_may_look_into_is_narrowed_but_not_one_that_they_may_write_to(
    warm_node: Node, mode: int
) -> None:
    """kubelet makes the folder of a hostPath with mode 0755."""
    run_dir(warm_node).mkdir()
    run_dir(warm_node).chmod(mode)
    add(warm_node, "a")
    assert (engine_of(warm_node) is None) == bool(mode & 0o022)
    assert run_dir(warm_node).stat().st_mode & 0o777 == (mode if mode & 0o022 else 0o700)


def test_another_users_socket_is_not_used(warm_node: Node) -> None:
    netns = warm_node.container("a")
    folder = run_dir(warm_node)
    folder.mkdir(mode=0o700)
    listen = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); os.setuid(65534);"
        "s.close() if not s else print('ready', flush=True); c = s.accept()[0]; print(len(c.recv(10)), flush=True)"
    )
    # The credentials of a listener are those of the moment it began to listen: listen as the other user.
    listen = listen.replace("s.listen(); os.setuid(65534);", "os.setuid(65534); s.listen();")
    with subprocess.Popen(
        [NSENTER, f"--net={warm_node.path}", f"--mount={warm_node.mount_namespace}", "--", "python3", "-c", listen,
         str(socket_of(warm_node))],
        stdout=subprocess.PIPE, text=True,
    ) as stranger:
        assert stranger.stdout and stranger.stdout.readline() == "ready\n"
        warm_node.plugin("cni-v6", "ADD", CONFIG, container_id="a", ifname="eth0", netns=netns).ok()
        assert stranger.stdout.readline() == "0\n", "it was told something"
        stranger.wait(TIMEOUT)


def test_two_nodes_have_one_each(warm_node: Node) -> None:
    other = Node(engine=True)
    try:
        other.environment = warm_node.environment  # the same folder
        add(warm_node, "a")
        add(other, "a")
        assert running(warm_node) != running(other)
        assert socket_of(warm_node) != run_dir(warm_node) / f"engine-{os.stat(other.path).st_ino}.sock"
    finally:
        other.close()


@pytest.fixture
def broken(tmp_path: Path) -> str:
    """A folder with our plugin, whose engine cannot start."""
    shutil.copytree(ROOT / "cni_v6", tmp_path / "cni_v6", ignore=shutil.ignore_patterns("server.py", "__pycache__"))
    shutil.copytree(ROOT / "bin", tmp_path / "bin")
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    return str(tmp_path / "bin")


def test_an_engine_that_cannot_start_takes_no_call(warm_node: Node, broken: str) -> None:
    calls = [
        make_call(
            "cni-v6", "ADD", CONFIG, container_id=name, ifname="eth0", netns=warm_node.container(name), path=(broken,)
        )
        for name in ("a", "b", "c", "d", "e", "f")
    ]
    started = [warm_node.start(each) for each in calls]
    for process, each in zip(started, calls):
        assert process.stdin
        process.stdin.write(each.stdin)
        process.stdin.close()
        process.stdin = None
    for process in started:
        reply(*process.communicate(timeout=TIMEOUT), process.returncode).ok()
    assert "No module named 'cni_v6.engine.server'" in Path(f"{socket_of(warm_node)}.log").read_text(encoding="utf-8")
    assert not socket_of(warm_node).exists()
    assert len(leases(warm_node)) == len(calls)


ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def activated(
    node: Node, end: signal.Signals = signal.SIGTERM, options: Sequence[str] = (), limits: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """An engine as systemd starts it, without a word of the folder in its environment; ended by a signal.

    :param limits: a command that takes rights away, and executes another one.
    """
    ctl = [*limits, str(ROOT / "bin/cni-v6ctl"), "engine", *options]
    enter = [NSENTER, f"--net={node.path}", f"--mount={node.mount_namespace}", "--"]
    run_dir(node).mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(run_dir(node) / "engine.sock"))
        listener.listen()
        activate = [*enter, "python3", "-c", ACTIVATE, str(listener.fileno()), *ctl]
        environment = {"PATH": "/usr/bin:/bin"}
        with interruptible(), subprocess.Popen(activate, env=environment, pass_fds=[listener.fileno()]) as engine:
            yield engine
            engine.send_signal(end)
            assert engine.wait(TIMEOUT) == 0


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_in_the_foreground_and_by_socket_activation(warm_node: Node, end: signal.Signals) -> None:
    with activated(warm_node, end) as engine:
        netns = warm_node.container("a")
        warm_node.plugin("cni-v6", "ADD", CONFIG, container_id="a", ifname="eth0", netns=netns).ok()
        assert engine_of(warm_node) == engine.pid, "another one was left behind"
    delete(warm_node, "a")


def test_one_at_systemds_socket_is_known_and_can_be_stopped(warm_node: Node) -> None:
    """The kernel names systemd as the process that listens; the engine names itself."""
    ctl = str(ROOT / "bin/cni-v6ctl")
    with activated(warm_node) as engine:
        netns = warm_node.container("a")
        warm_node.plugin("cni-v6", "ADD", CONFIG, container_id="a", ifname="eth0", netns=netns).ok()
        found = json.loads(warm_node.run(ctl, "doctor", "--json", check=False, env=warm_node.environment).stdout)
        [said] = [finding["message"] for finding in found if finding["check"] == "engine"]
        assert re.fullmatch(rf"process {engine.pid}, of this version, \d+\w+ old, answers", said)
        assert warm_node.run(ctl, "engine", "--stop", env=warm_node.environment).stdout == "the engine has ended\n"
        assert engine.wait(TIMEOUT) == 0
    delete(warm_node, "a")


def test_it_can_be_stopped(warm_node: Node) -> None:
    ctl = [str(ROOT / "bin/cni-v6ctl"), "engine", "--stop"]
    assert "no engine" in warm_node.run(*ctl, env=warm_node.environment).stdout
    add(warm_node, "a")
    wait = ended(running(warm_node))
    assert warm_node.run(*ctl, env=warm_node.environment).stdout == "the engine has ended\n"
    wait()
    assert "no engine" in warm_node.run(*ctl, env=warm_node.environment).stdout


def test_a_second_one_in_the_foreground_is_refused(warm_node: Node) -> None:
    add(warm_node, "a")
    done = warm_node.run(str(ROOT / "bin/cni-v6ctl"), "engine", check=False, env=warm_node.environment)
    assert done.returncode == 1 and "an engine serves this network namespace already" in done.stderr


def client_of(node: Node) -> Client:
    return Client(str(socket_of(node)), os.stat(node.path).st_ino, CONFIG)


@pytest.mark.slow
@pytest.mark.timeout(600)  # each DEL ends with the kernel's RCU wait, 20 ms on an idle machine
def test_names_are_free_at_once_after_del(warm_node: Node) -> None:
    """DEL is answered at the kernel's announcement: by then neither namespace lists the interface."""
    add(warm_node, "a")
    delete(warm_node, "a")
    netns, client = warm_node.containers["a"], client_of(warm_node)
    for _ in range(1000):
        result = client.call("ADD", "a", netns)
        host = next(each["name"] for each in result["interfaces"] if each["name"].startswith("veth"))
        assert host in interfaces(warm_node.path) and "eth0" in interfaces(netns)
        client.call("DEL", "a", netns)
        assert host not in interfaces(warm_node.path) and "eth0" not in interfaces(netns)
    assert leases(warm_node) == set()


def interfaces(netns: str) -> set[str]:
    """What the kernel lists in a namespace (RTM_GETLINK, by if_nameindex(3))."""
    return {name for _, name in inside(netns, socket.if_nameindex)}


def test_nothing_leaks(warm_node: Node) -> None:
    """After 300 ADD and DEL, descriptors and threads are exactly what they were after 50.

    Memory only where it grows by some 20 KiB a call: that it is flat takes many thousands, the benchmark's soak.
    """
    names = ("a", "b", "c", "d", "e")
    for name in names:
        add(warm_node, name)
        delete(warm_node, name)
    engine, client = running(warm_node), client_of(warm_node)
    occupy_all(warm_node, engine, client)

    def work(name: str, count: int) -> None:
        for _ in range(count):
            for command in ("ADD", "DEL"):
                client.call(command, name, warm_node.containers[name], to_the_end=True)

    def size_after(count: int) -> Size:
        with ThreadPoolExecutor(len(names)) as callers:
            for done in [callers.submit(work, name, count // len(names)) for name in names]:
                done.result()
        return size(engine)

    early, late = size_after(50), size_after(250)
    assert (late.descriptors, late.threads) == (early.descriptors, early.threads)
    assert late.rss_kib < 1.25 * early.rss_kib
    assert running(warm_node) == engine


def occupy_all(node: Node, engine: int, client: Client) -> None:
    """Have each worker serve a call: it opens the firewall's socket at its first one, for good."""
    pods = {name: node.container(name) for name in (f"w{number}" for number in range(WORKERS))}
    store = Folder(str(node.file("/var/lib/cni/networks/pods")))
    with closing(store), ThreadPoolExecutor(len(pods)) as callers:
        lock = store.lock("lock", 0)
        assert lock is not None
        calls = [callers.submit(client.call, "ADD", *pod, to_the_end=True) for pod in pods.items()]
        while firewall_sockets(engine) < WORKERS:
            assert not any(call.done() for call in calls)
        os.close(lock)
        for call in calls:
            call.result()
    for pod in pods.items():
        client.call("DEL", *pod, to_the_end=True)


def firewall_sockets(process: int) -> int:
    """How many sockets have asked NETLINK_NETFILTER something in a process's network namespace, the kernel's own not
    counted: it has port 0 (/proc/net/netlink)."""
    lines = Path(f"/proc/{process}/net/netlink").read_text(encoding="ascii").splitlines()[1:]
    return sum(protocol == str(NETLINK_NETFILTER) and port != "0" for _, protocol, port, *_ in map(str.split, lines))


IMPORTS = """
import sys
sys.path.insert(0, {root!r})
before = set(sys.modules)
import cni_v6.shim
print(*sorted(set(sys.modules) - before))
"""


def test_the_shim_imports_next_to_nothing() -> None:
    program = IMPORTS.format(root=str(ROOT))
    done = subprocess.run(["python3", "-ISE", "-c", program], capture_output=True, text=True, check=True)
    allowed = {"_socket", "cni_v6", "cni_v6.shim", "cni_v6.wire"}
    assert set(done.stdout.split()) <= allowed
    assert shim.RUN_DIR == b"/run/cni-v6"


UNIT = ROOT / "conf/systemd/cni-v6.service"


@pytest.mark.slow
def test_the_rights_that_its_unit_leaves_suffice(warm_node: Node) -> None:
    """As systemd starts it: no more capabilities than in ``CapabilityBoundingSet``, and no new privileges."""
    settings = dict(line.split("=", 1) for line in UNIT.read_text().splitlines() if re.match(r"\w+=", line))
    names = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in settings["CapabilityBoundingSet"].split())
    assert settings["NoNewPrivileges"] == "yes"
    limits = ["/usr/bin/setpriv", f"--bounding-set=-all,{names}", "--inh-caps=-all", "--no-new-privs"]
    with activated(warm_node, limits=limits) as engine:
        for name in ("a", "b"):
            add(warm_node, name)
        assert engine_of(warm_node) == engine.pid, "it is this one that was asked"
        status = Path(f"/proc/{engine.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status and "CapEff:\t000001ff" not in status
        delete(warm_node, "a")
        warm_node.remove_container("b")
        config = {**CONFIG, "cni.dev/valid-attachments": []}
        warm_node.plugin("cni-v6", "GC", config).ok()  # nobody says that b has ended: its namespaces do
        assert leases(warm_node) == set()
