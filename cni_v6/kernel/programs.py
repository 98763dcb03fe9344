"""Where an executable is."""

from __future__ import annotations

import os
from collections.abc import Iterable


def find(name: str, folders: Iterable[str]) -> str | None:
    """The path of an executable file in the first of some folders that has one; "" is no folder."""
    for folder in folders:
        candidate = os.path.join(folder, name)
        if folder and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return None
