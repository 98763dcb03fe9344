"""Large input: refused at its limit, whatever is still to come; what an ADD made of the largest, a DEL takes away."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from cni_v6 import wire
from tests.netns import networks
from tests.netns.networks import Pod
from tests.sandbox import NSENTER, PLUGIN_PATH, ROOT, TIMEOUT, Node, make_call, reply

MEMORY = 300 << 20  # bytes of a process's own, several times what its largest input takes


def endless(node: Node, command: str, start: str) -> str:
    """What a call says to input that does not end, when it has as much memory as it needs for what it may read."""
    netns = node.containers["a"]
    each = make_call("cni-v6", command, b"", container_id="a", ifname="eth0", netns=netns, path=PLUGIN_PATH)
    argv = [NSENTER, f"--net={node.path}", f"--mount={node.mount_namespace}", "--", "prlimit", f"--data={MEMORY}"]
    feed = f"printf '%s' '{start}'; cat /dev/zero"
    script = f"({feed}) | {ROOT}/bin/cni-v6"
    done = subprocess.run(
        [*argv, "sh", "-c", script], capture_output=True, timeout=TIMEOUT,
        env={"PATH": "/usr/bin:/bin", **node.environment, **each.env},
    )
    return reply(done.stdout, done.stderr, done.returncode).error(6)


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC"])
def test_input_without_end_is_refused_at_the_limit(node: Node, command: str) -> None:
    node.container("a")
    with node.unchanged():
        message = endless(node, command, '{"cniVersion": "1.1.0", "name": "pods"')
    assert f"more than {wire.stdin_bytes(command.encode())} bytes" in message


def escaped(config: dict[str, Any]) -> bytes:
    """As a runtime in Go writes it: six bytes for a character that could be markup (encoding/json, HTMLEscape)."""
    return json.dumps(config).replace("<", "\\u003c").encode()


def test_what_was_added_with_the_largest_configuration_is_deleted(node: Node) -> None:
    """Its result stands beside the same configuration in the DEL's, and both are longer than an ADD's can be."""
    options = ["<" * 1000] * 1000
    config = networks.gateway(*networks.DUAL, dns={"options": options})
    pod = Pod(node, config, "a")
    assert wire.STDIN_BYTES * 0.9 < len(json.dumps(config)) < wire.STDIN_BYTES
    result = pod.add()
    later = {**config, "prevResult": result}
    assert len(escaped(later)) > 10 * wire.STDIN_BYTES
    call = {"container_id": "a", "ifname": "eth0", "netns": pod.netns}
    node.plugin("cni-v6", "CHECK", escaped(later), **call).ok()
    node.plugin("cni-v6", "DEL", escaped(later), **call).ok()
    assert networks.leases(node) == set() == networks.veths(node)
