"""What BIRD answers on its control socket, and what of it the agent asks for.

Each line begins with a code of four digits and a hyphen, or with a space if it has the code of the line before. The
last line of an answer has a space after its code (``doc/reply_codes`` of BIRD's source).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

RECONFIGURED, IN_PROGRESS, QUEUED, CHECKED = 3, 4, 5, 20
PROTOCOL, DETAILS = 1002, 1006  # lines of ``show protocols all``
NO_PROTOCOLS = 8003  # that match
SHOWN = 300  # characters
OURS = "cni_v6_"  # how the names of our protocols begin
_LINE = re.compile("([0-9]{4})([ -])(.*)")
_TAG = re.compile("Description: +cni-v6 ([0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class Reply:
    """The lines of an answer, each with its code."""

    lines: tuple[tuple[int, str], ...]

    @property
    def code(self) -> int:
        """The last one: above 8000 for a failure."""
        return self.lines[-1][0]

    @property
    def words(self) -> str:
        """The last line, for a message: it may have text of a file, and so is made harmless."""
        return ascii(self.lines[-1][1].strip())[1:-1][:SHOWN]


@dataclass(frozen=True, slots=True)
class Running:
    """The protocols of a daemon that runs.

    ``tag``: that of the file which it has read; "" for none, and "?" if something of it is there, but no tag.
    ``kernels``: the tables whose routes it gives to the kernel.
    """

    tag: str = ""
    kernels: frozenset[str] = frozenset()
    bfd: bool = False


def read_reply(data: bytes) -> Reply | None:
    """The answer that some bytes are; None if its end has not come yet. Lines of no code are left out."""
    lines: list[tuple[int, str]] = []
    *whole, _ = data.decode("utf-8", "replace").split("\n")
    for line in whole:
        found = _LINE.fullmatch(line)
        if found:
            lines.append((int(found[1]), found[3]))
            if found[2] == " ":
                return Reply(tuple(lines))
        elif lines and line.startswith(" "):
            lines.append((lines[-1][0], line[1:]))
    return None


def read_protocols(reply: Reply) -> Running:
    """What ``show protocols all`` says."""
    tag, kernels, bfd, ours = "", set(), False, False
    for code, text in reply.lines:
        words = text.split()
        if code == PROTOCOL and len(words) >= 4:
            ours = words[0].startswith(OURS)
            tag = tag or ("?" if ours else "")
            kernels |= {words[2]} if words[1] == "Kernel" and words[3] == "up" else set()
            bfd = bfd or words[1] == "BFD"
        elif code == DETAILS and ours and (found := _TAG.search(text)):
            tag = found[1]
    return Running(tag, frozenset(kernels), bfd)
