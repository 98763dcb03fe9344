"""Another IPAM plugin, executed: small programs take its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cni_v6.errors import DELEGATE_FAILED, CniError
from cni_v6.plugins import delegate
from cni_v6.protocol.invocation import Invocation


def program(folder: Path, text: str, name: str = "dhcp", mode: int = 0o755) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(mode)
    return path


def call(*folders: Path, stdin: bytes = b"{}") -> Invocation:
    path = ":".join(map(str, folders))
    env = {"CNI_COMMAND": "ADD", "CNI_PATH": path, "CNI_CONTAINERID": "c1", "CNI_ARGS": "A=é", "PATH": "/usr/bin:/bin"}
    return Invocation("cni-v6", "ADD", "1.1.0", "pods", {}, path=path, env=env, stdin=stdin)


# Finding it


def test_the_first_folder_that_has_it(tmp_path: Path) -> None:
    program(tmp_path / "b", "#!/bin/sh\n")
    second = program(tmp_path / "a", "#!/bin/sh\n")
    assert delegate.find("dhcp", f"{tmp_path / 'none'}::{tmp_path / 'a'}:{tmp_path / 'b'}") == str(second)


@pytest.mark.parametrize("spoil", ["missing", "folder", "not executable"])
def test_it_is_not_there(tmp_path: Path, spoil: str) -> None:
    if spoil == "folder":
        (tmp_path / "dhcp").mkdir()
    elif spoil == "not executable":
        program(tmp_path, "#!/bin/sh\n", mode=0o644)
    with pytest.raises(CniError, match=f"ipam.type: plugin dhcp is not in CNI_PATH .*{tmp_path}") as caught:
        delegate.run(call(tmp_path), "dhcp", "ADD")
    assert caught.value.code == DELEGATE_FAILED
    assert "cni-v6-ipam" in caught.value.details


def test_no_folder_means_no_folder_and_not_this_one() -> None:
    with pytest.raises(CniError, match="not in CNI_PATH"):
        delegate.find("setup.cfg", "")


# Running it


def test_it_gets_the_environment_and_the_configuration(tmp_path: Path) -> None:
    text = '#!/bin/sh\nenv -0 >"$0.env"\ncat >"$0.stdin"\necho \'{"ips": []}\'\n'
    path = program(tmp_path, text)
    asked = call(tmp_path, stdin=b'{"name": "pods"}')
    assert delegate.run(asked, "dhcp", "DEL") == {"ips": []}
    got = dict(line.split("=", 1) for line in path.with_suffix(".env").read_text().split("\0") if "=" in line)
    assert {key: got.get(key) for key in asked.env} == {**asked.env, "CNI_COMMAND": "DEL"}
    assert path.with_suffix(".stdin").read_bytes() == asked.stdin


def test_it_has_nothing_to_say(tmp_path: Path) -> None:
    program(tmp_path, "#!/bin/sh\necho\n")
    assert delegate.run(call(tmp_path), "dhcp", "DEL") == {}


def test_its_log_is_ours(tmp_path: Path) -> None:
    program(tmp_path, "#!/bin/sh\necho asking the server >&2\nprintf 'no\\377 answer' >&2\n")
    asked = call(tmp_path)
    delegate.run(asked, "dhcp", "DEL")
    assert asked.log.lines == ["cni-v6: dhcp: asking the server", "cni-v6: dhcp: no\N{REPLACEMENT CHARACTER} answer"]


@pytest.mark.parametrize("details", ["the server is down", ""])
def test_its_error_is_ours(tmp_path: Path, details: str) -> None:
    error = json.dumps({"cniVersion": "1.1.0", "code": 11, "msg": "no lease", "details": details})
    program(tmp_path, f"#!/bin/sh\necho '{error}'\nexit 1\n")
    with pytest.raises(CniError) as caught:
        delegate.run(call(tmp_path), "dhcp", "ADD")
    assert (caught.value.code, caught.value.msg, caught.value.details) == (11, "dhcp ADD: no lease", details)


@pytest.mark.parametrize(
    ("printed", "status"),
    [
        ("", 1),
        ("panic: runtime error", 2),
        ("[]", 0),
        ("not JSON", 0),
        ('{"code": "eleven", "msg": "no"}', 1),
        ('{"code": 11, "msg": 5}', 1),
        ('{"code": true, "msg": "no"}', 1),
        ('{"code": 0, "msg": "no"}', 1),
        ("[" * 20_000, 0),
    ],
    ids=["nothing", "a panic", "a list", "text", "code no number", "message no text", "code true", "code 0", "a bomb"],
)
def test_it_fails_without_an_error_of_its_own(tmp_path: Path, printed: str, status: int) -> None:
    program(tmp_path, f"#!/bin/sh\necho '{printed}'\nexit {status}\n")
    with pytest.raises(CniError, match=f"dhcp ADD failed with exit status {status} and no error object") as caught:
        delegate.run(call(tmp_path), "dhcp", "ADD")
    assert caught.value.code == DELEGATE_FAILED
    assert printed[:20] in caught.value.details
    assert len(caught.value.details) <= 500


def test_it_cannot_be_run(tmp_path: Path) -> None:
    program(tmp_path, "#!/no/such/interpreter\n")
    with pytest.raises(CniError, match=f"cannot run {tmp_path}/dhcp") as caught:
        delegate.run(call(tmp_path), "dhcp", "ADD")
    assert caught.value.code == DELEGATE_FAILED


def test_it_is_killed(tmp_path: Path) -> None:
    program(tmp_path, "#!/bin/sh\nkill -9 $$\n")
    with pytest.raises(CniError, match="exit status -9"):
        delegate.run(call(tmp_path), "dhcp", "ADD")
