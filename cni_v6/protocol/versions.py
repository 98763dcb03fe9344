"""The specification's versions, and what each brought that changes what we do."""

from __future__ import annotations

SUPPORTED_VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
CURRENT = "1.1.0"
UNNAMED = "0.1.0"  # a configuration without cniVersion (libcni, pkg/types/create)

PER_FAMILY = ("0.1.0", "0.2.0")  # results are ip4 and ip6, an address each, and name no interfaces
WITH_FAMILY_KEY = ("0.3.0", "0.3.1", "0.4.0")  # each address says "version": "4" or "6"
DETAILED = ("1.1.0",)  # interfaces have mtu, socketPath, pciID; routes have mtu, advmss, priority, table, scope

SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}  # the first version that has the command


def allows(version: str, command: str) -> bool:
    """Whether a supported version has a command."""
    since = SINCE.get(command, SUPPORTED_VERSIONS[0])
    return SUPPORTED_VERSIONS.index(version) >= SUPPORTED_VERSIONS.index(since)
