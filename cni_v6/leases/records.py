"""The contents of lease files and records, and the errors that both stores raise. Pure.

A lease file has the format of the reference plugin: ``containerID CRLF ifname``, before its version 0.8 the container
id alone. A record is JSON of our own. Everything read from a file is validated here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from cni_v6.errors import ADDRESS_UNAVAILABLE, ALREADY_ATTACHED, INTERNAL, STORE_FAILED, CniError
from cni_v6.config.main import Bandwidth
from cni_v6.leases import policy_record, port_record
from cni_v6.leases.attachment import Attachment, GatewayAddress, ProxyEntry
from cni_v6.net.addresses import BITS, from_text, to_text
from cni_v6.protocol.json_reader import canonical_prefix
from cni_v6.protocol.names import Owner

CRLF = "\r\n"
NAME_MAX = 255  # linux/limits.h
UNREADABLE = b"\0"  # the content reported for anything but a regular file: it names no holder, so nobody frees it
_ANCHORS = {"": (False, False), "on-link": (True, False), "unreachable": (False, True)}
ANY_IFNAME = ""  # the interface of a lease file that names the container alone; no interface has an empty name


def safe(word: str) -> bool:
    """Whether a word can be a file name, or a part of one, and a line of a lease file."""
    return word not in ("", ".", "..") and "/" not in word and word.isprintable() and " " not in word


def is_safe_owner(container_id: str, ifname: str) -> bool:
    """Whether a container id and an interface can own something: both are safe, and show on a screen as they are."""
    return safe(container_id) and (ifname == ANY_IFNAME or safe(ifname))


def require_safe(what: str, word: str) -> None:
    """Reject a word that could lead out of the store's folder. The protocol has checked it before; this is a second
    check.

    :raises CniError: STORE_FAILED.
    """
    if not safe(word):
        raise CniError(STORE_FAILED, f"{what} {word!r} cannot name a file of the lease store",
                       "use letters, digits, '_', '.' and '-'")


def require_owner(owner: Owner) -> None:
    """Reject an owner whose container id or interface name could lead out of the store's folder.

    :raises CniError: STORE_FAILED.
    """
    require_safe("container id", owner.container_id)
    if owner.ifname != ANY_IFNAME:
        require_safe("interface name", owner.ifname)


def canonical(text: str) -> str | None:
    """An address in canonical form, which is the name of its lease file; None if the text is not an address."""
    try:
        return to_text(*from_text(text))
    except ValueError:
        return None


def require_address(text: str) -> str:
    """An address in canonical form.

    :raises CniError: INTERNAL, because configuration and arguments were checked before.
    """
    address = canonical(text)
    if address is None:
        raise CniError(INTERNAL, f"{text!r} is not an address", "the lease store takes addresses without prefix length")
    return address


def lease_content(owner: Owner) -> bytes:
    """The content of an address's lease file."""
    return f"{owner.container_id}{CRLF}{owner.ifname}".encode()


def lease_owner(content: bytes) -> tuple[str, str] | None:
    """Container id and ifname of a lease file; ``ANY_IFNAME`` if it has no ifname; None if it has no valid owner.

    Blanks at both ends are ignored, as in the reference plugin.
    """
    try:
        words = content.decode().strip().split(CRLF)
    except UnicodeDecodeError:
        return None
    if len(words) > 2 or not all(safe(word) for word in words):
        return None
    return words[0], words[1] if len(words) == 2 else ANY_IFNAME


def lease_time(attachment: Attachment) -> int:
    """The mtime of an attachment's lease files, in nanoseconds. A file that others wrote again has another one."""
    return int(attachment.created * 1e9)


def prefix_name(prefix: str) -> str:
    """File name of a delegated prefix."""
    return prefix.replace("/", "_")


def prefix_content(owner: Owner) -> bytes:
    """The content of a delegated prefix's file.

    The reference plugin reads every file below its folder, and must not take this one for a lease.
    """
    return json.dumps([owner.container_id, owner.ifname]).encode() + b"\n"


