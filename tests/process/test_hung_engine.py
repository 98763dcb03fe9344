"""An engine that is stopped or hangs: its callers give up and say where to look, and what it does later is undone."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cni_v6 import wire
from cni_v6.ctl.engine import stop
from cni_v6.engine import start, suspect
from cni_v6.errors import CniError
from tests.couriers import build
from tests.netns.stepped_engine import SteppedEngine
from tests.netns.stepped_kernel import PAUSE
from tests.process.test_engine import (
    CONFIG,
    add,
    delete,
    ended,
    engine_of,
    leases,
    run_dir,
    running,
    socket_of,
)
from tests.sandbox import PLUGIN_PATH, ROOT, Node

SECONDS = 1
IMPATIENT = f"""#!{sys.executable} -ISE
import sys
sys.path[:0] = {[str(ROOT), *sys.path]!r}
from cni_v6.shim import main
sys.exit(main("cni-v6", {SECONDS}))
"""


@pytest.fixture
def impatient(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder with a plugin that waits for an answer no longer than it must."""
    if request.node.get_closest_marker("courier"):
        yield str(build(tmp_path / "bin", f"-DANSWER_SECONDS={SECONDS}", "-DASK_SECONDS=5"))
        return
    yield impatient_in_python(tmp_path / "bin")


def impatient_in_python(folder: Path) -> str:
    folder.mkdir()
    plugin = folder / "cni-v6"
    plugin.write_text(IMPATIENT)
    plugin.chmod(0o755)
    return str(folder)


def refused(node: Node, folder: str, command: str, name: str) -> str:
    """What a caller says that nobody answers."""
    netns = node.containers.get(name) or node.container(name)
    call = {"container_id": name, "ifname": "eth0", "netns": netns, "path": (folder, *PLUGIN_PATH)}
    return node.plugin("cni-v6", command, CONFIG, **call).error(11)


def drain(node: Node) -> None:
    """End the engine once it has done everything."""
    wait = ended(running(node))
    os.kill(running(node), signal.SIGTERM)
    wait()


def test_a_caller_of_a_stopped_engine_gives_up_and_nothing_comes_of_the_call(warm_node: Node, impatient: str) -> None:
    add(warm_node, "z")
    engine = running(warm_node)
    os.kill(engine, signal.SIGSTOP)
    message = refused(warm_node, impatient, "ADD", "a")
    assert f"not answered for {SECONDS} seconds" in message
    assert f"its process {engine} is stopped" in message and f"kill -CONT {engine}" in message
    refused(warm_node, impatient, "DEL", "z")
    os.kill(engine, signal.SIGCONT)
    add(warm_node, "b")
    drain(warm_node)
    assert leases(warm_node) == {"z:eth0", "b:eth0"}, "nobody is there for whom it should be done"
    assert [link["ifname"] for link in warm_node.ip_json("link", netns=warm_node.containers["a"])] == ["lo"]


def test_a_caller_gives_up_in_the_middle_of_an_add_and_it_is_undone(warm_node: Node, impatient: str) -> None:
    add(warm_node, "z")
    netns = warm_node.container("a")
    with closing(SteppedEngine(warm_node)) as stepped:
        assert stepped.stop()
        stepped.start(PAUSE, 6)
        message = refused(warm_node, impatient, "ADD", "a")
        assert "look what its process" in message and "run the command again" in message
        assert stepped.hear() == {"held": 6}
        stepped.go_on()
        assert stepped.hear()["handled"] == "ADD"
        assert stepped.hear()["handled"] == "DEL"
        assert stepped.stop()
    assert leases(warm_node) == {"z:eth0"}
    assert [link["ifname"] for link in warm_node.ip_json("link", netns=netns)] == ["lo"]


def test_a_stopped_engine_is_not_waited_for_by_who_would_end_it(warm_node: Node) -> None:
    add(warm_node, "a")
    engine = running(warm_node)
    os.kill(engine, signal.SIGSTOP)
    with pytest.raises(CniError, match=f"process {engine} has not ended within 0.1 seconds.*kill -KILL {engine}"):
        stop([os.fsencode(socket_of(warm_node))], 0.1)
    wait = ended(engine)
    os.kill(engine, signal.SIGKILL)
    wait()
    delete(warm_node, "a")
    assert leases(warm_node) == set()


@pytest.mark.slow
def test_a_stopped_engine_whose_queue_is_full_is_done_without(warm_node: Node) -> None:
    run_dir(warm_node).mkdir(mode=0o700)
    listener, alive = start.claim(os.fsencode(run_dir(warm_node)), os.fsencode(socket_of(warm_node))) or (None, 0)
    assert listener
    with listener, socket.socket(socket.AF_UNIX) as first:
        listener.listen(0)
        first.connect(str(socket_of(warm_node)))
        add(warm_node, "a")
        assert engine_of(warm_node) is None
    os.close(alive)
    assert leases(warm_node) == {"a:eth0"}


@pytest.mark.slow
def test_a_socket_that_is_being_made_for_ever_is_not_waited_for(warm_node: Node) -> None:
    run_dir(warm_node).mkdir(mode=0o700)
    claimed = os.open(str(socket_of(warm_node)) + ".start", os.O_CREAT | os.O_RDWR, 0o600)
    assert start.take(claimed, 0)
    add(warm_node, "a")
    os.close(claimed)
    assert leases(warm_node) == {"a:eth0"}


def test_an_engine_in_another_pid_namespace_is_told_by_its_socket(tmp_path: Path) -> None:
    """The number it wrote is somebody else's here."""
    path = os.fsencode(tmp_path / "engine.sock")
    assert "ss -lxp" in suspect.advice(path)
    (tmp_path / "engine.sock.alive").write_text(str(os.getppid()))
    assert str(tmp_path) in suspect.advice(path) and "kill" not in suspect.advice(path)


def test_who_waits_for_somebody_waits_longer_than_that_one() -> None:
    kubelet = 120  # runtimeRequestTimeout, which StopPodSandbox has; RunPodSandbox has twice that
    attempts = 2  # the engine's own socket and systemd's; one just started takes what comes
    assert wire.DELEGATE_SECONDS < wire.WORK_SECONDS < wire.CALL_SECONDS < wire.ANSWER_SECONDS
    assert (attempts + 1) * wire.ASK_SECONDS + wire.ANSWER_SECONDS <= kubelet
