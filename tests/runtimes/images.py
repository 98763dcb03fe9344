"""Container images made from the machine's own static busybox: nothing is pulled from anywhere."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

BUSYBOX = Path("/bin/busybox")  # Debian's busybox-static
APPLETS = ("cat", "httpd", "ip", "ping", "sh", "sleep", "test", "wget")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # platform.machine() -> Go's name, which images use

WWW = "/www"  # for httpd -h: /cgi-bin/client says whose address the server sees
CLIENT = b"#!/bin/sh\necho\necho $REMOTE_ADDR\n"

# Process 1 of a pid namespace gets no default signal handlers, so it has to say itself that TERM means to end.
PAUSE = ("/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 86400 & wait $!; done")


def archive(target: Path, tag: str) -> Path:
    """Write an image archive that containerd imports and podman loads; started without a command it waits for ever.

    The layout is that of ``docker save``: a configuration, a layer and the manifest that names both.

    :param tag: the full name of the image, ``localhost/name:tag``: without a host a runtime would add a default one.
    """
    layer = _layer()
    config = json.dumps(
        {
            "architecture": ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": PAUSE, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(target, "w") as out:
        for path, content in (("manifest.json", manifest), (name, config), ("layer.tar", layer)):
            _file(out, path, content)
    return target


def _layer() -> bytes:
    """The root file system: busybox, the applets as links to it, and the folders a runtime mounts over."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for folder in ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "www", "www/cgi-bin"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            out.addfile(entry)
        _file(out, "bin/busybox", BUSYBOX.read_bytes(), mode=0o755)
        _file(out, "www/cgi-bin/client", CLIENT, mode=0o755)
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            out.addfile(entry)
    return buffer.getvalue()


def _file(out: tarfile.TarFile, path: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), mode
    out.addfile(entry, io.BytesIO(content))
