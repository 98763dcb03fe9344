"""The line of a call: what it says, what it leaves out, and that a caller can put nothing else into it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.engine import call_line, handle
from cni_v6.engine.handle import Reply
from cni_v6.log import COMPUTE, QUEUE, Log, Steps
from cni_v6.protocol.invocation import MAIN, Invocation, Report, Request
from tests.unit.fake_context import CONFIG, FOREIGN, FakeContext, dhcp_server, gc

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Ticks:
    """A clock that goes on by a second whenever somebody looks at it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def ask(
    fake: FakeContext, command: str, container: str = "", config: dict[str, Any] | bytes = CONFIG, **env: str
) -> tuple[Reply, dict[str, Any] | None]:
    """A call, and its line."""
    variables = {"CNI_COMMAND": command, "CNI_PATH": "/opt/cni/bin"}
    if container:
        netns = fake.container(container)
        variables |= {"CNI_CONTAINERID": container, "CNI_IFNAME": "eth0", "CNI_NETNS": netns}
    stdin = config if isinstance(config, bytes) else json.dumps(config).encode()
    request = Request("cni-v6", variables | env, stdin)
    report = Report("5f0c1d2e", Steps(Ticks(), 0.0, QUEUE))
    report.steps.switch(COMPUTE)
    reply = handle.handle(request, replace(fake.context(), report=report))
    report.steps.switch(QUEUE)
    return reply, call_line.document(report, request, "2026-01-02T03:04:05.000006Z", 7)


def line(fake: FakeContext, command: str, container: str = "", **more: Any) -> dict[str, Any]:
    found = ask(fake, command, container, **more)[1]
    assert found is not None
    return found


def test_steps_add_up_to_the_call() -> None:
    steps = Steps(Ticks(), 0.0, QUEUE)
    assert steps.switch("observe") == QUEUE
    assert steps.switch("apply") == "observe"
    assert steps.switch("observe") == "apply"
    steps.switch(COMPUTE)
    assert steps.seconds == {QUEUE: 1.0, "observe": 2.0, "apply": 1.0}
    assert Steps(Ticks()).switch(QUEUE) == COMPUTE


def test_an_add() -> None:
    found = line(FakeContext(), "ADD", "c1", CNI_ARGS="K8S_POD_NAMESPACE=web;K8S_POD_NAME=a-1;IgnoreUnknown=1",
                 TRACEPARENT=f"00-{TRACE}-{PARENT}-01")
    steps = found.pop("steps")
    assert set(steps) == {"queue", "compute", "observe", "lock", "store", "apply"}
    assert found.pop("ms") == pytest.approx(sum(steps.values()))
    assert found.pop("notes") == ["loaded the firewall's tables, with 0 attachments"]
    assert [words[:33] for words in found.pop("warnings")] == ['ingress is "published" by default']
    assert found == {
        "time": "2026-01-02T03:04:05.000006Z", "id": "5f0c1d2e", "plugin": "cni-v6", "command": "ADD",
        "network": "pods", "container": "c1", "ifname": "eth0", "netns": "/run/netns/c1", "pod": "web/a-1",
        "addresses": ["2001:db8:1::2", "10.1.0.2"], "trace": TRACE, "parent": PARENT, "pid": 7,
    }


def test_a_del_says_what_it_has_freed() -> None:
    fake = FakeContext()
    fake.add("c1")
    assert line(fake, "DEL", "c1")["addresses"] == ["2001:db8:1::2", "10.1.0.2"]
    assert "addresses" not in line(fake, "DEL", "c1")


