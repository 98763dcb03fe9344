"""Whatever comes in by configuration, environment, store or another plugin: one JSON object or nothing, an exit code,
an unchanged node; and no way out of the store."""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from cni_v6.attachments.context import Context
from cni_v6.config.keys import Key, Level, Nested
from cni_v6.config.keys.bridge import BRIDGE
from cni_v6.config.keys.ipam import IPAM
from cni_v6.engine import handle
from cni_v6.errors import DELEGATE_FAILED, INTERNAL, CniError
from cni_v6.kernel.facts import Link
from cni_v6.kernel.fake.kernel import FakeKernel
from cni_v6.kernel.ops import LoadRuleset
from cni_v6.leases.disk.data_dirs import DiskDataDirs
from cni_v6.leases.disk.store import DiskLeases
from cni_v6.protocol.invocation import Invocation, Request
from tests.netns import networks
from tests.netns.networks import DUAL, Pod
from tests.netns.stepped_kernel import SteppedPlugin
from tests.sandbox import Node

pytestmark = pytest.mark.every_way

NETNS = "/run/netns/a"
ENV = {
    "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "a", "CNI_NETNS": NETNS, "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin",
    "CNI_ARGS": "",
}
TYPES = ("cni-v6", "cni-v6-ipam", networks.ROUTED, networks.MACVLAN)
COMMANDS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
BEFORE_ANY_CHANGE = (1, 2, 4, 6, 7)  # version, unsupported field, environment, decoding, configuration
PREVIOUS = {
    "cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": NETNS}],
    "ips": [{"address": "fd00:6::2/64", "gateway": "fd00:6::1", "interface": 0}], "routes": [{"dst": "::/0"}],
}
CONFIG = networks.gateway(
    *DUAL, ipam={"routes": [{"dst": "::/0"}]}, prevResult=PREVIOUS, args={"cni": {"ips": ["fd00:6::9"]}},
    runtimeConfig={"dns": {"servers": ["fd00::1"]}}, **{"cni.dev/valid-attachments": []},
)

WORDS = (
    "", "..", ".", "/", "../../etc", "a/b", "a:b", "a\nb", "a\r\nb", "\0", "-", "~", "%d", " ", "all", "default", "lo",
    "cni0", "eth0", "é", "\ud800", "\u202e", "x" * 16, "x" * 300, "null", "true", "1", "link-local", "fe80::1", "::",
    "::1",
    "0.0.0.0", "255.255.255.255", "10.66.0.1", "fd00:6::1", "::ffff:10.66.0.3", "10.66.0.0/24", "fd00:6::/64", "::/0",
    "0.0.0.0/0", "10.66.0.5/33", "fd00:6::5/129", "fd00:6::/127", "ff02::1", "2001:db8::1%eth0", "010.1.1.1", "10.1",
    "02:00:00:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "IP=10.66.0.9", "IgnoreUnknown=1;X=Y", "IP=;MAC=",
    "/etc/passwd", "/var/lib/../../etc", "cni-v6-ipam", "host-local", "cni-v6", "../cni-v6", "1.1.0", "0.1.0", "9.9.9",
)
NUMBERS = (
    0, 1, -1, 2, 67, 68, 1279, 1280, 4094, 4095, 65535, 65536, 2**31, 2**32, 2**63, 2**64, 10**400, 1.5, -0.0, 1e308,
)


def keys_of(level: Level) -> Iterator[str]:
    """Every key name of a level and of those below it."""
    for key in level.keys:
        yield key.name
        yield from (name for nested in _nested(key) for name in keys_of(nested))


def _nested(key: Key) -> Iterator[Level]:
    kind: Any = key.kind
    while hasattr(kind, "of"):
        kind = kind.of
    if isinstance(kind, Nested):
        yield kind.level


NAMES = sorted({*keys_of(BRIDGE), *keys_of(IPAM), "cni.dev/valid-attachments", "cni.dev/attachments", "isGatway"})

