"""The errors for a MAC or an address that another interface on the segment has.

``ops.ClaimMac`` says how MACs are kept apart on a bridge.
"""

from __future__ import annotations

from cni_v6.errors import ADDRESS_UNAVAILABLE, CniError
from cni_v6.kernel.facts import Link

OUR_ALIAS = "cni-v6 "


def taken(mac: str, holder: Link) -> CniError:
    """The error for a MAC that somebody else has.

    :param holder: the bridge, or the port of whoever has the MAC.
    """
    if holder.alias.startswith(OUR_ALIAS):
        words = holder.alias.removeprefix(OUR_ALIAS)
    else:
        words = f"bridge {holder.name}" if holder.kind == "bridge" else f"{holder.name} or whoever is behind it"
    remedy = "ask for another MAC, or run DEL for its holder"
    return CniError(ADDRESS_UNAVAILABLE, f"MAC {mac} is taken: held by {words}", remedy)


def duplicate(address: str, ifname: str, mac: str) -> CniError:
    """The error for an address that another node has.

    :param mac: of that node, "" if it is not known.
    """
    holder = f"the node with MAC {mac}" if mac else "another node"
    words = f"address {address.partition('/')[0]} of {ifname} is a duplicate: {holder} on the segment has it"
    return CniError(ADDRESS_UNAVAILABLE, words, "find that node, or leave the address out of the range (exclude)")
