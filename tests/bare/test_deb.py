"""The Debian package on a bare Debian: installed, used by a container's ADD and DEL, and removed without a trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bare.root import bare
from tests.bare.test_bare import attach

CONFLIST = "/etc/cni/net.d/10-cni-v6.conflist"
# What there is below the folders that a package may write to, but for those in which apt and dpkg keep their books.
LISTED = "find /etc /usr /opt /var/lib/cni -newer /tmp/before ! -type d ! -name '*.cache' 2>/dev/null | sort || true"

# Packages are downloaded and installed.
pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("bare trixie")]


def test_it_is_installed_used_and_removed(package: Path) -> None:
    """Debian 13, whose Python is another one than that of the machine that built it, if that is Debian 12."""
    with bare("trixie") as root:
        root.bring(package, "/tmp/cni-v6.deb")
        root.run("tools/packages nftables && touch /tmp/before")
        root.run("dpkg --install /tmp/cni-v6.deb")
        assert root.run("dpkg --verify cni-v6") == ""
        assert root.run("cat /usr/lib/cni-v6/cni_v6/__pycache__/shim.*.pyc | wc -c").strip() != "0"
        assert "cni-v6.socket" in root.run("ls /etc/systemd/system/sockets.target.wants")

        root.own(f"cni-v6ctl init --output {CONFLIST}")
        network = json.loads(root.run(f"cat {CONFLIST}"))
        attach(root, network)

        root.own("apt-get --quiet=2 --yes purge cni-v6 >/dev/null 2>&1")
        assert root.own("nft list tables") == "", "the firewall's tables have gone with it"
        assert root.run("ls -d /usr/lib/cni-v6 /usr/lib/cni/cni-v6 /usr/sbin/cni-v6ctl 2>/dev/null || true") == ""
        left = [line for line in root.run(LISTED).splitlines() if "cni" in line]
        ours = f"/var/lib/cni/networks/{network['name']}"
        assert [path for path in left if path != CONFLIST and not path.startswith(ours)] == []
