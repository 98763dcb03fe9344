"""Finds an executable."""

from __future__ import annotations

import os
from collections.abc import Iterable


def find(name: str, folders: Iterable[str]) -> str | None:
    """The path of the executable with this name in the first folder that has it, or None. "" is not a folder."""
    for folder in folders:
        candidate = os.path.join(folder, name)
        if folder and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return None
