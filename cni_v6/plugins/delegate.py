"""Runs another IPAM plugin: any other ``ipam.type`` is an executable in CNI_PATH (SPEC.md, section 4).

The plugin gets our environment with CNI_COMMAND changed, and the same configuration on stdin. It is killed if it hangs
or if the caller has gone (``kernel/child_process``).
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
    """Run the plugin with ``command``; return the object that it printed, {} for nothing.

    :param patience: the time limits of the call; None for none.
    :raises CniError: the plugin's own error with its code, or DELEGATE_FAILED.
    """
    from cni_v6.kernel import child_process  # imported when needed: each import costs start-up time

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


def _log(call: Invocation, name: str, stderr: bytes) -> None:
    for line in stderr.decode(errors="replace").splitlines():
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
