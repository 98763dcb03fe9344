"""The plugins' executables in the hands of a person, and with standard streams that are closed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping

import pytest

from cni_v6 import __version__
from cni_v6.protocol.versions import SUPPORTED_VERSIONS
from tests.process.test_engine import CONFIG, call, engine_of, leases, running
from tests.sandbox import ROOT, Node, Reply, reply

PLUGINS = ("cni-v6", "cni-v6-routed", "cni-v6-macvlan", "cni-v6-ipvlan", "cni-v6-vlan", "cni-v6-ipam", "loopback")
STREAMS = {"null": "</dev/null", "closed": "<&-"}


def shell(line: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[bytes]:
    """Run a line of shell with no environment but this."""
    return subprocess.run(
        ["sh", "-c", line], cwd=ROOT / "bin", env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )


PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin", "CNI_V6_ENGINE": "off"}
VERSION_CALL = {**PATH, "CNI_COMMAND": "VERSION"}


@pytest.mark.parametrize("stdin", STREAMS.values(), ids=STREAMS.keys())
@pytest.mark.parametrize("env", [PATH, VERSION_CALL], ids=["by hand", "with CNI_COMMAND"])
@pytest.mark.parametrize("plugin", PLUGINS)
def test_version_is_printed_to_stdout(plugin: str, env: Mapping[str, str], stdin: str) -> None:
    done = shell(f"./{plugin} --version {stdin}", env)
    words = f"{plugin} {__version__}\nCNI versions: {', '.join(SUPPORTED_VERSIONS)}\n"
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, words, b"")


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("plugin", PLUGINS)
def test_help_is_printed_to_stdout(plugin: str, option: str) -> None:
    done = shell(f"./{plugin} {option}", PATH)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert lines[0] == f"{plugin} {__version__}"
    assert "CNI_COMMAND" in done.stdout.decode() and len(lines) < 20


@pytest.mark.parametrize("plugin", PLUGINS)
def test_an_unknown_argument_is_refused(plugin: str) -> None:
    done = shell(f"./{plugin} --verison", PATH)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == f"{plugin}: unknown argument '--verison'; see {plugin} --help\n"


def test_a_call_ignores_arguments_that_are_not_for_a_person() -> None:
    """The specification knows no arguments. A wrapper that adds some gets its answer all the same."""
    answer = reply_of(shell("./cni-v6 ADD", VERSION_CALL)).ok()
    assert answer["supportedVersions"] == list(SUPPORTED_VERSIONS)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_at_a_terminal_it_says_what_it_is(plugin: str) -> None:
    """On stderr, as the reference plugins do: stdout is for results."""
    done = shell(f"script --quiet --command './{plugin} 2>&1 >stdout' /dev/null".replace("stdout", "/dev/null"), PATH)
    assert done.returncode == 0
    assert done.stdout.decode().startswith(f"{plugin} {__version__}\r\n")


def test_without_a_terminal_a_missing_command_is_an_error() -> None:
    assert reply_of(shell("./cni-v6", PATH)).error(4).startswith("CNI_COMMAND is missing")


def test_a_closed_stdin_has_no_configuration() -> None:
    reply_of(shell("./cni-v6 <&-", VERSION_CALL)).ok()
    status = {**PATH, "CNI_COMMAND": "STATUS", "CNI_PATH": "/usr/lib/cni"}
    assert reply_of(shell("./cni-v6 <&-", status)).error(6).startswith("no configuration on stdin")


def reply_of(done: subprocess.CompletedProcess[bytes]) -> Reply:
    return reply(done.stdout, done.stderr, done.returncode)


def add_and_delete(node: Node, redirect: str) -> None:
    """Attach a container and detach it again, each by a call with some stream closed."""
    netns = node.containers.get("a") or node.container("a")
    for command, held in (("ADD", {"a:eth0"}), ("DEL", set())):
        made = call(command, "a", netns)
        done = node.run(
            "sh", "-c", f"exec {ROOT}/bin/cni-v6 {redirect}", env={**node.environment, **made.env},
            stdin=made.stdin.decode(), check=False,
        )
        assert done.returncode == 0, done.stdout
        assert command == "DEL" or json.loads(done.stdout)["cniVersion"] == CONFIG["cniVersion"]
        assert leases(node) == held


def test_a_closed_stderr_costs_nothing_but_the_log(node: Node) -> None:
    add_and_delete(node, "2>&-")
    add_and_delete(node, "2>&-")


def test_an_engine_outlives_a_caller_without_standard_streams(warm_node: Node) -> None:
    """It gets none of their numbers for its socket and its lock, which it would lose when it replaces them."""
    made = call("ADD", "b", warm_node.container("b"))
    environment = {**warm_node.environment, **made.env}
    warm_node.run("sh", "-c", f"exec {ROOT}/bin/cni-v6 <&- >&- 2>&-", env=environment, check=False)
    engine = running(warm_node)
    add_and_delete(warm_node, "")
    assert running(warm_node) == engine


def test_without_a_command_no_engine_is_left_behind(warm_node: Node) -> None:
    done = warm_node.run("sh", "-c", f"exec {ROOT}/bin/cni-v6 </dev/null", env=warm_node.environment, check=False)
    assert done.returncode == 1 and engine_of(warm_node) is None


def test_the_operator_sees_the_state_of_the_host_interface(node: Node) -> None:
    def states() -> list[str]:
        printed = node.run(str(ROOT / "bin/cni-v6ctl"), "list", "--json", env=node.environment).stdout
        return [json.loads(line)["hostInterfaceState"] for line in printed.splitlines()]

    netns = node.container("a")
    result = node.plugin("cni-v6", "ADD", CONFIG, container_id="a", ifname="eth0", netns=netns).ok()
    host = next(each["name"] for each in result["interfaces"] if each["name"].startswith("veth"))
    assert states() == ["up"]
    node.run("ip", "link", "set", "eth0", "down", netns=netns)
    assert states() == ["down"]
    node.run("ip", "link", "delete", host)
    assert states() == ["missing"]
    node.plugin("cni-v6-ipam", "ADD", {**CONFIG, "type": "macvlan"}, container_id="b", ifname="eth0", netns=netns).ok()
    assert states() == ["missing", ""]
