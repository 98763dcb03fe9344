"""``make install`` and ``make uninstall``: what arrives runs with nothing around it, and goes away without a trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.couriers import NAMES
from tests.sandbox import ROOT, need

pytestmark = pytest.mark.xdist_group("install")

VERSION = {"CNI_COMMAND": "VERSION"}


def make(target: str, **variables: object) -> None:
    need(ROOT.joinpath(".venv/wheels").is_dir(), "needs the wheels that make test puts into .venv")
    done = subprocess.run(
        ["make", target, *(f"{key}={value}" for key, value in variables.items())],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def tree(folder: Path) -> dict[str, str]:
    """Every path below a folder: what kind it is, its mode, and its content."""
    return {
        str(path.relative_to(folder)): f"{path.stat().st_mode:o} {'' if path.is_dir() else path.read_bytes()!r}"
        for path in folder.rglob("*")
    }


def execute(program: Path, cwd: Path, env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments], cwd=cwd, env=env, input='{"cniVersion": "1.1.0"}', capture_output=True, text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An installation below a folder of its own: ``usr`` is PREFIX, ``cni`` CNI_BIN_DIR."""
    top = tmp_path_factory.mktemp("installed")
    make("install", PREFIX=top / "usr", CNI_BIN_DIR=top / "cni")
    yield top
    make("uninstall", PREFIX=top / "usr", CNI_BIN_DIR=top / "cni")


@pytest.mark.parametrize("plugin", ["cni-v6", "cni-v6-ipam"])
def test_an_installed_plugin_needs_nothing_but_its_variables(installed: Path, tmp_path: Path, plugin: str) -> None:
    done = execute(installed / "cni" / plugin, tmp_path, VERSION)
    assert done.returncode == 0, done.stderr
    assert "1.1.0" in json.loads(done.stdout)["supportedVersions"]


@pytest.mark.parametrize("plugin", ["cni-v6", "cni-v6-ipam"])
def test_a_plugin_runs_from_the_checkout_through_symbolic_links(tmp_path: Path, plugin: str) -> None:
    tmp_path.joinpath("first").symlink_to(ROOT / "bin" / plugin)
    tmp_path.joinpath("cni").mkdir()
    link = tmp_path / "cni" / plugin
    link.symlink_to("../first")
    done = execute(link, tmp_path, VERSION)
    assert done.returncode == 0, done.stderr
    assert "1.1.0" in json.loads(done.stdout)["supportedVersions"]


def test_the_installed_command_runs(installed: Path, tmp_path: Path) -> None:
    done = execute(installed / "usr/sbin/cni-v6ctl", tmp_path, {}, "schema")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["$schema"]


def test_what_is_installed_does_not_look_back_at_the_checkout(installed: Path) -> None:
    for program in [*installed.joinpath("usr/lib/cni-v6/bin").glob("cni-v6*"), installed / "usr/sbin/cni-v6ctl"]:
        text = program.read_text(encoding="utf-8")
        assert str(ROOT) not in text
        assert f"sys.path[:0] = ['{installed}/usr/lib/cni-v6']" in text
        interpreter, options = text.splitlines()[0].removeprefix("#!").split(" ")
        assert os.access(interpreter, os.X_OK) and options == "-ISE"


def test_the_courier_stands_in_front_of_python(installed: Path) -> None:
    for name in NAMES:
        courier, python = installed / "cni" / name, installed / "usr/lib/cni-v6/bin" / name
        assert courier.read_bytes().startswith(b"\x7fELF") and python.read_bytes().startswith(b"#!")
        assert f"{installed}/usr/lib/cni-v6/bin".encode() in courier.read_bytes(), "where it looks"
        assert str(ROOT).encode() not in courier.read_bytes()


def test_cni_v6ctl_install_puts_the_same_there(installed: Path, tmp_path: Path) -> None:
    """Elsewhere too, from what make install left in the library."""
    words = ("install", "--json", "--bin-dir", installed / "cni", "--bin-dir", tmp_path)
    told = json.loads(execute(installed / "usr/sbin/cni-v6ctl", tmp_path, {}, *map(str, words)).stdout)
    assert (told["plugins"], told["pythonDir"]) == ("courier", f"{installed}/usr/lib/cni-v6/bin")
    for step in told["files"]:
        assert (step["action"] == "new") == (Path(step["path"]).parent == tmp_path), step
    assert {name: tmp_path.joinpath(name).read_bytes() for name in NAMES} == {
        name: installed.joinpath("cni", name).read_bytes() for name in NAMES}


