"""``cni-v6ctl install`` and ``uninstall``: into the folders of this node's runtimes, and out of them again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cni_v6 import __version__
from cni_v6.ctl import executables, main
from tests import processes
from tests.couriers import NAMES, build
from tests.netns import networks
from tests.netns.networks import DUAL
from tests.sandbox import ROOT, Node

pytestmark = pytest.mark.slow

CTL = str(ROOT / "bin/cni-v6ctl")
LIST = ".cni-v6.sha256"
CONFLIST = {"cniVersion": "1.0.0", "name": "pods", "plugins": [networks.gateway(*DUAL)]}


@pytest.fixture
def node() -> Iterator[Node]:
    """Without an engine at first. What is installed may leave one behind, in a folder of the node's own."""
    with closing(Node(engine=True)) as made:
        yield made


def ctl(node: Node, *words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    return node.run(CTL, *map(str, words), env=node.environment, check=check)


def report(node: Node, *words: object) -> Any:
    return json.loads(ctl(node, *words, "--json").stdout)


def refusal(node: Node, *words: object) -> str:
    done = ctl(node, *words, check=False)
    assert done.returncode == 1, done.stdout
    return done.stderr


def actions(told: Any) -> dict[str, str]:
    return {step["path"]: step["action"] for step in told["files"]}


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, b"" if path.is_dir() else path.read_bytes())
        for path in folder.rglob("*")
    }


def test_the_plugins_come_and_go_and_work_in_between(node: Node, tmp_path: Path) -> None:
    """The checkout carries no courier, so they are Python executables, and say so."""
    folder = tmp_path / "made/for/it"
    before = tree(tmp_path)
    told = report(node, "install", "--bin-dir", folder)
    assert (told["version"], told["plugins"], told["pythonDir"]) == (__version__, "python", None)
    assert actions(told) == {f"{folder}/{name}": "new" for name in NAMES}
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir() if path.name != LIST} == dict.fromkeys(
        NAMES, 0o755)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", LIST], cwd=folder, check=True)
    assert set(actions(report(node, "install", "--bin-dir", folder)).values()) == {"unchanged"}

    call = {"container_id": "a", "ifname": "eth0", "netns": node.container("a"), "path": (str(folder),)}
    network = networks.gateway(*DUAL)
    result = node.plugin("cni-v6", "ADD", network, **call).ok()
    node.plugin("cni-v6", "CHECK", {**network, "prevResult": result}, **call).ok()
    node.plugin("cni-v6", "DEL", network, **call).ok()

    told = report(node, "uninstall", "--bin-dir", folder)
    assert actions(told) == {f"{folder}/{name}": "removed" for name in NAMES} and told["warnings"] == []
    assert tree(tmp_path) == before, "the folders that were made for it, too"


@pytest.mark.slow
def test_a_dry_run_changes_nothing(node: Node, tmp_path: Path) -> None:
    folder = tmp_path / "cni"
    told = report(node, "install", "--bin-dir", folder, "--dry-run")
    assert set(actions(told).values()) == {"new"} and told["dryRun"] is True
    assert not folder.exists()
    assert f"{folder}/cni-v6: would be new" in ctl(node, "install", "--bin-dir", folder, "--dry-run").stdout
    ctl(node, "install", "--bin-dir", folder)
    before = tree(tmp_path)
    assert set(actions(report(node, "uninstall", "--bin-dir", folder, "--dry-run")).values()) == {"removed"}
    assert tree(tmp_path) == before


def test_what_is_not_ours_is_named_and_left_unless_forced(node: Node, tmp_path: Path) -> None:
    foreign = tmp_path / "cni-v6-ipam"
    foreign.write_bytes(b"#!/bin/sh\n")
    words = refusal(node, "install", "--bin-dir", tmp_path)
    assert f"{foreign} is not of cni-v6ctl install" in words and "--force" in words
    assert [path.name for path in tmp_path.iterdir()] == ["cni-v6-ipam"], "nothing was begun"
    assert actions(report(node, "install", "--bin-dir", tmp_path, "--force"))[str(foreign)] == "replaced"


