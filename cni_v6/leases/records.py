"""The texts of the lease store: what a lease file and an attachment's record hold, and the errors both stores raise.

Pure. A lease file is the reference plugin's (``containerID CRLF ifname``, before its 0.8 the container id alone); a
record is JSON of our own. Whatever comes from a file is checked here before anyone acts on it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from cni_v6.errors import ADDRESS_UNAVAILABLE, ALREADY_ATTACHED, INTERNAL, STORE_FAILED, CniError
from cni_v6.leases import policy_record
from cni_v6.leases.attachment import Attachment, GatewayAddress, ProxyEntry
from cni_v6.net.addresses import BITS, from_text, to_text
from cni_v6.protocol.json_reader import canonical_prefix
from cni_v6.protocol.names import Owner

CRLF = "\r\n"
NAME_MAX = 255  # linux/limits.h
UNREADABLE = b"\0"  # stands for the content of what is no plain file: names nobody, so nobody frees it
ANY_IFNAME = ""  # of a lease whose file names the container alone; no interface has an empty name


def safe(word: str) -> bool:
    """Whether a word can be a file's name, or a part of one, and stay on its own line in a lease file."""
    return word not in ("", ".", "..") and "/" not in word and word.isprintable() and " " not in word


def require_safe(what: str, word: str) -> None:
    """Refuse a word that could lead out of the store. The protocol has checked already; this is the last fence.

    :raises CniError: STORE_FAILED.
    """
    if not safe(word):
        raise CniError(STORE_FAILED, f"{what} {word!r} cannot name a file of the lease store",
                       "use letters, digits, '_', '.' and '-'")


def require_owner(owner: Owner) -> None:
    """Refuse an owner whose words could lead out of the store.

    :raises CniError: STORE_FAILED.
    """
    require_safe("container id", owner.container_id)
    if owner.ifname != ANY_IFNAME:
        require_safe("interface name", owner.ifname)


def canonical(text: str) -> str | None:
    """An address in the one spelling that names its lease file; None where the text is no address."""
    try:
        return to_text(*from_text(text))
    except ValueError:
        return None


def require_address(text: str) -> str:
    """The canonical spelling.

    :raises CniError: INTERNAL, since configuration and arguments were checked before.
    """
    address = canonical(text)
    if address is None:
        raise CniError(INTERNAL, f"{text!r} is not an address", "the lease store takes addresses without prefix length")
    return address


def lease_content(owner: Owner) -> bytes:
    """What the file of a leased address holds."""
    return f"{owner.container_id}{CRLF}{owner.ifname}".encode()


def lease_owner(content: bytes) -> tuple[str, str] | None:
    """Container id and ifname of a lease file; ``ANY_IFNAME`` where it names none; None where it names nobody.

    Blanks at both ends are ignored, as the reference plugin does.
    """
    try:
        words = content.decode().strip().split(CRLF)
    except UnicodeDecodeError:
        return None
    if len(words) > 2 or not all(safe(word) for word in words):
        return None
    return words[0], words[1] if len(words) == 2 else ANY_IFNAME


def lease_time(attachment: Attachment) -> int:
    """The mtime of an attachment's lease files, in nanoseconds: tells ours from one that was written again since."""
    return int(attachment.created * 1e9)


def prefix_name(prefix: str) -> str:
    """File name of a delegated prefix."""
    return prefix.replace("/", "_")


def prefix_content(owner: Owner) -> bytes:
    """What the file of a delegated prefix holds: nothing that the reference plugin, which looks into every file below
    its folder, takes for a lease."""
    return json.dumps([owner.container_id, owner.ifname]).encode() + b"\n"


def prefix_holder(content: bytes) -> str:
    """Who has a delegated prefix, for people; "" where the file says nobody."""
    try:
        return " ".join(map(str, json.loads(content)))
    except (ValueError, TypeError, RecursionError):
        return ""


def around(address: str) -> Iterator[str]:
    """Every prefix that an IPv6 address may have been delegated with, canonical."""
    family, value = from_text(address)
    bits = BITS[6]
    for length in range(1, bits) if family == 6 else ():
        yield f"{to_text(6, value >> bits - length << bits - length)}/{length}"


def is_lease_of(owner: Owner, content: bytes) -> bool:
    """Whether a lease file that the owner's record names is the owner's still.

    One that names the container alone is (the reference plugin's rule), and one that is empty: its content was lost in
    a power failure, the record was not.
    """
    return not content or lease_owner(content) in (
        (owner.container_id, owner.ifname), (owner.container_id, ANY_IFNAME))


def lease_text(content: bytes) -> str:
    """What a lease file says, on one line, for people; "" where that is nothing readable."""
    try:
        text = " ".join(content.decode().split())
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() else ""


def record_name(container_id: str, ifname: str) -> str:
    """File name of a record. The specification sets no limit on a container id, the file system does."""
    name = f"{container_id}:{ifname}"
    if len(name.encode()) <= NAME_MAX:
        return name
    # "~" begins no container id (SPEC.md, section 2: alphanumeric), so no other record has this name.
    return f"~{hashlib.blake2s(container_id.encode()).hexdigest()}:{ifname}"


