"""Whatever comes, the answer is one JSON object or nothing, an exit status, and words on stderr."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.engine import handle
from cni_v6.engine.handle import Reply
from cni_v6.errors import CniError
from cni_v6.kernel import ops
from cni_v6.kernel.fake.kernel import FakeKernel
from cni_v6.kernel.snapshot import Kernel
from cni_v6.plugins.registry import PLUGINS
from cni_v6.protocol.invocation import MAIN, SUPPORTED_VERSIONS, Request
from tests.unit.fake_context import CONFIG, FakeContext

ENV = {
    "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
}


def ask(stdin: bytes | Mapping[str, Any] = CONFIG, fake: FakeContext | None = None, **env: str) -> Reply:
    data = stdin if isinstance(stdin, bytes) else json.dumps(stdin).encode()
    return handle.handle(Request("cni-v6", ENV | env, data), (fake or FakeContext()).context())


def test_every_plugin_has_every_command() -> None:
    commands = {"ADD", "DEL", "CHECK", "GC", "STATUS"}
    assert {name: set(plugin.commands) for name, plugin in PLUGINS.items()} == dict.fromkeys(
        (*MAIN, "cni-v6-ipam", "loopback"), commands)


@pytest.mark.parametrize("version", SUPPORTED_VERSIONS)
def test_an_answer_is_in_the_version_that_was_asked_in(version: str) -> None:
    fake = FakeContext()
    config = CONFIG | {"cniVersion": version}
    assert fake.add("c1", config)["cniVersion"] == version
    again = ask(config, fake)
    assert json.loads(again.stdout)["cniVersion"] == version
    probe = ask(config, fake, CNI_COMMAND="VERSION")
    assert json.loads(probe.stdout) == {"cniVersion": version, "supportedVersions": list(SUPPORTED_VERSIONS)}
    assert (probe.code, probe.stderr) == (0, "")


def test_version_says_what_it_ignored() -> None:
    reply = ask(b"{", CNI_COMMAND="VERSION")
    assert reply.code == 0
    assert "stdin ignored" in reply.stderr


def test_a_command_without_an_answer_prints_nothing() -> None:
    assert ask(CNI_COMMAND="DEL") == Reply(b"", "", 0)


@pytest.mark.parametrize(
    ("stdin", "env", "code"),
    [
        (b"", {}, errors.DECODING_FAILURE),
        (b"{", {}, errors.DECODING_FAILURE),
        (CONFIG | {"cniVersion": "9.9.9"}, {}, errors.INCOMPATIBLE_VERSION),
        (CONFIG, {"CNI_COMMAND": "FLY"}, errors.INVALID_ENVIRONMENT),
        (CONFIG, {"CNI_COMMAND": ""}, errors.INVALID_ENVIRONMENT),
        (CONFIG | {"isGatway": True}, {}, errors.INVALID_CONFIG),
        (CONFIG | {"ipMasqBackend": "iptables"}, {}, errors.UNSUPPORTED_FIELD),
        (CONFIG, {"CNI_NETNS": "/run/netns/none"}, errors.UNKNOWN_CONTAINER),
    ],
)
def test_an_error_is_one_object(stdin: bytes | Mapping[str, Any], env: Mapping[str, str], code: int) -> None:
    reply = ask(stdin, None, **env)
    answer = json.loads(reply.stdout)
    assert (reply.code, answer["code"]) == (1, code)
    assert answer.keys() == {"cniVersion", "code", "msg", "details"}
    assert answer["cniVersion"] in SUPPORTED_VERSIONS
    assert reply.stderr.endswith(f"cni-v6: error {code}: {answer['msg']}: {answer['details']}\n")
    assert "Traceback" not in reply.stderr


def test_what_was_logged_before_an_error_is_told() -> None:
    reply = ask(CONFIG | {"strange": 1}, CNI_NETNS="/run/netns/none")
    first, last = reply.stderr.splitlines()
    assert "strange" in first
    assert last.startswith("cni-v6: error 3: ")


def test_a_bug_is_code_199_and_its_traceback_stays_on_stderr() -> None:
    fake = FakeContext()
    fake.container("c1")
    fake.kernel.fail = lambda _: ZeroDivisionError("division by zero")
    reply = ask(CONFIG, fake)
    answer = json.loads(reply.stdout)
    assert (reply.code, answer["code"]) == (1, errors.INTERNAL)
    assert answer["details"] == "ZeroDivisionError: division by zero"
    assert "Traceback" in reply.stderr
    assert b"Traceback" not in reply.stdout


class Closing(FakeKernel):
    """Counts how often it was closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("failure", [None, CniError(100, "no"), ZeroDivisionError()])
def test_the_kernel_is_closed_after_every_call(failure: Exception | None) -> None:
    kernel = Closing()
    fake = FakeContext(kernel)
    fake.container("c1")
    kernel.fail = lambda op: failure if isinstance(op, ops.SetAlias) else None
    ask(CONFIG, fake)
    assert kernel.closed == 1


def test_the_real_node() -> None:
    """What it is made of; that it works is shown with the executables, on a node of their own."""
    node = handle.real_context()
    kernel: Kernel = node.kernel
    assert kernel.netns_id("") == kernel.netns_id("/proc/self/ns/net")
    assert node.boot and node.id
    assert node.read_file("/proc/sys/kernel/ostype") == "Linux\n"
    assert node.now() > 1.7e9
