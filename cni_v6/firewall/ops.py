"""What can be done to the firewall, as values; ``cni_v6.ops`` has them among all the others."""

from __future__ import annotations

from dataclasses import dataclass

from cni_v6.firewall.sets import Element


@dataclass(frozen=True, slots=True)
class AddElements:
    """Put elements into the sets of our tables, all or none; the same one there already is fine.

    CniError(PORT_TAKEN) where another attachment has published the port, FIREWALL_MISSING where the tables are gone.
    """

    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class RemoveElements:
    """Take elements out; absent is fine, and a map's entry with other data stays: it is another attachment's."""

    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class LoadRuleset:
    """Make both tables, in place of what they are now, with these elements in their sets; in one transaction."""

    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class UnloadRuleset:
    """Delete both tables; absent is fine."""


@dataclass(frozen=True, slots=True)
class FlushFlows:
    """Have the kernel forget UDP flows: of containers' addresses, and of published ports, (IP version, port) each.

    A flow's translation is decided with its first packet and kept while packets come: without this, one from before an
    ADD or DEL goes on to where nobody is. TCP ends by itself.
    """

    addresses: tuple[str, ...]
    ports: tuple[tuple[int, int], ...] = ()
