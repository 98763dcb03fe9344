"""Where attachments are on record: the data folders that were used since the node was started, and their networks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from cni_v6.attachments.context import Context
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.leases.attachment import Attachment
from cni_v6.net.addresses import BITS, from_text, host_prefix, to_text, version
from cni_v6.protocol.identifiers import check_network
from cni_v6.protocol.json_reader import canonical_prefix

Place = tuple[str, str]  # data folder, network


def of_networks(
    names: Iterable[str], data_dir: str | None, context: Context, *, leased: bool = False,
    without_records: Collection[str] = (),
) -> list[Place]:
    """The places of all wanted networks.

    :param names: of the networks; all of them if it is empty.
    :param data_dir: the only data folder to look in; None for all known ones.
    :param leased: include networks with leases of the reference plugin alone.
    :param without_records: networks that may be named though they have none.
    :raises CniError: INVALID_CONFIG for a network of which nothing is on record; STORE_FAILED.
    """
    wanted = {check_network(name) for name in names}
    folders = [data_dir] if data_dir else context.data_dirs.known()
    listed = context.data_dirs.networks if leased else context.data_dirs.recorded
    known = [(folder, network) for folder in folders for network in listed(folder)]
    unknown = wanted - {network for _, network in known} - {*without_records}
    if unknown:
        words = f"no attachment of network {', '.join(sorted(unknown))} is on record in {', '.join(folders)}"
        raise CniError(INVALID_CONFIG, words, "see cni-v6ctl list, and --data-dir")
    return [(folder, network) for folder, network in known if not wanted or network in wanted]


def peek(places: Iterable[Place], context: Context) -> Iterator[tuple[str, Attachment]]:
    """The attachments of some places, each with its data folder, in the order of their owners. Changes nothing."""
    for data_dir, network in places:
        found = context.leases(network, data_dir).peek()
        yield from ((data_dir, record) for record in sorted(found, key=lambda record: record.owner))


def address_of(text: str) -> str | None:
    """An address that an operator wrote, in canonical form; None for anything else.

    A program with a socket for both families shows IPv4 peers as ``::ffff:10.0.0.1`` (ipv6(7)): they are IPv4.
    """
    try:
        return to_text(*from_text(text))
    except ValueError:
        return None


def prefix_of(text: str) -> str | None:
    """An address or a prefix as a prefix; None for anything else.

    :raises CniError: INVALID_CONFIG for an address with a length that no prefix of its family has.
    """
    address = address_of(text)
    if address:
        return host_prefix(address)
    prefix = canonical_prefix(text, host_bits=True)
    ip, _, length = text.partition("/")
    if prefix is None and length.isdecimal() and (address := address_of(ip)):
        family = version(address)
        words = f"{text} is no prefix: the length of one of IPv{family} is 0 to {BITS[family]}"
        raise CniError(INVALID_CONFIG, words, f"ask for {address}, or for a prefix that has it")
    return prefix