@pytest.mark.slow
def test_a_loopback_of_others_stays(node: Node, tmp_path: Path) -> None:
    tmp_path.joinpath("loopback").write_bytes(b"another plugin")
    assert f"{tmp_path}/loopback" not in actions(report(node, "install", "--bin-dir", tmp_path))
    ctl(node, "uninstall", "--bin-dir", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["loopback"]


@pytest.mark.slow
def test_uninstall_leaves_what_was_changed_since_and_what_it_did_not_bring(node: Node, tmp_path: Path) -> None:
    own = executables.python("cni-v6", "/usr/bin/python3", [str(ROOT)], first=True)
    ctl(node, "install", "--bin-dir", tmp_path)
    tmp_path.joinpath("bridge").write_bytes(b"another plugin")
    tmp_path.joinpath("cni-v6").write_text(own, encoding="utf-8")  # make install's, for instance
    told = actions(report(node, "uninstall", "--bin-dir", tmp_path))
    assert told[f"{tmp_path}/cni-v6"] == "left, changed by others" and told[f"{tmp_path}/cni-v6-ipam"] == "removed"
    assert {path.name for path in tmp_path.iterdir()} == {"bridge", "cni-v6"}
    assert actions(report(node, "uninstall", "--bin-dir", tmp_path)) == {}


@pytest.mark.slow
def test_an_older_one_of_ours_and_a_link_to_one_are_replaced(node: Node, tmp_path: Path) -> None:
    old = executables.python("cni-v6", "/old/python3", ["/old"], first=True)
    tmp_path.joinpath("cni-v6").write_text(old, encoding="utf-8")
    tmp_path.joinpath("cni-v6-ipam").symlink_to(ROOT / "bin/cni-v6-ipam")
    assert set(actions(report(node, "install", "--bin-dir", tmp_path)).values()) == {"replaced", "new"}
    assert not tmp_path.joinpath("cni-v6-ipam").is_symlink() and "/old" not in tmp_path.joinpath("cni-v6").read_text()
    assert ROOT.joinpath("bin/cni-v6-ipam").read_text().startswith("#!/usr/bin/env"), "not through the link"


def test_it_goes_where_the_nodes_runtimes_look(node: Node, tmp_path: Path) -> None:
    """A folder for each of them, the first that exists; the configuration beside theirs."""
    crio, podman, conf = (tmp_path / name for name in ("crio", "podman", "net.d"))
    podman.mkdir()
    conflist = tmp_path / "10-pods.conflist"
    conflist.write_text(json.dumps(CONFLIST), encoding="utf-8")
    files = {
        "/etc/crio/crio.conf": f'[crio.network]\nnetwork_dir = "{conf}"\nplugin_dirs = ["{crio}/"]\n',
        "/etc/containers/containers.conf": f'[network]\nnetwork_backend = "cni"\nnetwork_config_dir = "{conf}"\n'
        f'cni_plugin_dirs = ["{tmp_path}/absent", "{podman}"]\n',
    }
    with etc(node, files):
        told = report(node, "install", "--conflist", conflist)
        assert {(each["name"], each["source"]) for each in told["runtimes"]} == {
            ("CRI-O", "/etc/crio/crio.conf"), ("podman", "/etc/containers/containers.conf")}
        wanted = {f"{folder}/{name}" for folder in (crio, podman) for name in NAMES} | {f"{conf}/{conflist.name}"}
        assert actions(told) == dict.fromkeys(wanted, "new")
        assert conf.joinpath(conflist.name).stat().st_mode & 0o777 == 0o644
        conf.joinpath(conflist.name).write_text("{}", encoding="utf-8")
        assert f"{conf}/{conflist.name} is not of cni-v6ctl install" in refusal(node, "install", "--conflist", conflist)
        ctl(node, "install", "--conflist", conflist, "--force")
        assert set(actions(report(node, "uninstall")).values()) == {"removed"}
    assert {path.name for path in tmp_path.iterdir()} == {"podman", conflist.name}


def test_a_runtimes_file_that_cannot_be_read_is_no_hindrance_to_uninstall(node: Node, tmp_path: Path) -> None:
    with etc(node, {"/etc/crio/crio.conf": "[crio"}):
        assert "/etc/crio/crio.conf is not valid TOML" in refusal(node, "install")
        ctl(node, "install", "--bin-dir", tmp_path)
        told = report(node, "uninstall", "--bin-dir", tmp_path)
    assert set(actions(told).values()) == {"removed"} and list(tmp_path.iterdir()) == []
    assert "/etc/crio/crio.conf is not valid TOML" in told["warnings"][0]


def etc(node: Node, files: dict[str, str]) -> Any:
    """An /etc of the node's own, with these files; nobody else sees it."""
    return closing(_Etc(node, files))


class _Etc:
    def __init__(self, node: Node, files: dict[str, str]) -> None:
        self._node = node
        node.run("mount", "-t", "tmpfs", "none", "/etc")
        for path, content in files.items():
            node.file(path).parent.mkdir(parents=True, exist_ok=True)
            node.file(path).write_text(content, encoding="utf-8")

    def close(self) -> None:
        self._node.run("umount", "--lazy", "/etc")


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "10-pods.conflist"), ('{"name": "x", "plugins": [{"type": "bridge"}]}', "has no plugin of type cni-v6")],
)
def test_a_configuration_that_no_runtime_could_use_is_refused(
    node: Node, tmp_path: Path, content: str, words: str
) -> None:
    conflist = tmp_path / "10-pods.conflist"
    conflist.write_text(content, encoding="utf-8")
    given = ("--bin-dir", tmp_path / "bin", "--conf-dir", tmp_path / "conf", "--conflist", conflist)
    assert words in refusal(node, "install", *given)
    assert [path.name for path in tmp_path.iterdir()] == [conflist.name]


