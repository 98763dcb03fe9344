"""What an engine does by itself, between calls: it has no caller to tell, so it says so in a file and on stderr."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

MOST_BYTES = 1 << 16  # of the file; then it begins anew
FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class EventLog:
    """
    :param path: of the file; None for stderr alone.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path

    def say(self, words: str) -> None:
        """One line. A file that cannot be written is no reason to fail."""
        print(f"cni-v6 engine: {words}", file=sys.stderr, flush=True)
        if self._path is None:
            return
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(words.split())}\n".encode(errors="replace")
        with suppress(OSError):
            file = os.open(self._path, FLAGS, 0o600)
            try:
                if os.fstat(file).st_size + len(line) > MOST_BYTES:
                    os.ftruncate(file, 0)
                os.write(file, line)
            finally:
                os.close(file)
