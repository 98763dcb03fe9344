"""The frame of a call: each case file below cases/protocol is one scenario, named for what it shows.

``env`` of a case is laid over a complete environment (null takes a variable away); ``error.names`` must all appear in
the error, ``call`` lists fields of the Invocation, ``logged`` what its log must say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from cni_v6 import wire
from cni_v6.errors import DECODING_FAILURE, INVALID_CONFIG, INVALID_ENVIRONMENT, CniError
from cni_v6.protocol import invocation
from cni_v6.protocol.invocation import Args, Invocation, Request
from cni_v6.protocol.json_reader import KEPT_BYTES
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import from_json
from cni_v6.protocol.valid import valid_attachments

CASES = sorted((Path(__file__).parent / "cases" / "protocol").glob("*.json"))
ENV = {"CNI_CONTAINERID": "abc", "CNI_NETNS": "/run/netns/a", "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin"}
CONFIG = {"cniVersion": "1.1.0", "name": "mynet"}
COMMANDS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")


def request_of(case: Mapping[str, Any]) -> Request:
    env = ENV | {"CNI_COMMAND": case["command"]} | case.get("env", {})
    stdin = case["stdin"] if "stdin" in case else json.dumps(case["config"])
    return Request(case.get("plugin", "cni-v6"), {k: v for k, v in env.items() if v is not None}, stdin.encode())


def ask(command: str, stdin: bytes, **env: str) -> Invocation:
    return invocation.parse(Request("cni-v6", ENV | {"CNI_COMMAND": command} | env, stdin))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = json.loads(path.read_text())
    request = request_of(case)
    if "error" in case:
        with pytest.raises(CniError) as caught:
            invocation.parse(request)
        assert caught.value.code == case["error"]["code"]
        assert [name for name in case["error"]["names"] if name not in str(caught.value)] == []
        return
    call = invocation.parse(request)
    wanted = case.get("call", {})
    assert {name: getattr(call, name) for name in wanted} == wanted
    assert (call.env, call.stdin) == (request.env, request.stdin)
    assert call.log.prefix == case.get("prefix", call.log.prefix)
    if "args" in case:
        assert call.args == Args(**case["args"])
    if "prev_result" in case:
        assert call.prev_result == from_json(case["prev_result"], "1.1.0")
    said = call.log.text()
    assert [words for words in case.get("logged", ()) if words not in said] == []
    assert bool(said) == ("logged" in case)


def test_owner() -> None:
    assert ask("ADD", json.dumps(CONFIG).encode()).owner == Owner("mynet", "abc", "eth0")


@pytest.mark.parametrize(
    "text", ["..", ".a", "-a", "_a", "a/b", "../a", "a b", "a:b", "a\n", "é", "a\0", "a\udcff", "٣"], ids=ascii
)
def test_container_id_is_refused(text: str) -> None:
    with pytest.raises(CniError, match="CNI_CONTAINERID") as caught:
        ask("DEL", json.dumps(CONFIG).encode(), CNI_CONTAINERID=text)
    assert caught.value.code == INVALID_ENVIRONMENT


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a" * 16, id="long"),
        pytest.param("é" * 8, id="long in bytes"),
        pytest.param(".", id="dot"),
        pytest.param("..", id="two dots"),
        pytest.param("all", id="folder of all interfaces"),
        pytest.param("default", id="folder of new interfaces"),
        pytest.param("a/b", id="slash"),
        pytest.param("eth0:1", id="colon"),
        pytest.param("eth%d", id="pattern"),
        pytest.param("a b", id="space"),
        pytest.param("eth0\n", id="newline"),
        pytest.param("a\u2003b", id="wide space"),
        pytest.param("à", id="a byte the kernel takes for a space"),
        pytest.param("a\0", id="zero"),
        pytest.param("a\udcff", id="not UTF-8"),
    ],
)
def test_interface_name_is_refused(text: str) -> None:
    with pytest.raises(CniError, match="CNI_IFNAME") as caught:
        ask("ADD", json.dumps(CONFIG).encode(), CNI_IFNAME=text)
    assert caught.value.code == INVALID_ENVIRONMENT
    assert caught.value.details


@pytest.mark.parametrize("text", ["eth0", "a" * 15, "net1.100", "wlan-0_b@x", "...", "é"])
def test_interface_name_is_taken(text: str) -> None:
    assert ask("ADD", json.dumps(CONFIG).encode(), CNI_IFNAME=text).ifname == text


@pytest.mark.parametrize(
    ("stdin", "words"),
    [
        pytest.param(b'{"name": "\xff"}', "not UTF-8", id="latin-1"),
        pytest.param('{"name": "mynet"}'.encode("utf-16"), "not UTF-8", id="utf-16"),
        pytest.param(b'\xef\xbb\xbf{"name": "mynet"}', "BOM", id="byte order mark"),
        pytest.param(b'{"name": "mynet", "x": ' + b"[" * 100_000, "nested", id="nesting bomb"),
        pytest.param(b'{"name": "mynet", "x": ' + b"9" * 5_000 + b"}", "digits", id="number bomb"),
        pytest.param(b'{"name": "mynet"}{}', "Extra data", id="two documents"),
        pytest.param(b'{"name": "my\nnet"}', "control character", id="bare newline"),
        pytest.param(b"null", "not a JSON object", id="null"),
    ],
)
def test_stdin_is_refused(stdin: bytes, words: str) -> None:
    with pytest.raises(CniError, match="stdin") as caught:
        ask("ADD", stdin)
    assert caught.value.code == DECODING_FAILURE
    assert words in str(caught.value)


def test_surrogate_pairs_are_characters() -> None:
    assert ask("ADD", b'{"name": "mynet", "comment": "\\ud83d\\ude00"}').config["comment"] == "\N{GRINNING FACE}"


@pytest.mark.parametrize("command", ["ADD", "STATUS", "DEL", "CHECK", "GC"])
def test_stdin_is_too_large(command: str) -> None:
    most = wire.stdin_bytes(command.encode())
    assert most == (1 << 20 if command in ("ADD", "STATUS") else 16 << 20)
    with pytest.raises(CniError, match=f"too large: more than {most} bytes: {command} takes no more") as caught:
        ask(command, json.dumps(CONFIG).encode().ljust(most + 1))
    assert caught.value.code == DECODING_FAILURE


@pytest.mark.parametrize("command", ["DEL", "CHECK"])
def test_what_an_add_can_have_produced_is_taken_back(command: str) -> None:
    """A configuration as long as one may be, in JSON that has six bytes for one, with a result of the same."""
    options = ["<" * 1000] * 1000
    result = {"cniVersion": "1.1.0", "ips": [], "dns": {"options": options}}
    text = json.dumps({**CONFIG, "dns": {"options": options}, "prevResult": result}).replace("<", "\\u003c")
    assert len(text) > 11 << 20
    call = ask(command, text.encode())
    assert call.prev_result and call.prev_result.dns.options[0] == options[0]


def test_gc_has_room_for_a_large_node() -> None:
    valid = [{"containerID": f"{number:064x}", "ifname": "eth0"} for number in range(12_000)]
    call = ask("GC", json.dumps(CONFIG | {"cni.dev/valid-attachments": valid}).encode())
    assert len(call.valid or ()) == 12_000


@pytest.mark.parametrize("count", [10, 2_000, 20_000], ids=["short", "remembered", "too long to be remembered"])
def test_a_list_is_the_same_however_long_it_is(count: int) -> None:
    """libcni sends it under both names."""
    valid = [{"containerID": f"{number:020x}", "ifname": "eth0"} for number in range(count)]
    document = json.dumps(CONFIG | {"cni.dev/valid-attachments": valid, "cni.dev/attachments": valid}).encode()
    for _ in range(2):
        call = ask("GC", document)
        assert call.valid == frozenset(f"{number:020x}:eth0" for number in range(count))
        assert {key: call.config[key] for key in CONFIG} == CONFIG
    assert ask("DEL", document).valid is None


def test_a_long_list_that_is_none_is_an_error_of_gc_alone() -> None:
    document = json.dumps(CONFIG | {"cni.dev/valid-attachments": ["c1:eth0"] * 2_000}).encode()
    assert ask("ADD", document).network == CONFIG["name"]
    for _ in range(2):
        with pytest.raises(CniError, match=r"^cni\.dev/valid-attachments\[0\]"):
            ask("GC", document)


def test_a_long_configuration_without_a_list() -> None:
    long = CONFIG | {"cni.dev/padding": "x" * KEPT_BYTES}
    assert ask("GC", json.dumps(long).encode()).config == long


def test_valid_attachments() -> None:
    one, other = {"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifname": "net1"}
    new, old = "cni.dev/valid-attachments", "cni.dev/attachments"
    assert valid_attachments({}) is None
    assert valid_attachments({new: []}) == frozenset()
    assert valid_attachments({new: None}) == frozenset()
    assert valid_attachments({new: [one, other, one]}) == frozenset({"a:eth0", "b:net1"})
    assert valid_attachments({old: [other]}) == frozenset({"b:net1"})
    assert valid_attachments({old: [other], new: [one]}) == frozenset({"a:eth0"})


@pytest.mark.parametrize(
    "listed",
    [
        {}, "", 0, False, [None], ["a"], [["containerID", "ifname"]], [{"containerID": "a"}],
        [{"containerID": 1, "ifname": "eth0"}], [{"containerID": "", "ifname": "eth0"}],
        [{"containerID": None, "ifname": "eth0"}], [{"containerID": ["a"], "ifname": "eth0"}],
        [{"containerID": "a", "ifname": "eth0"}, {"containerID": "a", "ifname": False}],
    ],
    ids=ascii,
)
def test_valid_attachments_are_never_guessed(listed: object) -> None:
    with pytest.raises(CniError, match=r"^cni\.dev/valid-attachments") as caught:
        valid_attachments({"cni.dev/valid-attachments": listed})
    assert caught.value.code == INVALID_CONFIG


@pytest.mark.parametrize("word", ["1", "true", "True", "TRUE"])
def test_ignore_unknown_wherever_it_stands(word: str) -> None:
    assert invocation.parse_args(f"X=1;IP=10.0.0.2;IgnoreUnknown={word};Y=") == Args(ip="10.0.0.2")


def test_version_reply() -> None:
    versions = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
    assert invocation.version_reply("0.4.0") == {"cniVersion": "0.4.0", "supportedVersions": versions}


def test_error_reply() -> None:
    assert invocation.error_reply(CniError(7, "name is missing", "give it one"), "1.0.0") == {
        "cniVersion": "1.0.0", "code": 7, "msg": "name is missing", "details": "give it one",
    }


@pytest.mark.parametrize(
    ("stdin", "version"),
    [
        (b"", "1.1.0"),
        (b"{", "1.1.0"),
        (b"{}", "0.1.0"),
        (b'{"cniVersion": "0.4.0"}', "0.4.0"),
        (b'{"cniVersion": "2.0.0"}', "1.1.0"),
        (b'{"cniVersion": []}', "1.1.0"),
    ],
)
def test_version_of_what_could_not_be_parsed(stdin: bytes, version: str) -> None:
    assert invocation.version_of(stdin) == version


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
RESULT_KEYS = st.sampled_from(
    "cniVersion interfaces ips routes dns ip4 ip6 address ip interface name mac dst gw gateway mtu".split()
)
RESULTS = st.recursive(
    st.none() | st.integers() | st.text() | st.sampled_from(["1.1.0", "0.2.0", "10.0.0.1/24", "::1/128", "fe80::1"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(RESULT_KEYS, inner, max_size=4),
    max_leaves=8,
)
CONFIGS = st.fixed_dictionaries(
    {"name": st.just("mynet"), "cniVersion": st.just("1.1.0") | st.sampled_from(invocation.SUPPORTED_VERSIONS)},
    optional={
        "prevResult": RESULTS,
        "cni.dev/valid-attachments": JSON | st.just([{"containerID": "a", "ifname": "eth0"}]),
    },
)
ODD_CONFIGS = st.dictionaries(st.sampled_from(["name", "cniVersion", "prevResult"]), JSON)
STDIN = st.binary() | (ODD_CONFIGS | CONFIGS | CONFIGS).map(json.dumps).map(str.encode)
ANY_TEXT = st.text(st.characters())  # half surrogates too: what os.environ makes of bytes that are not UTF-8
ODD_ENVIRONMENTS = st.fixed_dictionaries(
    {"CNI_COMMAND": st.sampled_from(COMMANDS)},
    optional={
        "CNI_CONTAINERID": ANY_TEXT | st.text("ab.-_/", min_size=1),
        "CNI_IFNAME": ANY_TEXT | st.text("ab.:/", min_size=1),
        "CNI_NETNS": ANY_TEXT,
        "CNI_PATH": ANY_TEXT,
        "CNI_ARGS": ANY_TEXT | st.text("K=;I"),
    },
)


def answer(plugin: str, env: dict[str, str], stdin: bytes) -> None:
    """Whatever came, it is an Invocation fit for paths and names, or a CniError, and both can be told in JSON."""
    try:
        call = invocation.parse(Request(plugin, env, stdin))
    except CniError as error:
        reply = invocation.error_reply(error, invocation.version_of(stdin))
        assert reply["code"] and reply["msg"].isprintable()
    else:
        assert call.command in COMMANDS and call.version in invocation.SUPPORTED_VERSIONS
        assert "/" not in call.container_id + call.ifname + call.network
        assert len(f"{call.container_id}:{call.ifname}".encode()) <= 255
        reply = invocation.version_reply(call.version)
    assert json.loads(json.dumps(reply)) == reply


@settings(deadline=None)
@given(command=st.sampled_from(COMMANDS) | ANY_TEXT, stdin=STDIN, plugin=st.sampled_from(["cni-v6", "cni-v6-ipam"]))
def test_whatever_is_on_stdin_is_answered(command: str, stdin: bytes, plugin: str) -> None:
    answer(plugin, ENV | {"CNI_COMMAND": command}, stdin)


@settings(deadline=None)
@given(odd=ODD_ENVIRONMENTS)
def test_whatever_is_in_the_environment_is_answered(odd: dict[str, str]) -> None:
    answer("cni-v6", odd, json.dumps(CONFIG).encode())
    answer("cni-v6", ENV | odd, json.dumps(CONFIG).encode())
