"""Calls of a plugin in one process on a node, and how much each asks of the kernel. Run as a program.

A line of JSON a call: ``type``, ``env``, ``config``. A line of JSON an answer: ``stdout``, ``code``, and how many
netlink ``requests`` were sent and how many ``messages`` were their answers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cni_v6.engine import handle  # noqa: E402
from cni_v6.kernel.linux import LinuxKernel  # noqa: E402
from cni_v6.kernel.netlink.message import Message  # noqa: E402
from cni_v6.kernel.netlink.socket import Answer, RouteSocket  # noqa: E402
from cni_v6.kernel.netns.enter import Namespace, open_namespace  # noqa: E402
from cni_v6.kernel.open_namespaces import Spaces  # noqa: E402
from cni_v6.kernel.ops import HOST  # noqa: E402
from cni_v6.protocol.invocation import Request  # noqa: E402


@dataclass(slots=True)
class Count:
    """Of one call."""

    requests: int = 0
    messages: int = 0


class CountingSocket(RouteSocket):
    """Passes requests on and counts."""

    def __init__(self, inner: RouteSocket, count: Count) -> None:
        self._inner = inner
        self._count = count

    def request(self, messages: Sequence[Message]) -> list[Answer]:
        self._count.requests += len(messages)
        return [self._counted(answer) for answer in self._inner.request(messages)]

    def dump(self, message: Message, most: int = 0) -> Answer:
        self._count.requests += 1
        return self._counted(self._inner.dump(message, most))

    def close(self) -> None:
        self._inner.close()

    def _counted(self, answer: Answer) -> Answer:
        self._count.messages += len(answer.messages)
        return answer


class CountingSpaces(Spaces):
    """Namespaces with such sockets."""

    def __init__(self, host: Namespace, count: Count) -> None:
        super().__init__(replace(host, route=CountingSocket(host.route, count)))
        self._count = count

    def get(self, netns: str) -> Namespace:
        space = super().get(netns)
        if not isinstance(space.route, CountingSocket):
            space.route = CountingSocket(space.route, self._count)
        return space


def main() -> None:
    """See above."""
    host = open_namespace(HOST)
    for line in sys.stdin:
        call, count = json.loads(line), Count()
        request = Request(call["type"], call["env"], json.dumps(call["config"]).encode())
        reply = handle.handle(request, handle.real_context(LinuxKernel(CountingSpaces(host, count))))
        stdout = json.loads(reply.stdout) if reply.stdout else None
        print(json.dumps({"stdout": stdout, "code": reply.code, "requests": count.requests,
                          "messages": count.messages}))


if __name__ == "__main__":
    main()
