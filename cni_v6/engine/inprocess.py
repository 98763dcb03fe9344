"""The shim's part without an engine, imported only then; what a configuration says about engines."""

from __future__ import annotations

import gc
import json
import os
import signal

from cni_v6.errors import TRY_AGAIN, CniError
from cni_v6.protocol import invocation
from cni_v6.protocol.invocation import Request

Answer = tuple[int, bytes, bytes]  # exit status, stdout, stderr


def refuses_engine(stdin: bytes) -> bool:
    """Whether the configuration has ``"engine": "off"``. The parser later refuses one that is not JSON."""
    try:
        config = json.loads(stdin)
    except (ValueError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("engine") == "off"


def idle_seconds(stdin: bytes, current: float) -> float:
    """``engineIdle`` of a configuration, else ``current``, in seconds. 0 (an engine that never ends) stays 0."""
    if not current or b'"engineIdle"' not in stdin:
        return current
    try:
        wanted = json.loads(stdin).get("engineIdle")
    except (ValueError, AttributeError, RecursionError):
        return current  # the parser refuses it later, with the reason
    return float(wanted) if isinstance(wanted, int) and wanted > 0 else current


def handle(plugin: str, environment: dict[bytes, bytes], stdin: bytes) -> Answer:
    """Handle the request in this process, which ends afterwards."""
    leave_interrupts_to_the_kernel()
    gc.disable()  # the process ends soon; collecting cycles would take a tenth of the time of the imports
    from cni_v6.engine import handle as engine_handle

    variables = {os.fsdecode(key): os.fsdecode(value) for key, value in environment.items()}
    request = Request(plugin, variables, stdin)
    if b'"log"' in stdin:
        from cni_v6.engine.call_log import handle_logged

        reply = handle_logged(request)
    else:
        reply = engine_handle.handle(request)
    return reply.code, reply.stdout, reply.stderr.encode(errors="replace")


def leave_interrupts_to_the_kernel() -> None:
    """Let an interrupt (Ctrl-C) kill the process. The DEL of the call removes what it made.

    Python would raise an exception at any point, perhaps in a container's network namespace, and undo the call there.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def lost_engine(stdin: bytes) -> Answer:
    """The error if the engine ended after it had got the request. It is not known whether it did anything.

    The request does not run a second time without the runtime's knowledge. Derived names make the runtime's DEL and its
    retry safe.
    """
    return _failed(CniError(TRY_AGAIN, "the cni-v6 engine ended before it answered", "run the command again"), stdin)


def silent_engine(stdin: bytes, path: bytes, seconds: int) -> Answer:
    """The error if the engine has the request and does not answer, because it is stopped or hangs.

    If it handles the request later, it undoes it, because nobody confirms the answer.

    :param path: of its socket.
    :param seconds: the time that the caller has waited.
    """
    from cni_v6.engine import suspect

    words = f"the cni-v6 engine has not answered for {seconds} seconds"
    return _failed(CniError(TRY_AGAIN, words, f"{suspect.advice(path)}; then run the command again"), stdin)


def for_courier(arguments: list[str], stdin: bytes) -> Answer | None:
    """The courier's (``courier/courier.c``) error about an engine that took its request and did not answer; None if
    the arguments are not the courier's."""
    match arguments:
        case ["--lost", _, _]:
            return lost_engine(stdin)
        case ["--silent", path, seconds]:
            return silent_engine(stdin, os.fsencode(path), int(seconds))
    return None


def _failed(error: CniError, stdin: bytes) -> Answer:
    answer = json.dumps(invocation.error_reply(error, invocation.version_of(stdin))).encode()
    return 1, answer + b"\n", f"cni-v6: error {error.code}: {error}\n".encode()