def prefix_holder(content: bytes) -> str:
    """The holder of a delegated prefix as text for a message; "" if the file names none."""
    try:
        return " ".join(map(str, json.loads(content)))
    except (ValueError, TypeError, RecursionError):
        return ""


def around(address: str) -> Iterator[str]:
    """Every prefix that contains an IPv6 address, canonical; none for IPv4."""
    family, value = from_text(address)
    bits = BITS[6]
    for length in range(1, bits) if family == 6 else ():
        yield f"{to_text(6, value >> bits - length << bits - length)}/{length}"


def prefix_of(name: str, content: bytes, owner: Owner) -> str:
    """The delegated prefix of a file, if that names the owner; else ""."""
    prefix = name.replace("_", "/")
    ours = content == prefix_content(owner) and canonical_prefix(prefix, host_bits=False) == prefix
    return prefix if ours else ""


def is_lease_of(owner: Owner, content: bytes) -> bool:
    """Whether a lease file that an owner's record names still belongs to that owner.

    A file that names the container alone does (the reference plugin's rule). So does an empty file: a power failure
    lost its content, but not the record.
    """
    return not content or lease_owner(content) in (
        (owner.container_id, owner.ifname), (owner.container_id, ANY_IFNAME))


def lease_text(content: bytes) -> str:
    """The content of a lease file on one line, for a message; "" if it is not printable."""
    try:
        text = " ".join(content.decode().split())
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() else ""


def record_name(container_id: str, ifname: str) -> str:
    """File name of a record. A long container id is hashed: the file system has a limit, the specification has none."""
    name = f"{container_id}:{ifname}"
    if len(name.encode()) <= NAME_MAX:
        return name
    # A container id starts with a letter or digit (SPEC.md, section 2), so "~" makes the name unique.
    return f"~{hashlib.blake2s(container_id.encode()).hexdigest()}:{ifname}"


def record_owner(name: str) -> tuple[str, str] | None:
    """Container id and ifname in a record's file name; None if the name has a hash, or is not a record's."""
    container_id, colon, ifname = name.rpartition(":")
    return (container_id, ifname) if colon and name[0] not in ".~" else None


def attachment_name(owner: Owner) -> str:
    """How a list of valid attachments names an owner (``protocol.valid``)."""
    return f"{owner.container_id}:{owner.ifname}"


def encode(attachment: Attachment) -> bytes:
    """The content of a record's file."""
    return json.dumps({
        "containerID": attachment.owner.container_id,
        "ifname": attachment.owner.ifname,
        "addresses": attachment.addresses,
        "host": attachment.host,
        "netns": attachment.netns,
        "created": attachment.created,
        "boot": attachment.boot,
        **({"proxied": [[entry.uplink, entry.home, entry.address] for entry in attachment.proxied]}
           if attachment.proxied else {}),
        **({"prefixes": attachment.prefixes} if attachment.prefixes else {}),
        **({"home": attachment.home} if any(attachment.home) else {}),
        **({"anchors": [anchor_words(anchor) for anchor in attachment.anchors]} if attachment.anchors else {}),
        **({"reuse": attachment.reuse} if attachment.reuse else {}),
        **({"identity": attachment.identity} if attachment.identity else {}),
        **({"bandwidth": (*attachment.bandwidth.ingress, *attachment.bandwidth.egress)}
           if attachment.bandwidth else {}),
        **({"rules": port_record.rules_to_json(attachment.rules)} if attachment.rules else {}),
        **({"damaged": True} if attachment.damaged else {}),
        **({"port": port_record.to_json(attachment.port)} if attachment.port else {}),
        **({"firewall": policy_record.to_json(attachment.policy)} if attachment.policy else {}),
    }).encode() + b"\n"


@lru_cache(maxsize=1024)  # as many as a bridge has ports: STATUS reads all of them twice, DEL one
def decode(network: str, name: str, content: bytes) -> Attachment | None:
    """The record in a file; None if the content is damaged, is not ours, or does not match the file name."""
    try:
        raw = json.loads(content)
        attachment = _attachment(network, raw)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return attachment if record_name(attachment.owner.container_id, attachment.owner.ifname) == name else None


