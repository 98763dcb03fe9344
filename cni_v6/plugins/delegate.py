"""Any other ``ipam.type``: an executable in CNI_PATH, run as SPEC.md, section 4, says.

It gets the environment as it came but for the command, and the same configuration on stdin. One that
hangs is ended, and one whose caller has gone (``child``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from cni_v6.errors import DELEGATE_FAILED, CniError
from cni_v6.kernel import programs
from cni_v6.kernel.deadline import Patience
from cni_v6.protocol.invocation import Invocation


def find(name: str, path: str) -> str:
    """The executable's path.

    :param path: CNI_PATH, folders separated by colons.
    :raises CniError: DELEGATE_FAILED naming the folders.
    """
    found = programs.find(name, path.split(os.pathsep))
    if found:
        return found
    words = f"ipam.type: plugin {name} is not in CNI_PATH ({path})"
    raise CniError(DELEGATE_FAILED, words, 'install it there, or use "cni-v6-ipam"')


def run(call: Invocation, name: str, command: str, patience: Patience | None = None) -> Mapping[str, Any]:
    """Run the plugin with ``command``; what it printed, {} for nothing.

    :param patience: the call's; None for one that nobody limits.
    :raises CniError: the plugin's own error with its code, or DELEGATE_FAILED.
    """
    from cni_v6.kernel import child_process  # only where it is needed: the start-up path pays for every import

    executable = find(name, call.path)
    environment = {**call.env, "CNI_COMMAND": command}
    patience = patience or Patience()
    seconds = patience.limits.delegate
    try:
        done = child_process.run([executable], stdin=call.stdin, env=environment, patience=patience, seconds=seconds)
    except OSError as error:
        raise CniError(DELEGATE_FAILED, f"ipam.type: cannot run {executable}", str(error)) from error
    except child_process.Stopped as error:
        _log(call, name, error.logged)
        remedy = f"call it by hand, or see its log, for what {executable} waits for"
        raise CniError(DELEGATE_FAILED, f"{name} {command} {error}", remedy) from error
    _log(call, name, done.stderr)
    printed = _object(done.stdout)
    if done.status == 0 and printed is not None:
        return printed
    if printed and type(printed.get("code")) is int and printed["code"] > 0 and isinstance(printed.get("msg"), str):
        raise CniError(printed["code"], f"{name} {command}: {printed['msg']}", str(printed.get("details") or ""))
    words = f"{name} {command} failed with exit status {done.status} and no error object"
    raise CniError(DELEGATE_FAILED, words, done.stdout.decode(errors="replace")[:500])


def _log(call: Invocation, name: str, said: bytes) -> None:
    for line in said.decode(errors="replace").splitlines():
        call.log.info(f"{name}: {line}")


def _object(data: bytes) -> Mapping[str, Any] | None:
    """The JSON object printed, {} for nothing, None for anything else."""
    if not data.strip():
        return {}
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
