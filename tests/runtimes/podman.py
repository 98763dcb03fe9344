"""podman on a throwaway node, with its CNI backend and folders of its own."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from .images import archive
from .node import Node

COMMANDS = ("podman", "conmon", "runc")
CNI_UNTIL = 4  # podman's last release with a CNI backend; its number is "podman version 4.3.1"
WITHOUT_CNI = "podman 5 has no CNI backend"
IMAGE = "localhost/cni-v6-test:1"

# Named by CONTAINERS_CONF, so that no other configuration of the machine counts. Nothing here needs systemd, and
# the limits are ones that a machine with low limits of its own can grant.
CONFIG = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "runc"
[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
network_config_dir = "/etc/cni/net.d"
"""


def has_cni() -> bool:
    """Whether this machine's podman can use a CNI plugin at all."""
    done = subprocess.run(["podman", "--version"], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1].partition(".")[0]) <= CNI_UNTIL


@dataclass(frozen=True)
class Podman:
    """podman's command with folders of its own; the test's image is loaded."""

    node: Node
    folder: Path

    def __call__(self, *arguments: str | Path) -> str:
        """Run ``podman`` to its end and return its output; it has to succeed."""
        folders = (f"--root={self.folder}/root", "--runroot=/run/podman/run", "--tmpdir=/run/podman/tmp")
        settings = {"CONTAINERS_CONF": str(self.folder / "containers.conf")}
        return self.node.run("podman", *folders, "--storage-driver=vfs", *arguments, env=settings)

    def run(self, *arguments: str) -> str:
        """``podman run``, its cgroups where the node cleans up."""
        return self("run", f"--cgroup-parent=/{self.node.cgroup}", *arguments)


def podman(node: Node, folder: Path) -> Podman:
    """Set podman up on a node; what it makes once for good (mounts, a cgroup for conmon) is there when this returns."""
    (folder / "containers.conf").write_text(CONFIG)
    made = Podman(node, folder)
    made("load", "--quiet", "--input", archive(folder / "image.tar", IMAGE))
    made.run("--rm", "--network=none", IMAGE, "/bin/sh", "-c", ":")
    return made