DISTRIBUTION = "/usr/bin/python3"


def install(tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """``tools/install`` alone: ``make`` would make .venv anew for another interpreter."""
    need(ROOT.joinpath(".venv/wheels").is_dir(), "needs the wheels that make test puts into .venv")
    clean = {key: value for key, value in os.environ.items() if key != "PYTHON"}
    return subprocess.run(
        [ROOT / "tools/install"], env=clean | {"DESTDIR": str(tmp_path)} | env, capture_output=True, text=True,
        check=False,
    )


def first_line(tmp_path: Path) -> str:
    return tmp_path.joinpath("usr/local/lib/cni-v6/bin/cni-v6").read_text(encoding="utf-8").splitlines()[0]


def what_stands_in_front(tmp_path: Path) -> bytes:
    """How the plugins in the CNI folder begin: both alike."""
    beginnings = {path.read_bytes()[:4] for path in tmp_path.joinpath("opt/cni/bin").iterdir()}
    return beginnings.pop() if len(beginnings) == 1 else b""


@pytest.mark.slow
def test_it_says_that_it_installed_the_courier(tmp_path: Path) -> None:
    done = install(tmp_path)
    assert "each the courier in front of the Python executable in /usr/local/lib/cni-v6/bin" in done.stdout
    assert what_stands_in_front(tmp_path) == b"\x7fELF"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "why"), [({"COURIER": "no"}, "COURIER=no"), ({"CC": "no-such-compiler"}, "there is no C compiler")]
)
def test_without_the_courier_the_plugins_are_python(tmp_path: Path, how: dict[str, str], why: str) -> None:
    done = install(tmp_path, **how)
    assert done.returncode == 0, done.stderr
    assert "each the Python executable, without a courier" in done.stdout and why in done.stdout
    assert what_stands_in_front(tmp_path)[:2] == b"#!"
    assert not list(tmp_path.glob("usr/local/lib/cni-v6/bin/cni-v6*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"COURIER": "need", "CC": "no-such-compiler"}, "there is no C compiler"),
        ({"COURIER": "need", "CC": "false"}, "the courier cannot be built"),
        ({"COURIER": "yes"}, "COURIER is 'yes'"),
        ({"CNI_BIN_DIR": "/usr/local/lib/cni-v6/bin"}, "the courier would execute itself"),
    ],
)
def test_a_courier_that_cannot_be_is_refused_and_nothing_installed(
    tmp_path: Path, how: dict[str, str], why: str
) -> None:
    done = install(tmp_path, **how)
    assert done.returncode == 1 and why in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_python_takes_the_place_of_a_courier_and_a_courier_of_python(tmp_path: Path) -> None:
    install(tmp_path)
    with_courier = tree(tmp_path)
    install(tmp_path, COURIER="no")
    without = tree(tmp_path)
    library = "usr/local/lib/cni-v6"
    behind = {f"{library}/bin", *(f"{library}/bin/{name}" for name in NAMES)}  # nothing else is in that folder
    assert with_courier.keys() - without.keys() == {*behind, f"{library}/cni_v6/courier"}
    install(tmp_path)
    assert tree(tmp_path).keys() == with_courier.keys()


@pytest.mark.slow
def test_the_distributions_interpreter_runs_it(tmp_path: Path) -> None:
    recent = [DISTRIBUTION, "-c", "import sys; sys.exit(sys.version_info < (3, 10))"]
    need(os.access(DISTRIBUTION, os.X_OK) and subprocess.run(recent, check=False).returncode == 0, "needs its Python")
    done = install(tmp_path)
    assert done.returncode == 0, done.stderr
    assert first_line(tmp_path) == f"#!{DISTRIBUTION} -ISE"
    assert f"for {DISTRIBUTION}" in done.stdout


@pytest.mark.slow
def test_another_interpreter_can_be_named(tmp_path: Path) -> None:
    named = tmp_path / "python"
    named.symlink_to(sys.executable)
    done = install(tmp_path, PYTHON=str(named))
    assert done.returncode == 0, done.stderr
    assert first_line(tmp_path) == f"#!{os.path.realpath(sys.executable)} -ISE", "not the link, which may go away"