def test_of_the_ipam_plugin_alone() -> None:
    fake = FakeContext()
    fake.container("c1")
    fake.call("ADD", "c1", type="cni-v6-ipam")
    report = Report("5f0c1d2e", Steps(Ticks()))
    env = {"CNI_COMMAND": "DEL", "CNI_PATH": "/", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"}
    request = Request("cni-v6-ipam", env, json.dumps(CONFIG).encode())
    handle.handle(request, fake.context(), report)
    found = call_line.document(report, request, "", 7)
    assert found and found["addresses"] == ["2001:db8:1::2", "10.1.0.2"]


def test_another_plugin_is_a_step_too() -> None:
    assert line(FakeContext(plugins={"dhcp": dhcp_server()}), "ADD", "c1", config=FOREIGN)["steps"]["plugin"] == 1000


def test_the_error_has_the_calls_id() -> None:
    fake = FakeContext()
    reply, found = ask(fake, "ADD", "c1", FOREIGN)
    answer = json.loads(reply.stdout)
    assert answer["msg"].endswith(" (call 5f0c1d2e)")
    assert answer["details"] == "install it there", "it may end in commands to copy"
    assert "(call 5f0c1d2e)" in reply.stderr
    own = answer["msg"].removesuffix(" (call 5f0c1d2e)")
    assert found and found["error"] == {"code": answer["code"], "msg": own, "details": "install it there"}


def test_an_error_without_details_has_its_id_all_the_same() -> None:
    reply = handle.refuse(Request("cni-v6", {}, b"{}"), errors.CniError(11, "no"), Report("5f0c1d2e", Steps(Ticks())))
    assert json.loads(reply.stdout)["msg"] == "no (call 5f0c1d2e)"


def test_a_request_that_cannot_be_parsed() -> None:
    found = line(FakeContext(), "ADD", "c1", config=b"{")
    assert (found["command"], found["container"], found["error"]["code"]) == ("ADD", "c1", errors.DECODING_FAILURE)
    assert "network" not in found


def test_a_bug_has_its_traceback() -> None:
    fake = FakeContext(files={"/etc/r": ZeroDivisionError("what")})
    config = CONFIG | {"ipam": CONFIG["ipam"] | {"resolvConf": "/etc/r"}}
    found = line(fake, "ADD", "c1", config=config)
    assert found["error"]["code"] == errors.INTERNAL
    assert found["traceback"].rstrip().endswith("ZeroDivisionError: what")


def test_warnings_and_notes_are_without_the_calls_name() -> None:
    fake = FakeContext()
    fake.add("c1")
    fake.now += 10
    found = line(fake, "GC", config=gc())
    assert found["notes"] == ["removed pods/c1/eth0 2001:db8:1::2 10.1.0.2"]
    assert line(fake, "GC")["warnings"][0].startswith("nothing freed")


def test_runtimes_questions_that_find_nothing_wrong_have_no_line() -> None:
    fake = FakeContext()
    assert ask(fake, "STATUS")[1] is None
    assert ask(fake, "VERSION")[1] is None
    assert line(fake, "STATUS", config=b"{")["error"]["code"] == errors.DECODING_FAILURE
    assert line(fake, "VERSION", config=b"{")["warnings"][0].startswith("stdin ignored")


def test_what_a_caller_says_is_bounded_and_ascii() -> None:
    request = Request("cni-v6", {"CNI_COMMAND": "ADD\x1b[2J" * 100, "CNI_CONTAINERID": "\x1b" * 5000}, b"")
    report = Report("5f0c1d2e", Steps(Ticks()))
    log = Log("p")
    log.lines = ["p: warning: " + "\u202e" * 5000] * 50
    report.call = Invocation("cni-v6", "ADD", "1.0.0", "pods", {}, log=log)
    report.error = errors.CniError(7, "m" * 5000, "d" * 5000)
    report.traceback = "t" * 50000
    found = call_line.document(report, request, "", 7)
    assert found and found["warnings"][-1] == "and 30 more" and len(found["container"]) == 200
    data = call_line.encode(found)
    assert len(data) < 150_000 and data.count(b"\n") == 1 and b"\x1b" not in data and data.isascii()


def test_an_event_is_a_line() -> None:
    assert call_line.event("w" * 5000, "now", 7) == {"time": "now", "event": "w" * 1000, "pid": 7}


@pytest.mark.parametrize("traceparent", [
    "", "00-", f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE.upper()}-{PARENT}-01",
])
def test_a_trace_that_is_none_is_left_out(traceparent: str) -> None:
    assert "trace" not in line(FakeContext(), "ADD", "c1", TRACEPARENT=traceparent)


@pytest.mark.parametrize(("stdin", "path"), [
    (b'{"log": "/var/log/a.jsonl"}', "/var/log/a.jsonl"),
    (b'{"log": "/var/log/syslog"}', ""), (b'{"log": "a.jsonl"}', ""), (b'{"log": "/var/../a.jsonl"}', ""),
    (b'{"log": "/var/log/.jsonl"}', ""), (b'{"log": 1}', ""), (b'["log"', ""), (b'["log"]', ""), (b"{}", ""),
])
def test_the_file_of_a_configuration(stdin: bytes, path: str) -> None:
    assert call_line.path_of(Request("cni-v6", {}, stdin), MAIN) == path
    assert call_line.path_of(Request("cni-v6-ipam", {}, stdin), MAIN) == "", "it is the main plugin's"


def test_what_was_freed_without_a_del_is_counted() -> None:
    fake = FakeContext()
    fake.add("c1")
    fake.now += 10
    report = Report("5f0c1d2e", Steps(Ticks()))
    env = {"CNI_COMMAND": "GC", "CNI_PATH": "/"}
    handle.handle(Request("cni-v6", env, json.dumps(gc()).encode()), fake.context(), report)
    assert report.call and report.call.log.reclaimed == 1
