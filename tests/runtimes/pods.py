"""Pods with a server that says who asks it."""

from __future__ import annotations

from typing import Any
from urllib.request import urlopen

from . import lan
from .containerd import IMAGE
from .images import WWW

PORT = 8080
PROBE = {"periodSeconds": 1, "timeoutSeconds": 5}
PAGE = "/cgi-bin/client"


def web(**port: int) -> dict[str, Any]:
    """A pod with a server on ``PORT``, which kubelet probes in each of its ways; it says who asks."""
    get = {"httpGet": {"path": PAGE, "port": PORT}}
    wget = {"exec": {"command": ["wget", "-q", "-O", "/dev/null", f"http://[::1]:{PORT}{PAGE}"]}}
    server = {
        "name": "server", "image": IMAGE, "imagePullPolicy": "Never",
        "command": ["httpd", "-f", "-p", str(PORT), "-h", WWW],
        "ports": [{"containerPort": PORT, **port}],
        "startupProbe": {**get, **PROBE, "failureThreshold": 60}, "readinessProbe": {**get, **PROBE},
        "livenessProbe": {"tcpSocket": {"port": PORT}, **PROBE, "failureThreshold": 60},
    }
    beside = {"name": "beside", "image": IMAGE, "imagePullPolicy": "Never", "readinessProbe": {**wget, **PROBE}}
    return {"terminationGracePeriodSeconds": 1, "containers": [server, beside]}


def idle() -> dict[str, Any]:
    """A pod that does nothing."""
    beside = {"name": "beside", "image": IMAGE, "imagePullPolicy": "Never"}
    return {"terminationGracePeriodSeconds": 1, "containers": [beside]}


def url(address: str, port: int) -> str:
    return lan.url(address, port, PAGE)


def asked(address: str, port: int) -> str:
    """The address that a server sees when the host beside the node asks it."""
    with urlopen(url(address, port), timeout=10) as answer:
        return plain(answer.read().decode())


def plain(said: str) -> str:
    """An address without httpd's brackets, and as IPv4 if it is one."""
    return said.strip().strip("[]").removeprefix("::ffff:")
