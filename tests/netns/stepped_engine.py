"""An engine in the test's hands: killed, or held up, between two operations of the first call that reaches it.

``SteppedEngine`` starts this file as a program on a node. It forks an engine when it is asked for one: the product's
own server, at the socket where the executables look for it, with a handler that steps through the operations of the
real kernel. What the engine tells comes back as one line of JSON each.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from cni_v6.attachments.context import Context  # noqa: E402
from cni_v6.engine import handle as engine_handle, start as engine_start  # noqa: E402
from cni_v6.engine.fair_shares import QUEUE, Room  # noqa: E402
from cni_v6.engine.handle import Reply  # noqa: E402
from cni_v6.engine.server import Server  # noqa: E402
from cni_v6.kernel.deadline import Limits  # noqa: E402
from cni_v6.protocol.invocation import Request  # noqa: E402
from tests.netns.stepped_kernel import SteppedKernel, enter, hold, tell  # noqa: E402

ROOM = Room(workers=256, calls=2048, queue=QUEUE)
PATIENCE = 60  # seconds; news that takes as long never comes


class SteppedEngine:
    """The program on a ``tests.sandbox.Node`` that forks engines. ``close`` it before the node."""

    def __init__(self, node: Any) -> None:
        self._path = f"{node.environment['CNI_V6_RUN_DIR']}/engine-{os.stat(node.path).st_ino}.sock"
        argv = [*enter(node), sys.executable, __file__, self._path]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._heard = b""

    def start(
        self, what: str, position: int, limits: Mapping[str, float] | None = None, room: Room = ROOM
    ) -> None:
        """Have an engine listen; ``what`` happens to the first call that it gets, before the operation at a position.

        :param what: CUT: the engine is killed; PAUSE: it waits for ``go_on``, having told that it is ``held``; "":
            nothing.
        :param limits: of ``cni_v6.patience.Limits``, where they are other than an engine's.
        :param room: what it can take on.
        """
        self._say({"what": what, "position": position, "limits": limits or {}, "room": asdict(room)})
        assert self.hear() == {"listens": True}

    def hear(self) -> Any:
        """The next news of the engine: ``{"held": position}``; ``{"handled": command, "code": its exit code, "steps":
        its last position}``, when the handler is through; ``{"ended": signal}``, 0 for an end of its own."""
        assert self._process.stdout
        while b"\n" not in self._heard:
            ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
            part = os.read(self._process.stdout.fileno(), 1 << 16) if ready else b""
            assert part, "the engine tells nothing"
            self._heard += part
        line, _, self._heard = self._heard.partition(b"\n")
        return json.loads(line)

    def go_on(self) -> None:
        """Release an engine that is held."""
        self._say({})

    def stop(self) -> bool:
        """End the engine that listens now, whoever started it; whether there was one."""
        return engine_start.stop(self._path.encode())

    def close(self) -> None:
        """End the engine that there may be, then the program."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()  # releases an engine that is held
        self.stop()
        assert self._process.wait(PATIENCE) == 0
        self._process.stdout.close()

    def _say(self, words: Mapping[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(words).encode() + b"\n")
        self._process.stdin.flush()


# The program


def main(path: str) -> None:
    """Fork an engine at the socket for each line of standard input, and tell its end."""
    for line in sys.stdin:
        asked = json.loads(line)
        claimed = engine_start.claim(os.path.dirname(path).encode(), path.encode())
        assert claimed, "an engine is there already"
        listener, alive = claimed
        child = os.fork()
        if child == 0:
            engine_start.sign(alive)
            handler = stepping(asked["what"], asked["position"])
            limits = Limits(**asked["limits"])
            has = Room(**asked["room"])
            Server(listener, path=path.encode(), idle=0, handler=handler, limits=limits, has=has).run()
            os._exit(0)
        listener.close()
        os.close(alive)
        tell({"listens": True})
        _, status = os.waitpid(child, 0)
        tell({"ended": os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)})


def stepping(what: str, position: int) -> Callable[[Request, Context], Reply]:
    """The engine's handler, but that something happens to its first call; it tells what it has handled."""
    wanted = [what]

    def handle(request: Request, context: Context) -> Reply:
        kernel = SteppedKernel(context.kernel, wanted.pop() if wanted else "", position, "", hold)
        reply = engine_handle.handle(request, replace(context, kernel=kernel))
        tell({"handled": request.env["CNI_COMMAND"], "code": reply.code, "steps": kernel.steps})
        return reply

    return handle


if __name__ == "__main__":
    main(sys.argv[1])