@pytest.mark.parametrize(("name", "ending"), [("10-pods.conf", ".conflist"), ("pods", ".conflist")])
def test_a_file_that_no_runtime_would_read_is_refused(node: Node, tmp_path: Path, name: str, ending: str) -> None:
    """A list in a file for a single plugin, or in one of another kind."""
    conflist = tmp_path / name
    conflist.write_text(json.dumps(CONFLIST), encoding="utf-8")
    words = refusal(node, "install", "--bin-dir", tmp_path / "bin", "--conf-dir", tmp_path / "conf",
                    "--conflist", conflist)
    assert name in words and f"must end in {ending}" in words


def test_a_folder_that_cannot_be_written_leaves_the_others_as_they_were(node: Node, tmp_path: Path) -> None:
    tmp_path.joinpath("file").touch()
    words = refusal(node, "install", "--bin-dir", tmp_path / "a", "--bin-dir", tmp_path / "file/b")
    assert f"cannot write {tmp_path}/file:" in words
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_a_runtime_never_finds_half_a_plugin(node: Node, tmp_path: Path) -> None:
    """Whoever opens it while it is replaced, again and again, reads one of the two, whole."""
    both = [executables.python("cni-v6", "/usr/bin/python3", [name * 9000], first=True).encode() for name in "ab"]
    plugin = tmp_path / "cni-v6"
    plugin.write_bytes(both[0])
    seen: set[bytes] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.add(hashlib.sha256(plugin.read_bytes()).digest())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        ctl(node, "install", "--bin-dir", tmp_path)
        wanted = plugin.read_bytes()
        for content in both:
            aside = tmp_path / "aside"
            aside.write_bytes(content)
            aside.rename(plugin)
            ctl(node, "install", "--bin-dir", tmp_path)
    finally:
        done.set()
        looking.join()
    assert seen <= {hashlib.sha256(content).digest() for content in (*both, wanted)}


def test_the_engine_and_the_tables_go_along_unless_containers_use_them(node: Node, tmp_path: Path) -> None:
    ctl(node, "install", "--bin-dir", tmp_path)
    call = {"container_id": "a", "ifname": "eth0", "netns": node.container("a"), "path": (str(tmp_path),)}
    node.plugin("cni-v6", "ADD", networks.gateway(*DUAL), **call).ok()
    here = {os.stat(node.path).st_ino}
    assert len(processes.inside(here, node.mount_namespace)) == 2, "the holder of the node, and an engine"
    files = sorted(tmp_path.iterdir())
    words = refusal(node, "uninstall", "--bin-dir", tmp_path)
    assert "1 container is attached: pods/a/eth0: end them first" in words and "add --force" in words
    [warning] = report(node, "uninstall", "--bin-dir", tmp_path, "--dry-run")["warnings"]
    assert warning.startswith("it would be refused: 1 container is attached: pods/a/eth0")
    assert sorted(tmp_path.iterdir()) == files
    assert len(processes.inside(here, node.mount_namespace)) == 2
    done = ctl(node, "uninstall", "--bin-dir", tmp_path, "--force")
    assert "the firewall's tables stay: 1 attachment " in done.stderr and "--force" not in done.stderr
    assert "their DEL needs the plugins, which cni-v6ctl install brings back" in done.stderr
    assert "nft delete table inet cni_v6" in done.stderr
    assert len(processes.inside(here, node.mount_namespace)) == 1
    assert "table inet cni_v6" in node.run("nft", "list", "tables").stdout
    ctl(node, "install", "--bin-dir", tmp_path)
    node.plugin("cni-v6", "DEL", networks.gateway(*DUAL), **call).ok()
    remade = node.container("b")
    node.plugin("cni-v6", "ADD", networks.gateway(*DUAL), **{**call, "container_id": "b", "netns": remade}).ok()
    node.run("ip", "link", "delete", networks.veths(node).pop())
    assert "pods/b/eth0" in refusal(node, "uninstall", "--bin-dir", tmp_path), "it lives, though it is unplugged"
    node.remove_container("b")
    done = ctl(node, "uninstall", "--bin-dir", tmp_path)
    assert "the engine has ended\nno table of the firewall is loaded\n" in done.stdout and done.stderr == ""
    assert node.run("nft", "list", "tables").stdout == ""


