"""A proc file system of this process' own, for the sysctls of containers.

The kernel keeps one name for ``/proc/sys/net/ipv6`` for each network namespace in which somebody opened it, all of them
in one chain of its cache, which every later lookup passes (``proc_sys_compare``, fs/proc/proc_sysctl.c). The names stay
as long as the namespaces, so an ADD becomes slower with each container of the node. But each mount of proc has names of
its own (since Linux 5.8, fs/proc/root.c): a new mount begins with none, and the end of a mount takes its names along.
The mount is in no directory: nobody else sees it, and it ends with the process.
"""

from __future__ import annotations

import os
from contextlib import suppress

from cni_v6.kernel.detached_mount import mounted

USES = 64  # a lookup passes at most so many names; a new mount costs some 0.2 ms


class PrivateProc:
    """A mount of proc, renewed after each ``USES`` uses. Threads may share it."""

    def __init__(self) -> None:
        self._left = 0
        self._mount: Mount | None = None

    def mount(self) -> Mount | None:
        """The mount to use this time; None if the kernel or a security policy does not give us one."""
        if self._left <= 0:
            self._mount = None
            with suppress(OSError):  # tried again when it would be renewed
                self._mount = Mount()
            self._left = USES
        self._left -= 1
        return self._mount

    def close(self) -> None:
        """A later use would make a new mount."""
        self._left, self._mount = 0, None


class Mount:
    """``file``: a descriptor of its root. It is closed when nobody has this object any more."""

    def __init__(self) -> None:
        """:raises OSError: the kernel refuses it."""
        self.file = mounted("proc")

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)
