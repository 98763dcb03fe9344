"""Root of a user namespace, as in rootless podman or an unprivileged LXC container: what takes the first one's
privileges is done without."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest

from tests.netns import networks
from tests.sandbox import COMMANDS, ROOT, TIMEOUT, make_call, need

# A node in a user namespace: only root is in its map, the containers' namespaces are its own.
NODE = """
mount -t tmpfs none /run
mount -t tmpfs none /var/lib/cni
mkdir /run/netns
ip link set lo up
for name in a b; do
    ip netns add $name
    ip -n $name link set lo up
done
for name in a b; do
    CNI_COMMAND=ADD CNI_CONTAINERID=$name CNI_NETNS=/run/netns/$name "$PLUGIN" <"$CONFIG"
done
ip netns exec a ping -6 -n -c 1 -W 5 fd00:6::3 >&2
ip netns exec a ping -n -c 1 -W 5 10.66.0.3 >&2
for name in a b; do
    CNI_COMMAND=DEL CNI_CONTAINERID=$name CNI_NETNS=/run/netns/$name "$PLUGIN" <"$CONFIG"
done
"$PLUGIN"ctl gc >&2
"$PLUGIN"ctl reload >&2
ip -o link show type veth >&2
"$PLUGIN"ctl engine --stop >&2
cat /run/cni-v6/*.log >&2 || true
"""


def rootless(script: str, config: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run a script in a user namespace of its own; ``$CONFIG`` has the configuration, ``$PLUGIN`` is ours."""
    variables = make_call("cni-v6", "ADD", {}, ifname="eth0").env
    with NamedTemporaryFile("w") as file:
        json.dump(config, file)
        file.flush()
        return subprocess.run(
            ["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-euc", script], capture_output=True,
            text=True, timeout=TIMEOUT,
            env={**COMMANDS, **variables, "CONFIG": file.name, "PLUGIN": str(ROOT / "bin/cni-v6")},
        )


@pytest.mark.parametrize("engine", ["auto", "off"])
def test_it_works_in_a_user_namespace(engine: str) -> None:
    """Firewall, gateway, both families, with an engine and without."""
    done = rootless(NODE, networks.gateway(*networks.DUAL, engine=engine, ipMasq=True))
    assert done.returncode == 0, done.stdout + done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["ips"][0]["address"] for each in answers] == ["fd00:6::2/64", "fd00:6::3/64"]
    assert ("the engine has ended" in done.stderr) == (engine == "auto"), done.stderr
    assert "veth" not in done.stderr and "Traceback" not in done.stderr


ADD = """
mount -t tmpfs none /run
mount -t tmpfs none /var/lib/cni
mkdir /run/netns
ip netns add a
CNI_COMMAND=ADD CNI_CONTAINERID=a CNI_NETNS=/run/netns/a "$PLUGIN" <"$CONFIG"
nft list table inet cni_v6 >&2
"""


def test_a_transaction_beyond_what_sockets_have_by_default() -> None:
    ports = [{"hostPort": port, "containerPort": port, "protocol": "udp"} for port in range(10_000, 14_000)]
    config = networks.gateway(*networks.DUAL, engine="off", runtimeConfig={"portMappings": ports})
    wanted = 1 << 20
    need(int(Path("/proc/sys/net/core/wmem_max").read_text(encoding="ascii")) >= wanted, "needs net.core.wmem_max=1M")
    done = rootless(ADD, config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("udp . 1") > len(ports), "they are all there"


def test_what_the_test_stands_on() -> None:
    """The kernel refuses there what it does for the first user namespace's root."""
    script = "python3 -c 'import socket; socket.socket().setsockopt(socket.SOL_SOCKET, 33, 1 << 24)'"
    assert "PermissionError" in rootless(script, {}).stderr
    assert os.geteuid() == 0