def is_nothing(record: Attachment) -> bool:
    """Whether a damaged record holds nothing that an earlier container could still use."""
    return record.damaged and record.policy is None and not (record.addresses or record.prefixes)


def already_attached(owner: Owner, held: tuple[str, ...]) -> CniError:
    """The error for a second ADD of an attachment: the specification forbids it, the reference plugin refuses it."""
    what = f"holds {', '.join(held)}" if held else "is recorded"
    return CniError(ALREADY_ATTACHED, f"{owner} {what} already", "run DEL for this container and interface first")


def unavailable(address: str, holder: str) -> CniError:
    """The error for an address that is taken.

    :param holder: as ``Transaction.holder`` returns it.
    """
    if holder:
        return CniError(ADDRESS_UNAVAILABLE, f"address {address} is taken: held by {holder}",
                        "ask for another address, or run DEL for its holder")
    return CniError(ADDRESS_UNAVAILABLE, f"address {address} is taken: its lease file names no holder",
                    "look at that file in the network's folder, and remove it if nobody uses the address")


def _attachment(network: str, raw: Any) -> Attachment:
    container_id, ifname = str(raw["containerID"]), str(raw["ifname"])
    addresses = tuple(str(address) for address in raw["addresses"])
    if not is_safe_owner(container_id, ifname):
        raise ValueError("owner")
    if any(canonical(address) != address for address in addresses):
        raise ValueError("addresses")
    host, boot = str(raw["host"]), str(raw["boot"])
    if not (host + boot).isprintable():
        raise ValueError("host or boot")
    # Records of older versions lack the keys below, except netns and created.
    policy = policy_record.from_json(raw["firewall"]) if "firewall" in raw else None
    proxied = tuple(_proxied(*map(str, entry)) for entry in raw.get("proxied", ()))
    prefixes = tuple(map(str, raw.get("prefixes", ())))
    if any(canonical_prefix(prefix, host_bits=False) != prefix for prefix in prefixes):
        raise ValueError("prefixes")
    home, reuse = raw.get("home", (0, 0)), tuple(map(str, raw.get("reuse", ())))
    return Attachment(Owner(network, container_id, ifname), addresses, host, _namespace(*raw["netns"]),
                      float(raw["created"]), boot, policy, proxied, prefixes, _namespace(*home),
                      tuple(read_anchor(*map(str, words)) for words in raw.get("anchors", ())), reuse,
                      str(raw.get("identity", "")),
                      port_record.from_json(raw["port"]) if "port" in raw else None,
                      raw.get("damaged", False) is True, _bandwidth(*raw["bandwidth"]) if "bandwidth" in raw else None,
                      port_record.rules_from_json(raw["rules"]) if "rules" in raw else None)


def anchor_words(anchor: GatewayAddress) -> list[str]:
    """A gateway address or route as JSON."""
    word = "on-link" if anchor.on_link else "unreachable" if anchor.unreachable else ""
    return [anchor.home, anchor.prefix, *([word] if word else [])]


def read_anchor(home: str, prefix: str, word: str = "") -> GatewayAddress:
    """A gateway address or route from JSON.

    :raises ValueError: ``anchor_words`` does not write these words.
    """
    if not safe(home) or canonical_prefix(prefix, host_bits=not word) != prefix or word not in _ANCHORS:
        raise ValueError("anchors")
    return GatewayAddress(home, prefix, *_ANCHORS[word])


def _namespace(device: object, inode: object) -> tuple[int, int]:
    return int(str(device)), int(str(inode))


def _bandwidth(*bits: object) -> Bandwidth:
    if not all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in bits):
        raise ValueError("bandwidth")
    rate, burst, sent, sent_burst = map(int, map(str, bits))
    return Bandwidth((rate, burst), (sent, sent_burst))


def _proxied(uplink: str, home: str, address: str) -> ProxyEntry:
    if not (safe(uplink) and safe(home)) or canonical(address) != address or ":" not in address:
        raise ValueError("proxied")
    return ProxyEntry(uplink, home, address)
