"""A containerd of our own on a throwaway node: started, known to be ready, stopped."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .cri import Cri
from .images import archive
from .node import SETTLE, Node

COMMANDS = ("containerd", "containerd-shim-runc-v2", "ctr", "runc")
# On the node, in memory: the path of a socket is limited to 107 bytes (unix(7)), that of a test folder is not
FOLDER = "/run/containerd"
IMAGE = "localhost/cni-v6-test:1"

# It copies instead of mounting, so nothing depends on what the root folder's file system can do.
COPIES = "native"
CONFIG = """
version = 2
root = "{root}"
state = "{folder}/state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
"""


@dataclass
class Containerd:
    """A containerd with the test's image in both namespaces: ``ctr``'s own and the CRI service's.

    :param folder: for its configuration, root folder and log.
    """

    node: Node
    folder: Path
    daemon: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / "containerd.log"

    @property
    def socket(self) -> Path:
        """The socket as a client outside the node reaches it."""
        return self.node.path(f"{FOLDER}/containerd.sock")

    def start(self) -> None:
        """Until it is ready. Containers that an earlier one has started go on."""
        with _ready(self.node) as (notify, ready):
            env = {"NOTIFY_SOCKET": notify}
            self.daemon = self.node.start("containerd", "--config", self.folder / "config.toml", log=self.log, env=env)
            _await(ready, self.daemon, self.log)

    def stop(self) -> None:
        if self.daemon:
            self.node.stop(self.daemon)
            self.daemon = None

    def await_image(self, cri: Cri) -> None:
        """Return when the CRI service has heard of the imported image: containerd tells it by an event of its own."""
        deadline = time.monotonic() + SETTLE
        while not cri.image("ImageStatus")(image={"image": IMAGE}).HasField("image"):
            assert time.monotonic() < deadline, f"the CRI service has no {IMAGE}:\n{self.log.read_text()}"

    def ctr(self, *arguments: str | Path, namespace: str = "") -> str:
        """Run ``ctr`` to its end and return its output; it has to succeed."""
        return self.node.run(*self._ctr(namespace, arguments))

    def ctr_argv(self, *arguments: str | Path) -> list[str]:
        """The command line that runs ``ctr``, for a test that keeps it running."""
        return self.node.argv(*self._ctr("", arguments))

    def _ctr(self, namespace: str, arguments: tuple[str | Path, ...]) -> tuple[str | Path, ...]:
        # Its namespace is the parent cgroup too, so by default it is the one that the node cleans up
        where = ("--address", f"{FOLDER}/containerd.sock", "--namespace", namespace or self.node.cgroup)
        return ("ctr", *where, *arguments)


@contextmanager
def containerd(
    node: Node, folder: Path, snapshotter: str = COPIES, archives: Iterable[Path] = ()
) -> Iterator[Containerd]:
    """Start containerd on a node, its root folder and log in ``folder``; stop it at the end.

    :param archives: of images for its CRI service, besides the test's own.
    """
    text = CONFIG.format(root=folder / "root", folder=FOLDER, image=IMAGE, snapshotter=snapshotter)
    folder.joinpath("config.toml").write_text(text)
    image = archive(folder / "image.tar", IMAGE)
    node.path(FOLDER).mkdir()
    made = Containerd(node, folder)
    try:
        made.start()
        for namespace, path in (("", image), *(("k8s.io", path) for path in (image, *archives))):
            made.ctr("image", "import", "--snapshotter", snapshotter, path, namespace=namespace)
        yield made
    finally:
        made.stop()


@contextmanager
def _ready(node: Node) -> Iterator[tuple[str, socket.socket]]:
    """The socket on which a service says that it is ready (sd_notify(3)), and its name on the node."""
    name = f"{FOLDER}/notify.sock"
    node.path(name).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(node.path(name)))
        yield name, ready


def _await(ready: socket.socket, daemon: subprocess.Popen[bytes], log: Path) -> None:
    """Return at the daemon's READY=1; fail when it ends first, or says nothing for ``SETTLE`` seconds."""
    end = os.pidfd_open(daemon.pid)
    try:
        woken, _, _ = select.select([ready.fileno(), end], [], [], SETTLE)
    finally:
        os.close(end)
    assert woken == [ready.fileno()] and b"READY=1" in ready.recv(4096), f"containerd did not start:\n{log.read_text()}"
