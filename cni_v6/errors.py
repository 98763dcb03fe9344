"""Errors of the CNI specification: a code, a message and details.

Codes below 100 are the specification's (SPEC.md, section 5, "Error") or libcni's (``pkg/types``). The others are ours.
"""

from __future__ import annotations

from collections.abc import Callable

# The specification's, and libcni's
INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
DECODING_FAILURE = 6
INVALID_CONFIG = 7
INVALID_NETNS = 8  # libcni: CNI_NETNS is the plugin's own namespace
TRY_AGAIN = 11
NOT_AVAILABLE = 50  # STATUS: the plugin cannot serve ADD
LIMITED = 51  # STATUS: the plugin cannot serve ADD, and existing containers may lose connectivity

# Ours
KERNEL_REFUSED = 100
ADDRESSES_EXHAUSTED = 101
ADDRESS_UNAVAILABLE = 102
STORE_FAILED = 103
CHECK_FAILED = 104
NODE_CONFLICT = 105
DELEGATE_FAILED = 106
ALREADY_ATTACHED = 107
PORTS_EXHAUSTED = 108
IPV6_DISABLED = 109
PORT_TAKEN = 110
FIREWALL_MISSING = 111
NOT_PRIVILEGED = 112
INTERNAL = 199


class CniError(Exception):
    """A failure the caller can act on.

    :param code: one of the codes above.
    :param msg: a sentence that names the key, value or object.
    :param details: the remedy, or the message of the system.
    """

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg
        self.details = details

    def __str__(self) -> str:
        return f"{self.msg}: {self.details}" if self.details else self.msg


class Errors:
    """Collects the errors of a teardown, so that every step runs and all errors are reported together."""

    def __init__(self) -> None:
        self.caught: list[CniError] = []

    def run(self, step: Callable[[], object]) -> None:
        """Run a step and keep its CniError. Any other exception is a bug and is not caught."""
        try:
            step()
        except CniError as error:
            self.caught.append(error)

    def check(self) -> None:
        """Raise the errors kept so far: a single one as it is, several as one error with the code of the first."""
        if not self.caught:
            return
        if len(self.caught) == 1:
            raise self.caught[0]
        first = self.caught[0]
        raise CniError(first.code, f"{len(self.caught)} steps failed", "; ".join(str(error) for error in self.caught))