words = st.one_of(st.sampled_from(WORDS), st.text(max_size=8))
scalars = st.one_of(st.none(), st.booleans(), st.sampled_from(NUMBERS), words)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.sampled_from(NAMES), words), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def configurations(draw: st.DrawFn) -> Any:
    """A good configuration with a few places changed for the worse."""
    config: Any = copy.deepcopy(CONFIG)
    for _ in range(draw(st.integers(0, 3))):
        place = config
        while True:
            keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
            new = [draw(st.sampled_from(NAMES))] if isinstance(place, dict) else []
            key = draw(st.sampled_from([*keys, *new])) if keys or new else None
            if key is None:
                break
            below = place.get(key) if isinstance(place, dict) else place[key]
            if isinstance(below, (dict, list)) and below and draw(st.booleans()):
                place = below
                continue
            if isinstance(place, dict) and draw(st.booleans()) and key in place:
                del place[key]
            else:
                place[key] = draw(values)
            break
    return config


environments = st.fixed_dictionaries({}, optional={
    name: st.one_of(st.just(value), words) for name, value in ENV.items() if name != "CNI_COMMAND"
}).map(lambda some: {**ENV, **some})


class Here:
    """A node of fakes, with a store on disk in a folder of its own."""

    def __init__(self, root: Path, answer: object = None) -> None:
        self.root = root
        self.answer = answer
        self.kernel = FakeKernel()
        self.kernel.add_netns(NETNS)
        self.kernel.add_link("", Link(networks.UPLINK, "02:00:00:00:00:99", 1500, up=True))
        self.folders: set[str] = set()

    def context(self) -> Context:
        return Context(
            kernel=self.kernel, leases=self._leases, data_dirs=DiskDataDirs(str(self.root)), delegate=self._delegate,
            read_file=lambda _: "nameserver ::1\n",
            boot="boot", id="node", now=lambda: 1e9,
        )

    def _leases(self, network: str, data_dir: str) -> DiskLeases:
        self.folders.add(f"{data_dir}/{network}")
        return DiskLeases(network, f"{self.root}{data_dir}", boot="boot", timeout=0)

    def _delegate(self, call: Invocation, name: str, command: str) -> Mapping[str, Any]:
        if isinstance(self.answer, dict):
            return self.answer
        raise CniError(DELEGATE_FAILED, f"{name} {command}: not here")

    def state(self) -> object:
        """The kernel but for the bridge, which is the network's, and for forwarding."""
        return {
            netns: [sorted(set(names) - _bridges(space.links)) for names in (space.links, space.addresses)]
            for netns, space in self.kernel.spaces.items()
        }

    def files(self) -> Iterator[Path]:
        return (path for path in self.root.rglob("*") if not path.is_dir())


def _bridges(links: Mapping[str, Any]) -> set[str]:
    return {name for name, link in links.items() if link.kind == "bridge"}


def ask(here: Here, env: Mapping[str, str], stdin: bytes, plugin: str = "cni-v6") -> handle.Reply:
    """One call, and what holds for every answer."""
    before, applied = here.state(), len(here.kernel.applied)
    reply = handle.handle(Request(plugin, env, stdin), here.context())
    answer = json.loads(reply.stdout) if reply.stdout else None
    assert answer is None or isinstance(answer, dict)
    assert (reply.code == 0) == ("code" not in (answer or {}))
    if reply.code != 0:
        assert isinstance(answer, dict) and answer["code"] != INTERNAL, f"{answer}\n{reply.stderr}"
        assert answer["msg"] and {"cniVersion", "code", "msg"} <= answer.keys()
        if env["CNI_COMMAND"] == "ADD":
            assert here.state() == before
        if answer["code"] in BEFORE_ANY_CHANGE:
            # But for the firewall's tables: another plugin's answer is only checked once it is there.
            changes = [each for each in here.kernel.applied[applied:] if not isinstance(each, LoadRuleset)]
            assert changes == [], "changed something before everything was checked"
    assert len((reply.stdout + reply.stderr.encode(errors="replace"))) < 64 * 1024
    reply.stderr.encode(errors="strict")
    return reply