def record_owner(name: str) -> tuple[str, str] | None:
    """Container id and ifname that a record's file name says; None for one that holds a hash, and for other files."""
    container_id, colon, ifname = name.rpartition(":")
    return (container_id, ifname) if colon and name[0] not in ".~" else None


def encode(attachment: Attachment) -> bytes:
    """The record's file."""
    return json.dumps({
        "containerID": attachment.owner.container_id,
        "ifname": attachment.owner.ifname,
        "addresses": attachment.addresses,
        "host": attachment.host,
        "netns": attachment.netns,
        "created": attachment.created,
        "boot": attachment.boot,
        **({"proxied": [[each.uplink, each.home, each.address] for each in attachment.proxied]} if attachment.proxied
           else {}),
        **({"prefixes": attachment.prefixes} if attachment.prefixes else {}),
        **({"home": attachment.home} if any(attachment.home) else {}),
        **({"anchors": [anchor_words(each) for each in attachment.anchors]} if attachment.anchors else {}),
        **({"reuse": attachment.reuse} if attachment.reuse else {}),
        **({"identity": attachment.identity} if attachment.identity else {}),
        **({"firewall": policy_record.to_json(attachment.policy)} if attachment.policy else {}),
    }).encode() + b"\n"


def decode(network: str, name: str, content: bytes) -> Attachment | None:
    """A record read back; None where the file is not whole, not ours, or not under its own name."""
    try:
        raw = json.loads(content)
        attachment = _attachment(network, raw)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return attachment if record_name(attachment.owner.container_id, attachment.owner.ifname) == name else None


def already_attached(owner: Owner, held: tuple[str, ...]) -> CniError:
    """A second ADD of the same attachment: the specification forbids it, and the reference plugin refuses it."""
    what = f"holds {', '.join(held)}" if held else "is recorded"
    return CniError(ALREADY_ATTACHED, f"{owner} {what} already", "run DEL for this container and interface first")


def unavailable(address: str, holder: str) -> CniError:
    """An address that somebody else has. ``holder`` as ``Transaction.holder`` answers."""
    if holder:
        return CniError(ADDRESS_UNAVAILABLE, f"address {address} is taken: held by {holder}",
                        "ask for another address, or run DEL for its holder")
    return CniError(ADDRESS_UNAVAILABLE, f"address {address} is taken: its lease file names no holder",
                    "look at that file in the network's folder, and remove it if nobody uses the address")


def _attachment(network: str, raw: Any) -> Attachment:
    container_id, ifname = str(raw["containerID"]), str(raw["ifname"])
    addresses = tuple(str(address) for address in raw["addresses"])
    if not safe(container_id) or not (ifname == ANY_IFNAME or safe(ifname)):
        raise ValueError("owner")
    if any(canonical(address) != address for address in addresses):
        raise ValueError("addresses")
    host, boot = str(raw["host"]), str(raw["boot"])
    if not (host + boot).isprintable():
        raise ValueError("host or boot")
    # None of an older version's either.
    policy = policy_record.from_json(raw["firewall"]) if "firewall" in raw else None
    proxied = tuple(_proxied(*map(str, each)) for each in raw.get("proxied", ()))  # nor this
    prefixes = tuple(map(str, raw.get("prefixes", ())))
    if any(canonical_prefix(prefix, host_bits=False) != prefix for prefix in prefixes):
        raise ValueError("prefixes")
    home, reuse = raw.get("home", (0, 0)), tuple(map(str, raw.get("reuse", ())))
    return Attachment(Owner(network, container_id, ifname), addresses, host, _namespace(*raw["netns"]),
                      float(raw["created"]), boot, policy, proxied, prefixes, _namespace(*home),
                      tuple(read_anchor(*map(str, each)) for each in raw.get("anchors", ())), reuse,
                      str(raw.get("identity", "")))


def anchor_words(anchor: GatewayAddress) -> list[str]:
    """An anchor in JSON."""
    return [anchor.home, anchor.prefix, *(["on-link"] if anchor.on_link else [])]


def read_anchor(home: str, prefix: str, *on_link: str) -> GatewayAddress:
    """An anchor back from JSON.

    :raises ValueError: for anything else.
    """
    if not safe(home) or canonical_prefix(prefix, host_bits=not on_link) != prefix or on_link not in ((), ("on-link",)):
        raise ValueError("anchors")
    return GatewayAddress(home, prefix, bool(on_link))


def _namespace(device: object, inode: object) -> tuple[int, int]:
    return int(str(device)), int(str(inode))


def _proxied(uplink: str, home: str, address: str) -> ProxyEntry:
    if not (safe(uplink) and safe(home)) or canonical(address) != address or ":" not in address:
        raise ValueError("proxied")
    return ProxyEntry(uplink, home, address)
