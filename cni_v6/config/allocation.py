"""How addresses are handed out, from ``ipam.allocation``, ``reuse``, ``reuseAfter`` and ``secretFile``."""

from __future__ import annotations

from cni_v6.allocation.policy import NEVER, STABLE, AllocationPolicy
from cni_v6.config.reader import Section, show, wrong
from cni_v6.config.text import seconds
from cni_v6.errors import IO_FAILURE, CniError

SECRET_BYTES = 16  # at least: 128 bits, as many as a stable address can hide at most (RFC 7217, section 5)


def read(ipam: Section) -> AllocationPolicy:
    """
    :raises CniError: INVALID_CONFIG for keys that contradict each other.
    """
    order, reuse, secret = ipam.text("allocation"), ipam.text("reuse"), ipam.text("secretFile")
    if secret and order != STABLE:
        raise wrong(
            ipam.at("secretFile"), secret, f"has no effect: {ipam.at('allocation')} is {show(order)}",
            'set allocation to "stable", or remove it',
        )
    if reuse == NEVER and order == STABLE:
        raise wrong(
            ipam.at("reuse"), reuse, f"contradicts {ipam.at('allocation')}: {show(order)}, which gives a workload its "
            "address again", 'remove reuse, or set allocation to "sequential" or "random"',
        )
    if reuse == NEVER and "reuseAfter" in ipam.given:
        raise wrong(
            ipam.at("reuseAfter"), ipam.text("reuseAfter"), f"has no effect: {ipam.at('reuse')} is {show(reuse)}",
            "remove one of them",
        )
    return AllocationPolicy(order, reuse, float(seconds(ipam.text("reuseAfter"))))


def secret(path: str, content: str) -> bytes:
    """The secret a file holds, the white space around it aside, which editors and ``echo`` add.

    :raises CniError: IO_FAILURE for one that can be guessed, without a word of it.
    :raises UnicodeEncodeError: for one that is not UTF-8.
    """
    found = content.strip().encode()
    if len(found) < SECRET_BYTES:
        words = f"ipam.secretFile {path} has {len(found)} bytes, fewer than {SECRET_BYTES}"
        raise CniError(IO_FAILURE, words, f"write a random one: head -c 32 /dev/urandom | base64 >{path}")
    return found
