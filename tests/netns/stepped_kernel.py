"""The plugin with its kernel in the test's hands: killed, failed or held up between two operations.

``SteppedPlugin`` starts this file as a program on a node. The program forks for every call, so that one call costs no
start-up. Nothing in the product knows of it: the engine is handed a kernel that steps through the operations of the
real one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from cni_v6.engine import handle  # noqa: E402
from cni_v6.kernel import ops  # noqa: E402
from cni_v6.kernel.netlink import pyroute2_messages, pyroute2_rules  # noqa: E402
from cni_v6.kernel.ops import HOST, Op  # noqa: E402
from cni_v6.kernel.questions import GetSysctl, Question  # noqa: E402
from cni_v6.kernel.snapshot import Kernel, Snapshot  # noqa: E402
from cni_v6.protocol.invocation import Request  # noqa: E402

CUT, FAIL, PAUSE = "cut", "fail", "pause"
IMPOSSIBLE = ops.SetLink(HOST, "no-such-link", up=True)


@dataclass(frozen=True)
class Outcome:
    """What became of a call: its answer and exit code, or the signal that ended it. ``steps``: its last position."""

    stdout: Any
    stderr: str
    code: int
    signal: int
    steps: int


class SteppedKernel:
    """The real kernel, with something happening before the operation at a position (or after the last one).

    ``steps`` is the last position so far, -1 before the first operation.

    :param what: CUT: this process is killed; FAIL: an operation that cannot succeed; PAUSE: ``hold`` is called.
    :param hide: sysctl keys with this in them are unknown to the kernel; "" hides none.
    """

    def __init__(self, inner: Kernel, what: str, position: int, hide: str, hold: Callable[[int], None]) -> None:
        self._inner = inner
        self._what = what
        self._position = position
        self._hide = hide
        self._hold = hold
        self.steps = -1

    def netns_id(self, path: str) -> tuple[int, int]:
        return self._inner.netns_id(path)

    def observe(self, questions: Iterable[Question]) -> Snapshot:
        asked = tuple(questions)
        seen = self._inner.observe(asked)
        hidden = [each for each in asked if self._hide and isinstance(each, GetSysctl) and self._hide in each.key]
        return Snapshot({**seen.answers, **dict.fromkeys(hidden)})

    def apply(self, operations: Iterable[Op]) -> Mapping[Op, Op | None]:
        otherwise: dict[Op, Op | None] = {}
        self._pass(list(operations), lambda some: otherwise.update(self._inner.apply(some)))
        return otherwise

    def remove(self, operations: Iterable[Op]) -> None:
        self._pass(list(operations), self._inner.remove)

    def _pass(self, operations: list[Op], work: Callable[[Iterable[Op]], None]) -> None:
        """Positions go on from one call of the kernel to the next: before each operation, and after a call's last."""
        here = self._position - self.steps - 1
        self.steps += len(operations) + 1
        if not self._what or not 0 <= here <= len(operations):
            return work(operations)
        before, after = operations[:here], operations[here:]
        if self._what == FAIL:
            return work([*before, IMPOSSIBLE, *after])
        work(before)
        if self._what == CUT:
            os.kill(os.getpid(), signal.SIGKILL)
        self._hold(self._position)
        return work(after)

    def close(self) -> None:
        self._inner.close()


def enter(node: Any) -> list[str]:
    """A command that runs what follows it on a ``tests.sandbox.Node``."""
    return ["/usr/bin/nsenter", f"--net={node.path}", f"--mount={node.mount_namespace}", "--"]


class SteppedPlugin:
    """The program on a node that runs the plugin's calls. ``close`` it before the node."""

    def __init__(self, node: Any) -> None:
        argv = [*enter(node), sys.executable, __file__]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call(
        self, pod: Any, command: str, what: str = "", position: int = 0, *, config: Mapping[str, Any] | None = None,
        hide: str = "", meanwhile: Callable[[], object] = lambda: None, **variables: str,
    ) -> Outcome:
        """One call for a ``networks.Pod``.

        :param meanwhile: done while a PAUSE lasts.
        :param variables: CNI variables that differ from the pod's own.
        """
        env = {
            "CNI_COMMAND": command, "CNI_CONTAINERID": pod.name, "CNI_IFNAME": pod.ifname, "CNI_NETNS": pod.netns,
            "CNI_PATH": "/usr/lib/cni", **variables,
        }
        self._say({
            "type": (config or pod.config)["type"], "env": env, "config": config or pod.config,
            "what": what, "position": position, "hide": hide,
        })
        answer = self._hear()
        while "held" in answer:
            meanwhile()
            self._say({})
            answer = self._hear()
        return Outcome(**answer)

    def _say(self, words: Mapping[str, Any]) -> None:
        assert self._process.stdin
        print(json.dumps(words), file=self._process.stdin, flush=True)

    def _hear(self) -> Any:
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the program."""
        self._process.communicate()
        assert self._process.returncode == 0


# The program


def main() -> None:
    """Answer the calls on standard input, each in a process of its own, one line of JSON a call.

    What some types of networks import late is imported once, before the processes part.
    """
    pyroute2_messages.get_lifetimes(1)
    pyroute2_rules.dump(6)
    for line in sys.stdin:
        call = json.loads(line)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            _perform(call, write)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as answers:
            written = answers.read()
        _, status = os.waitpid(child, 0)
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        nothing = {"stdout": None, "stderr": "", "code": -1, "steps": 0}
        tell({**(json.loads(written) if written else nothing), "signal": killed})


def _perform(call: Mapping[str, Any], write: int) -> None:
    context = handle.real_context()
    kernel = SteppedKernel(context.kernel, call["what"], call["position"], call["hide"], hold)
    request = Request(call["type"], call["env"], json.dumps(call["config"]).encode())
    reply = handle.handle(request, replace(context, kernel=kernel))
    stdout = json.loads(reply.stdout) if reply.stdout else None
    answer = {"stdout": stdout, "stderr": reply.stderr, "code": reply.code, "steps": kernel.steps}
    with os.fdopen(write, "w") as answers:
        json.dump(answer, answers)


def tell(news: Mapping[str, Any]) -> None:
    """One line of JSON for the test."""
    os.write(1, json.dumps(news).encode() + b"\n")


def hold(position: int) -> None:
    """Tell the test that it may act now, and go on when it has."""
    tell({"held": position})
    os.read(0, 1 << 16)


if __name__ == "__main__":
    main()
