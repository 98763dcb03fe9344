"""Whether this process may change the network of the node: CAP_NET_ADMIN (capabilities(7)), not user id 0.

Root of a user namespace has it for the namespaces that it made (rootless containers). Root of a container that was
started without it does not have it.
"""

from __future__ import annotations

import errno
import os

from cni_v6.errors import NOT_PRIVILEGED, CniError

STATUS = "/proc/self/status"
CAP_NET_ADMIN = 12  # linux/capability.h
DENIED = (errno.EACCES, errno.EPERM)


def may_change_the_network() -> bool:
    """Whether CAP_NET_ADMIN is among the effective capabilities."""
    with open(STATUS, encoding="ascii", errors="replace") as file:
        return has_net_admin(file.read())


def has_net_admin(status: str) -> bool:
    """Whether a process has CAP_NET_ADMIN.

    :param status: the content of its /proc/<pid>/status.
    """
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> CAP_NET_ADMIN & 1)


def require(what: str) -> None:
    """Refuse a command in a process without CAP_NET_ADMIN, before anything else is checked.

    :param what: the command for the message, such as ``cni-v6 ADD``.
    :raises CniError: NOT_PRIVILEGED.
    """
    if may_change_the_network():
        return
    user = os.geteuid()
    remedy = "run it as root, or as root of a user namespace" if user else "give the container CAP_NET_ADMIN"
    raise CniError(NOT_PRIVILEGED, f"{what} needs root", f"user id {user} has no CAP_NET_ADMIN here; {remedy}")


def needs_root(error: OSError) -> str:
    """The start of a message about a file that cannot be used: "needs root: " if root could use it, else ""."""
    return "needs root: " if error.errno in DENIED and os.geteuid() else ""
