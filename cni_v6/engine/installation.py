"""Which installation of cni-v6 this process runs: its version, and its files as they were when it loaded them.

An engine must not go on with code that is no longer installed: a build of the same version may replace another.
"""

from __future__ import annotations

import os

import cni_v6


def changed(path: str = cni_v6.__file__) -> int | None:
    """When a file of the package was put there, in nanoseconds since the epoch; None while there is none.

    tools/install and pip put another file in its place, which is a change of the inode (st_ctime, inode(7)).
    """
    try:
        return os.stat(path).st_ctime_ns
    except OSError:
        return None


LOADED = changed()


def is_replaced() -> bool:
    """Whether other files are installed by now. While there are none, nobody else could handle a call."""
    return changed() not in (None, LOADED)


def serves(version: str) -> bool:
    """Whether this process is what a caller of a version has installed.

    A courier on a node without Python names no version: it has nothing but an engine.
    """
    return not version or version == cni_v6.__version__ and not is_replaced()