def within(here: Here) -> None:
    """Every file lies in a network's folder of a data folder, and is for its owner alone."""
    folders = tuple(os.path.normpath(f"{here.root}{folder}") + os.sep for folder in here.folders)
    for path in here.files():
        assert str(path).startswith(folders), f"{path} is outside of {folders}"
        assert path.stat().st_mode & 0o077 == 0


relaxed = settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.slow
@relaxed
@given(st.sampled_from(COMMANDS), configurations(), st.sampled_from(TYPES))
def test_any_configuration(command: str, config: Any, plugin: str) -> None:
    if plugin == networks.MACVLAN:  # which refuses to be the gateway
        kept = {key: value for key, value in config.items() if key != "isDefaultGateway"}
        config = kept | {"master": networks.UPLINK}
    with tempfile.TemporaryDirectory() as folder:
        here = Here(Path(folder))
        ask(here, {**ENV, "CNI_COMMAND": command}, json.dumps(config).encode(), plugin)
        within(here)
        removed = {**ENV, "CNI_COMMAND": "DEL"}
        if command == "ADD" and ask(here, removed, json.dumps(config).encode(), plugin).code == 0:
            assert not _ports(here)


def _ports(here: Here) -> list[str]:
    return [name for name, link in here.kernel.spaces[""].links.items() if link.kind == "veth" and "." not in name]


