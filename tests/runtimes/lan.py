"""The link between nodes: a bridge in the test's own network namespace, which is a host on it beside them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from .node import ENVIRONMENT, Node

BRIDGE, UPLINK = "nodes0", "eth0"
HOST6, HOST4 = "fd00:11::1", "172.30.0.1"


def address(number: int, family: int) -> str:
    """A node's own on the link; the test has the first ones.

    :param family: 6 or 4.
    """
    return f"fd00:11::{number:x}" if family == 6 else f"172.30.0.{number}"


def url(host: str, port: int, path: str, scheme: str = "http") -> str:
    """The URL of an address."""
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"


@contextmanager
def lan() -> Iterator[None]:
    """One at a time in a network namespace: its addresses are always the same."""
    _ip("link", "add", BRIDGE, "type", "bridge")
    try:
        _ip("link", "set", BRIDGE, "up")
        _ip("address", "add", f"{HOST6}/64", "dev", BRIDGE, "nodad")
        _ip("address", "add", f"{HOST4}/24", "dev", BRIDGE)
        yield
    finally:
        _ip("link", "delete", BRIDGE)


@contextmanager
def attached(node: Node, number: int) -> Iterator[None]:
    """Give a node its interface on the link, with default routes by the test's host."""
    port = f"{BRIDGE}-{number}"
    _ip("link", "add", port, "type", "veth", "peer", "name", UPLINK, "netns", str(node.pid))
    try:
        _ip("link", "set", port, "master", BRIDGE, "up")
        node.run("ip", "link", "set", UPLINK, "up")
        node.run("ip", "address", "add", f"{address(number, 6)}/64", "dev", UPLINK, "nodad")
        node.run("ip", "address", "add", f"{address(number, 4)}/24", "dev", UPLINK)
        for gateway in (HOST6, HOST4):
            node.run("ip", "route", "add", "default", "via", gateway)
        yield
    finally:
        _ip("link", "delete", port)  # with the node's namespace it would go some time later


def _ip(*words: str) -> None:
    done = subprocess.run(("ip", *words), env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
