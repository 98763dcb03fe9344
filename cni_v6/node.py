"""The world a plugin works in, as one argument: kernel, leases, other plugins, files, clock.

``engine`` makes the real one; tests make it of the fakes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cni_v6.kernel import Kernel
from cni_v6.leases import Leases
from cni_v6.protocol import Invocation

# (invocation, plugin type, command) -> what the plugin printed, {} for a command that prints nothing.
Delegate = Callable[[Invocation, str, str], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Node:
    """``boot`` is /proc/sys/kernel/random/boot_id; ``id`` the machine id; ``now`` gives seconds since the epoch."""

    kernel: Kernel
    leases: Callable[[str, str], Leases]  # (network, data_dir)
    delegate: Delegate
    read_file: Callable[[str], str]
    boot: str
    id: str
    now: Callable[[], float]