@pytest.mark.slow
@relaxed
@given(st.sampled_from(COMMANDS), environments)
@example("ADD", {**ENV, "CNI_CONTAINERID": "../../etc/passwd"})
@example("ADD", {**ENV, "CNI_NETNS": "\0"})
def test_any_environment(command: str, env: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        here = Here(Path(folder))
        ask(here, {**env, "CNI_COMMAND": command}, json.dumps(CONFIG).encode())
        within(here)


@pytest.mark.slow
@relaxed
@given(st.dictionaries(st.sampled_from([*ENV, "PATH", ""]), words), st.binary(max_size=64))
def test_any_environment_and_any_input(env: dict[str, str], stdin: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        here = Here(Path(folder))
        ask(here, {"CNI_COMMAND": "", **env}, stdin)
        assert list(here.files()) == []


@pytest.mark.slow
@relaxed
@given(st.sampled_from(COMMANDS), st.integers(0, 2000), st.binary(max_size=4))
def test_any_cut_or_spoilt_input(command: str, at: int, instead: bytes) -> None:
    text = json.dumps(CONFIG).encode()
    with tempfile.TemporaryDirectory() as folder:
        here = Here(Path(folder))
        rest = text[at + len(instead):] if instead else b""
        ask(here, {**ENV, "CNI_COMMAND": command}, text[:at] + instead + rest)
        within(here)


# The store

FILES = (
    "10.66.0.2", "10.66.0.3", "fd00:6::2", "fd00:6::9", "lock", "last_reserved_ip.0", "last_reserved_ip.1",
    "attachments", "attachments/a:eth0", "attachments/b:eth0", "attachments/.new", "attachments/.seen.0",
    "attachments/nonsense",
    "cursors", "cursors/spent", "cursors/open", "cursors/.new", "10.66.0.300", "elsewhere",
)
CONTENTS = st.one_of(
    st.binary(max_size=40), st.text(max_size=20).map(lambda text: text.encode(errors="replace")),
    st.sampled_from([
        b"", b"\0" * 512, b"a\r\neth0", b"b\r\neth0", b"b", b"a\r\neth0\r\nmore", b"../../etc\r\neth0", b"10.66.0.250",
        b"fd00:6::ffff", b"{}", b"[]", b"null", b'{"containerID": "a"}', b"[" * 100_000,
        json.dumps({
            "containerID": "a", "ifname": "eth0", "addresses": ["10.66.0.2", "fd00:6::2"], "host": "lo",
            "netns": [4, 17], "created": 1.0, "boot": "boot",
        }).encode(),
        json.dumps({
            "containerID": "b", "ifname": "eth0", "addresses": ["../../victim"], "host": "../x", "netns": [1, 2],
            "created": 1e400, "boot": "",
        }).encode(),
        json.dumps({"spent": [[0, 2**200]], "open": "x"}).encode(),
    ]),
)
KINDS = st.sampled_from(
    ("file", "file", "file", "folder", "link to a file", "link to a folder", "dangling link", "fifo")
)
plantings = st.lists(st.tuples(st.sampled_from(FILES), KINDS, CONTENTS), max_size=6)


def plant(root: Path, victim: Path, planted: list[tuple[str, str, bytes]]) -> set[str]:
    """Put things into the network's folder; the names that now have something."""
    taken = set()
    for name, kind, content in planted:
        path = root / name
        if os.path.lexists(path) or any(os.path.lexists(up) and not up.is_dir() for up in path.parents):
            continue
        if any(up.is_symlink() for up in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        taken.add(name)
        if kind == "file":
            path.write_bytes(content)
            path.chmod(0o600)
        elif kind == "folder":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path, 0o600)
        else:
            target = {"link to a file": victim / "file", "link to a folder": victim, "dangling link": victim / "none"}
            path.symlink_to(target[kind])
    return taken


def contents(folder: Path) -> list[tuple[str, bytes, int, int]]:
    found = [(path, path.stat()) for path in sorted(folder.iterdir())]
    return [(path.name, path.read_bytes(), status.st_mode, status.st_mtime_ns) for path, status in found]


@pytest.mark.slow
@relaxed
@given(plantings, st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS"]))
def test_any_store(planted: list[tuple[str, str, bytes]], command: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        here, victim = Here(Path(folder) / "root"), Path(folder) / "victim"
        victim.mkdir()
        (victim / "file").write_text("a\r\neth0")
        network = here.root / "var/lib/cni/networks/pods"
        network.mkdir(parents=True)
        taken = plant(network, victim, planted)
        before = contents(victim)
        config = {key: value for key, value in CONFIG.items() if key != "args"}
        if command == "ADD":
            config.pop("prevResult", None)  # its addresses are part of the answer
        reply = ask(here, {**ENV, "CNI_COMMAND": command}, json.dumps(config).encode())
        if command == "ADD" and reply.code == 0:
            given = {ip["address"].partition("/")[0] for ip in json.loads(reply.stdout)["ips"]}
            assert not given & taken, "an address that somebody else has"
        ask(here, {**ENV, "CNI_COMMAND": "DEL"}, json.dumps(config).encode())
        assert contents(victim) == before, "led out of the store"


# Another plugin's answer


@pytest.mark.slow
@relaxed
@given(values, configurations())
def test_any_previous_result(result: Any, config: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        here = Here(Path(folder))
        for command in ("ADD", "CHECK", "DEL"):
            ask(here, {**ENV, "CNI_COMMAND": command}, json.dumps({**config, "prevResult": result}).encode())


ADDRESS_WORDS = tuple(word for word in WORDS if set(word) <= set("0123456789abcdef.:/%"))
answers = st.fixed_dictionaries(
    {
        "cniVersion": st.just("1.0.0"),
        "ips": st.lists(st.fixed_dictionaries(
            {"address": st.sampled_from(("10.66.0.9/24", "fd00:6::9/64", *ADDRESS_WORDS))},
            optional={"gateway": st.sampled_from(ADDRESS_WORDS), "interface": st.sampled_from(NUMBERS)},
        ), min_size=1, max_size=3),
    },
    optional={
        "routes": st.lists(st.fixed_dictionaries(
            {"dst": st.sampled_from(ADDRESS_WORDS)},
            optional={
                "gw": st.sampled_from(ADDRESS_WORDS),
                **{key: st.sampled_from(NUMBERS) for key in ("mtu", "table", "scope", "priority", "advmss")},
            },
        ), max_size=2),
        "dns": values,
        "interfaces": st.lists(st.fixed_dictionaries({"name": words}), max_size=2),
    },
)


@pytest.mark.slow
@relaxed
@given(values, answers)
def test_any_answer_of_a_delegated_plugin_to_fakes(odd: Any, answer: dict[str, Any]) -> None:
    config = {**networks.network(isDefaultGateway=True), "ipam": {"type": "foreign"}}
    for one in (odd, answer):
        with tempfile.TemporaryDirectory() as folder:
            here = Here(Path(folder), one)
            ask(here, ENV, json.dumps(config).encode())


@pytest.fixture
def stepped(node: Node) -> Iterator[SteppedPlugin]:
    made = SteppedPlugin(node)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.slow
def test_any_answer_of_a_delegated_plugin_to_the_kernel(node: Node, stepped: SteppedPlugin) -> None:
    """What passes our reading of it is the kernel's to refuse, and then everything is undone."""
    folder = node.file("/var/lib/cni/plugins")
    folder.mkdir()
    (folder / "odd-ipam").write_text('#!/bin/sh\n[ "$CNI_COMMAND" = ADD ] && cat /var/lib/cni/answer || true\n')
    (folder / "odd-ipam").chmod(0o755)
    config = {**networks.network(isDefaultGateway=True), "ipam": {"type": "odd-ipam"}, "cniVersion": "1.0.0"}
    pod = Pod(node, config, "a")
    codes = []

    @settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
    @given(answers)
    def attempt(answer: dict[str, Any]) -> None:
        node.file("/var/lib/cni/answer").write_text(json.dumps(answer))
        outcome = stepped.call(pod, "ADD", CNI_PATH="/var/lib/cni/plugins")
        codes.append(outcome.code)
        assert outcome.signal == 0 and isinstance(outcome.stdout, dict)
        assert outcome.stdout.get("code") != INTERNAL, outcome
        if outcome.code:
            assert networks.veths(node) == set() == networks.veths(node, pod.netns), outcome
        assert stepped.call(pod, "DEL", CNI_PATH="/var/lib/cni/plugins").code == 0
        assert networks.veths(node) == set()

    attempt()
    assert {0, 1} == set(codes), "some of both"


# The ways out of the store that people have tried elsewhere, through the executables


@pytest.mark.parametrize("word", ["..", "../x", "/etc", "a/../../b", ".hidden", "a\nb", "a b"])
def test_names_lead_nowhere(node: Node, word: str) -> None:
    pod = Pod(node, networks.gateway(*DUAL), "a")
    with node.unchanged(data_dir="/var/lib/cni"):
        assert "CNI_CONTAINERID" in pod.call("ADD", container_id=word).error(4)
        assert "name" in pod.call("ADD", {**pod.config, "name": word}).error(7)
        assert "CNI_IFNAME" in pod.call("ADD", ifname=word if word != ".hidden" else "a/b").error(4)
    assert "dataDir" in pod.call("ADD", networks.gateway(*DUAL, ipam={"dataDir": "/var/lib/cni/../x"})).error(7)


@pytest.mark.parametrize("name", ["", "/attachments", "/lock", "/cursors", "/attachments/.new", "/10.66.0.2"])
def test_symbolic_links_in_the_store_are_not_followed(node: Node, name: str) -> None:
    """Whoever can write there could otherwise have root write, read or delete elsewhere."""
    victim = node.file("/var/lib/cni/victim")
    victim.mkdir()
    (victim / "file").write_text("untouched")
    link = node.file(f"{networks.STORE}/pods{name}")
    link.parent.mkdir(parents=True)
    link.symlink_to("/var/lib/cni/victim" if name in ("", "/attachments", "/cursors") else "/var/lib/cni/victim/file")
    pod = Pod(node, networks.gateway(*DUAL), "a")
    reply = pod.call("ADD")
    if name in ("/attachments/.new", "/10.66.0.2"):  # in the way of nothing: the one is replaced, the other taken
        assert {ip["address"] for ip in reply.ok()["ips"]} & {"10.66.0.2/24", "10.66.0.3/24"}
        assert "10.66.0.2/24" not in str(reply.stdout) or name != "/10.66.0.2"
    else:
        assert f"{networks.STORE}/pods{name}" in reply.error(103)
        assert networks.veths(node) == set()
    assert [path.name for path in victim.iterdir()] == ["file"]
    assert (victim / "file").read_text() == "untouched"