@pytest.mark.parametrize("option", ["--bin-dir", "--conf-dir"])
def test_an_empty_folder_name_is_not_the_working_folder(
    tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--bin-dir "$UNSET"``."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.chdir(tmp_path)
        main(["install", option, ""])
    assert ended.value.code == 2 and "it names no folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("exposed", [True, False])
def test_python_that_others_may_change_is_named(node: Node, tmp_path: Path, exposed: bool) -> None:
    """Root executes it: a virtual environment in somebody's home."""
    home = tmp_path / "home"
    shutil.copytree(ROOT / "cni_v6", home / "site-packages/cni_v6", ignore=shutil.ignore_patterns("__pycache__"))
    os.chown(home, 65534 if exposed else 0, -1)
    script = f"import sys; sys.path.insert(0, {str(home / 'site-packages')!r}); from cni_v6.ctl import main; main()"
    words = ("-c", script, "install", "--json", "--bin-dir", str(tmp_path / "cni"))
    told = json.loads(node.run(f"{ROOT}/.venv/bin/python", *words, env=node.environment).stdout)
    named = ", ".join(told["warnings"])
    assert (f"root executes what others may change: {home}" in named or f", {home}" in named) == exposed


def test_nothing_but_couriers_needs_a_courier(node: Node, tmp_path: Path) -> None:
    words = refusal(node, "install", "--bin-dir", tmp_path, "--courier-only")
    assert f"carries no courier for {os.uname().machine}" in words


# What an installation carries


def test_the_courier_says_what_it_is(tmp_path: Path) -> None:
    built = build(tmp_path, python=Path("/usr/local/lib/cni-v6/bin")) / "cni-v6"
    built.rename(tmp_path / "courier")
    found = executables.courier(tmp_path)
    assert found and (found.version, found.folder) == (__version__, "/usr/local/lib/cni-v6/bin")
    assert executables.is_ours(found.content)


@pytest.mark.parametrize(("offset", "other"), [(4, b"\x03"), (18, b"\xff\xff")])
def test_another_processors_courier_does_not_count(tmp_path: Path, offset: int, other: bytes) -> None:
    courier = build(tmp_path) / "cni-v6"
    content = bytearray(courier.read_bytes())
    content[offset:offset + len(other)] = other
    tmp_path.joinpath("courier").write_bytes(content)
    assert executables.courier(tmp_path) is None


def test_a_package_without_a_courier_has_none(tmp_path: Path) -> None:
    assert executables.courier(tmp_path) is None
    tmp_path.joinpath("courier").write_bytes(b"\x7fELF of somebody else")
    assert executables.courier(tmp_path) is None


@pytest.mark.parametrize("name", [*NAMES, "cni-v6ctl"])
def test_an_installed_executable_is_the_checkouts_but_for_its_beginning(name: str) -> None:
    """Where the package lies is written in it; the checkout's looks for it."""
    before, _, rest = ROOT.joinpath("bin", name).read_text(encoding="utf-8").partition("# In a checkout")
    _, _, after = rest.partition("# End of what is for a checkout.\n")
    installed = executables.python(name, "/usr/bin/python3", ["/usr/lib/x"], first=True)
    wanted = before.replace("#!/usr/bin/env -S python3 -ISE", "#!/usr/bin/python3 -ISE")
    assert installed == f"{wanted}sys.path[:0] = ['/usr/lib/x']\n{after}"
    assert executables.is_ours(installed.encode())
