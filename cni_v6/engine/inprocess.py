"""What the shim does itself where no engine answers, imported only then; what a configuration says about engines."""

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
    """Whether the configuration says ``"engine": "off"``. What cannot be read is for the parser to refuse."""
    try:
        config = json.loads(stdin)
    except (ValueError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("engine") == "off"


def idle_seconds(stdin: bytes, current: float) -> float:
    """``engineIdle`` of a configuration, else the current one. An engine that never idles out goes on so."""
    if not current or b'"engineIdle"' not in stdin:
        return current
    try:
        wanted = json.loads(stdin).get("engineIdle")
    except (ValueError, AttributeError, RecursionError):
        return current  # the parser refuses it, with its reason
    return float(wanted) if isinstance(wanted, int) and wanted > 0 else current


def handle(plugin: str, environment: dict[bytes, bytes], stdin: bytes) -> Answer:
    """Handle the request in this process, which answers this one and ends."""
    leave_interrupts_to_the_kernel()
    gc.disable()  # what little there is in cycles goes with the process; looking for it is a tenth of the imports
    from cni_v6.engine import handle as engine_handle

    variables = {os.fsdecode(key): os.fsdecode(value) for key, value in environment.items()}
    reply = engine_handle.handle(Request(plugin, variables, stdin))
    return reply.code, reply.stdout, reply.stderr.encode(errors="replace")


def leave_interrupts_to_the_kernel() -> None:
    """A call that is interrupted (Ctrl-C) is one that was killed: its DEL takes away what it made.

    Python would raise an exception anywhere, in a container's network namespace too, and undo things there.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def lost_engine(stdin: bytes) -> Answer:
    """The engine went away after it had the request: whether it did anything is not known.

    Nothing is run twice behind the runtime's back; derived names make its DEL and its retry safe.
    """
    return _failed(CniError(TRY_AGAIN, "the cni-v6 engine ended before it answered", "run the command again"), stdin)


def silent_engine(stdin: bytes, path: bytes, seconds: int) -> Answer:
    """The engine has the request and does not answer: it is stopped, or it hangs.

    The same holds: what it does with the request later, it undoes, since nobody confirms the answer.

    :param path: its socket's.
    """
    from cni_v6.engine import suspect

    words = f"the cni-v6 engine has not answered for {seconds} seconds"
    return _failed(CniError(TRY_AGAIN, words, f"{suspect.advice(path)}; then run the command again"), stdin)


def for_courier(arguments: list[str], stdin: bytes) -> Answer | None:
    """What the courier (``courier/courier.c``) has to say of an engine that took its request and did not answer; None
    where these arguments are not its own."""
    match arguments:
        case ["--lost", _, _]:
            return lost_engine(stdin)
        case ["--silent", path, seconds]:
            return silent_engine(stdin, os.fsencode(path), int(seconds))
    return None


def _failed(error: CniError, stdin: bytes) -> Answer:
    answer = json.dumps(invocation.error_reply(error, invocation.version_of(stdin))).encode()
    return 1, answer + b"\n", f"cni-v6: error {error.code}: {error}\n".encode()
