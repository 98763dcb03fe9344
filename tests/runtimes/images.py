"""Container images made from the machine's own programs: nothing is pulled from anywhere."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import re
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

BUSYBOX = Path("/bin/busybox")  # Debian's busybox-static
APPLETS = ("cat", "httpd", "ip", "ping", "sh", "sleep", "test", "wget")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # platform.machine() -> Go's name, which images use

WWW = "/www"  # for httpd -h: /cgi-bin/client says whose address the server sees
CLIENT = b"#!/bin/sh\necho\necho $REMOTE_ADDR\n"

# Process 1 of a pid namespace gets no default signal handlers, so it has to say itself that TERM means to end.
PAUSE = ("/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 86400 & wait $!; done")


def archive(
    target: Path, *tags: str, applets: Sequence[str] = APPLETS, files: Mapping[str, Path] | None = None,
    entrypoint: Sequence[str] = (), command: Sequence[str] = PAUSE,
) -> Path:
    """Write an image archive that containerd imports and podman loads; started without a command it waits for ever.

    The layout is that of ``docker save``: a configuration, a layer and the manifest that names both.

    :param tags: full names of the image, ``localhost/name:tag``: without a host a runtime would add a default one.
    :param files: path in the image -> program, or other file, of the machine.
    """
    config = {"Env": ["PATH=/bin"], "Cmd": command, **({"Entrypoint": entrypoint} if entrypoint else {})}
    return _write(target, tags, _layer(applets, files or {}), config)


def archive_of(target: Path, tag: str, root: Path, env: Sequence[str]) -> Path:
    """An archive of an image whose root is a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        out.add(root, ".")
    return _write(target, (tag,), buffer.getvalue(), {"Env": list(env)})


def _write(target: Path, tags: Sequence[str], layer: bytes, settings: Mapping[str, Any]) -> Path:
    config = json.dumps(
        {
            "architecture": ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": {"WorkingDir": "/", **settings},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": tags, "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(target, "w") as out:
        for path, content in (("manifest.json", manifest), (name, config), ("layer.tar", layer)):
            _file(out, path, content)
    return target


def with_libraries(files: Mapping[str, Path]) -> dict[str, Path]:
    """The same with the shared libraries that the programs among them need, where these have them."""
    found = dict(files)
    for program in files.values():
        listed = subprocess.run(("ldd", program), capture_output=True, text=True, check=False)  # fails for a static one
        for path in re.findall(r"(?:=> |^\s*)(/\S+) \(0x", listed.stdout, re.MULTILINE):
            found[path] = Path(path)
    return found


def all_applets() -> list[str]:
    return subprocess.run((BUSYBOX, "--list"), capture_output=True, text=True, check=True).stdout.split()


def _layer(applets: Sequence[str], files: Mapping[str, Path]) -> bytes:
    """The root file system: busybox, the applets as links to it, and the folders a runtime mounts over."""
    buffer = io.BytesIO()
    inside = {path.lstrip("/"): source for path, source in files.items()}
    folders = {str(parent) for path in inside for parent in PurePosixPath(path).parents} - {"."}
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for folder in sorted({"bin", "dev", "etc", "proc", "run", "sys", "tmp", "www", "www/cgi-bin"} | folders):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            out.addfile(entry)
        _file(out, "bin/busybox", BUSYBOX.read_bytes(), mode=0o755)
        _file(out, "www/cgi-bin/client", CLIENT, mode=0o755)
        for path, source in inside.items():
            _file(out, path, source.read_bytes(), mode=0o755)
        for applet in applets:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            if applet != "busybox" and entry.name not in inside:
                out.addfile(entry)
    return buffer.getvalue()


def _file(out: tarfile.TarFile, path: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), mode
    out.addfile(entry, io.BytesIO(content))
