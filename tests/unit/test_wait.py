"""Waits for notifications, with a node whose notifications never end."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

import pytest

from cni_v6.errors import CniError
from cni_v6.kernel import awaits, wait
from cni_v6.kernel.netlink.message import Message
from cni_v6.kernel.netlink.socket import Answer
from cni_v6.kernel.netns.enter import Namespace
from cni_v6.kernel.open_namespaces import Spaces
from cni_v6.kernel.sysctl import Folders


class Route:
    """Tells at each question that the interface is there, and has a further notification sent."""

    def __init__(self) -> None:
        self.heard, self._sends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def request(self, messages: Sequence[Message]) -> list[Answer]:
        self._sends.send(b"news")
        return [Answer(messages=(b"a link",)) for _ in messages]

    def close(self) -> None:
        self._sends.close()
        self.heard.close()


class NoisySpace(Namespace):
    def event_socket(self, group: int, index: int | None = None) -> socket.socket:
        assert isinstance(self.route, Route)
        return self.route.heard.dup()


class NoisySpaces(Spaces):
    def __init__(self, route: Route) -> None:
        super().__init__(NoisySpace("", -1, route, Folders()))  # type: ignore[arg-type]

    def index(self, netns: str, ifname: str) -> int | None:
        return 7


@pytest.fixture
def noisy() -> Iterator[Spaces]:
    route = Route()
    yield NoisySpaces(route)
    route.close()


@pytest.mark.timeout(60)
def test_a_wait_ends_in_time_beside_notifications_without_end(noisy: Spaces) -> None:
    """A container can give reason for them: by an interface of its own that comes and goes."""
    with pytest.raises(CniError, match="veth1") as caught:
        wait.await_end(noisy, awaits.AwaitEnd("veth1", seconds=0.0))
    assert "nothing within 0 seconds; it is there still" in caught.value.details