def test_an_interpreter_that_is_none_is_refused(tmp_path: Path) -> None:
    done = install(tmp_path, PYTHON="/bin/false")
    assert done.returncode == 1
    assert "/bin/false is not Python 3.10 or newer" in done.stderr
    assert not list(tmp_path.iterdir())


def last_lines(tmp_path: Path, *without: str) -> list[str]:
    """What an installation on this node says after what it installed; ``without``: programs that it does not find."""
    hide = "".join(f"mount --bind /dev/null {program}\n" for program in without)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", f"{hide}exec tools/install"], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PREFIX": f"{tmp_path}/usr", "CNI_BIN_DIR": f"{tmp_path}/cni", "DESTDIR": ""}, check=False,
    )
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.startswith("installed: ")
    return [line for line in rest if not line.startswith("br_netfilter ")]  # no need of theirs


@pytest.mark.slow
def test_the_last_line_says_that_nothing_is_missing(tmp_path: Path) -> None:
    lines = last_lines(tmp_path)
    assert len(lines) == 1 and lines[0].startswith("nothing is missing that the plugins need at run time")


@pytest.mark.slow
def test_the_last_lines_name_what_is_missing(tmp_path: Path) -> None:
    first, line = last_lines(tmp_path, "/usr/sbin/nft")
    assert first == "missing on this node, for the plugins to run:"
    assert line.strip().startswith("nft (Debian: nftables): ")


@pytest.mark.slow
def test_packed_for_another_machine_it_does_not_look_at_this_one(tmp_path: Path) -> None:
    [line] = install(tmp_path).stdout.splitlines()
    assert line.startswith("installed: ")


def test_running_it_writes_no_byte_code(installed: Path, tmp_path: Path) -> None:
    before = tree(installed)
    assert execute(installed / "cni/cni-v6", tmp_path, VERSION).returncode == 0
    assert tree(installed) == before, "compiled at installation, once and for all"


def test_the_samples_come_along(installed: Path) -> None:
    samples = {path.relative_to(ROOT / "conf") for path in ROOT.joinpath("conf").rglob("*") if path.is_file()}
    assert samples, "conf/ has samples"
    shared = installed / "usr/share/cni-v6"
    assert {path.relative_to(shared) for path in shared.rglob("*") if path.is_file()} == samples


@pytest.mark.slow
def test_uninstall_takes_away_exactly_what_install_brought(tmp_path: Path) -> None:
    bystander = tmp_path / "opt/cni/bin/bridge"
    bystander.parent.mkdir(parents=True)
    bystander.write_text("another plugin", encoding="utf-8")
    before = tree(tmp_path)
    make("install", DESTDIR=tmp_path)
    assert {"opt/cni/bin/cni-v6", "opt/cni/bin/cni-v6-ipam", "usr/local/sbin/cni-v6ctl"} <= tree(tmp_path).keys()
    make("uninstall", DESTDIR=tmp_path)
    assert tree(tmp_path) == before


@pytest.mark.slow
def test_a_second_install_replaces_the_first_and_spares_what_is_not_ours(tmp_path: Path) -> None:
    make("install", DESTDIR=tmp_path)
    first = tree(tmp_path)
    library = tmp_path / "usr/local/lib/cni-v6"
    listed = library / "INSTALLED"
    vanished = "cni_v6/of_an_older_version.py"
    library.joinpath(vanished).touch()
    listed.write_text(listed.read_text(encoding="utf-8") + f"/usr/local/lib/cni-v6/{vanished}\n", encoding="utf-8")
    bystander = library / "cni_v6/somebody's"
    bystander.touch()
    make("install", DESTDIR=tmp_path)
    assert tree(tmp_path).keys() == {*first, str(bystander.relative_to(tmp_path))}
    make("uninstall", DESTDIR=tmp_path)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == [bystander]


@pytest.mark.parametrize("prefix", ["relative", "/with space", "/with'quote"])
def test_a_path_that_cannot_work_is_refused(tmp_path: Path, prefix: str) -> None:
    done = subprocess.run(
        [ROOT / "tools/install"], env=os.environ | {"PREFIX": prefix, "DESTDIR": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )
    assert done.returncode == 1
    assert f"'{prefix}' must be an absolute path" in done.stderr
    assert not list(tmp_path.iterdir())
