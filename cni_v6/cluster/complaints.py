"""What is in the agent's way, in words for the operator: each is said once, and then that all is well again."""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Complaints:
    """
    :param say: takes a line for the operator.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.last: tuple[str, ...] = ()  # as of the last step

    def tell(self, found: Iterable[str]) -> None:
        """Say what is new, and when all is well again."""
        now = tuple(dict.fromkeys(found))
        known = set(self.last)
        for words in now:
            if words not in known:
                self._say(words)
        if known and not now:
            self._say("all is well again")
        self.last = now
