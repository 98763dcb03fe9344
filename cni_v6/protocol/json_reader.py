"""Bytes from outside -> a JSON object, read key by key: every error names what is out of shape, and what it held.

Nothing but plain, finite, encodable values comes through. A key that is null counts as absent throughout, as with Go's
encoding/json, which most runtimes and plugins write with.
"""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from cni_v6.errors import DECODING_FAILURE, CniError

UINT32 = 0xFFFFFFFF
SHOWN = 80  # characters of a value in a message
KEPT, KEPT_BYTES = 64, 1 << 14  # configurations that an engine remembers; above that size it is a list or a mistake
LISTS, LIST_BYTES = 4, 1 << 20  # those with a list of valid attachments

_MAC_LENGTHS = range(1, 33)  # up to MAX_ADDR_LEN (linux/netdevice.h): an IPv4 tunnel has 4, InfiniBand 20


def decode(data: bytes, what: str) -> dict[str, Any]:
    """The JSON object in ``data``. A key given twice: the last one counts, as with Go's encoding/json
    (``repeated_key`` finds it).

    :param what: what is being read, for the message.
    :raises CniError: DECODING_FAILURE; ``details`` has the parser's words and the position.
    """
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite)
        if b"\\u" in data:
            _encodable(value)
    except UnicodeDecodeError as error:
        raise CniError(DECODING_FAILURE, f"{what} is not UTF-8", str(error)) from None
    except RecursionError:
        raise CniError(DECODING_FAILURE, f"{what} is nested too deeply", "it must have fewer levels") from None
    except ValueError as error:  # JSONDecodeError, and int() on thousands of digits
        raise CniError(DECODING_FAILURE, f"{what} is not JSON", str(error)) from None
    if not isinstance(value, dict):
        raise CniError(DECODING_FAILURE, f"{what} is not a JSON object", "it must start with '{'")
    return value


def decoded(stdin: bytes) -> Mapping[str, Any]:
    """A configuration, with a long list of valid attachments as of ``valid.with_set``. It is remembered by its bytes,
    since an engine reads it more than once, and most containers of a network have the same: nobody changes the object.

    :raises CniError: as ``json_reader.decode``.
    """
    if len(stdin) <= KEPT_BYTES:
        return _decoded_once(stdin)
    return (_list_once if len(stdin) <= LIST_BYTES and b'"cni.dev/' in stdin else _decoded)(stdin)


def _decoded(stdin: bytes) -> Mapping[str, Any]:
    return decode(stdin, "the configuration on stdin")


@lru_cache(LISTS)
def _list_once(stdin: bytes) -> Mapping[str, Any]:
    from cni_v6.protocol.valid import with_set

    return with_set(_decoded(stdin))


_decoded_once = lru_cache(KEPT)(_decoded)


def repeated_key(data: bytes) -> str | None:
    """The path of a key that an object of the document has twice; None for none.

    :param data: what ``decode`` takes.
    """
    return next(_repeated(json.loads(data, object_pairs_hook=_Pairs), ""), None)


class _Pairs(tuple[tuple[str, object], ...]):
    """An object as it was written: its keys and values in order."""


def _repeated(value: object, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _repeated(item, f"{path}[{index}]")
    elif isinstance(value, _Pairs):
        names: set[str] = set()
        for name, member in value:
            where = f"{path}.{name}" if path else name
            if name in names:
                yield where
            names.add(name)
            yield from _repeated(member, where)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON (RFC 8259, section 6)")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is out of range")
    return value


def _encodable(value: object) -> None:
    """Refuse half a surrogate pair: the first path or name made of it would fail far from here."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half of a UTF-16 surrogate pair (RFC 8259, section 8.2)") from None


def shown(value: object) -> str:
    """A value for a message: one line, of bounded length, whatever it is."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = ascii(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def canonical_ip(text: str) -> str | None:
    """An IPv4 or IPv6 address as inet_ntop writes it, like netaddr and iproute2; None where ``text`` is no address."""
    packed = _packed(text)
    return None if packed is None else _unpacked(packed)


def canonical_prefix(text: str, *, host_bits: bool) -> str | None:
    """``ip/prefixlen`` in canonical form, None where ``text`` is none.

    :param host_bits: keep the bits behind the prefix (an interface's address) or clear them (a route's destination).
    """
    ip, _, length = text.partition("/")
    packed = _packed(ip)
    if packed is None or not (length.isascii() and length.isdigit() and len(length) <= 3):
        return None
    spare = len(packed) * 8 - int(length)
    if spare < 0:
        return None
    if not host_bits:
        packed = (int.from_bytes(packed, "big") >> spare << spare).to_bytes(len(packed), "big")
    return f"{_unpacked(packed)}/{int(length)}"


class Fields:
    """One JSON object and where it stands: ``where`` is "" at the top, else like ``ips[0]``."""

    def __init__(self, raw: object, where: str = "") -> None:
        if not isinstance(raw, Mapping):
            raise CniError(DECODING_FAILURE, f"{where or 'the result'} is {shown(raw)}, not an object")
        self.raw: Mapping[str, Any] = raw
        self.where = where

    def path(self, key: str) -> str:
        """The key's full name, like ``ips[0].address``."""
        return f"{self.where}.{key}" if self.where else key

    def wrong(self, key: str, expected: str) -> CniError:
        """The error for a key whose value is not what was expected."""
        return CniError(DECODING_FAILURE, f"{self.path(key)} is {shown(self.raw.get(key))}, not {expected}")

    def text(self, key: str) -> str:
        """A string, "" where absent."""
        value = self.raw.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.wrong(key, "a string")
        return value

    def required(self, key: str) -> str:
        """A string that must be there and not empty."""
        value = self.text(key)
        if not value:
            raise CniError(DECODING_FAILURE, f"{self.path(key)} is missing or empty")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings, empty where absent."""
        value = self._list(key)
        if not all(isinstance(item, str) for item in value):
            raise CniError(DECODING_FAILURE, f"{self.path(key)} has something else than strings")
        return tuple(value)

    def number(self, key: str, most: int = UINT32) -> int | None:
        """An integer from 0 to ``most``, None where absent."""
        value = self.raw.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise self.wrong(key, f"an integer from 0 to {most}")
        return value

    def child(self, key: str) -> Fields | None:
        """An object, None where absent."""
        value = self.raw.get(key)
        return None if value is None else Fields(value, self.path(key))

    def children(self, key: str) -> tuple[Fields, ...]:
        """A list of objects, empty where absent."""
        return tuple(Fields(item, f"{self.path(key)}[{index}]") for index, item in enumerate(self._list(key)))

    def ip(self, key: str) -> str | None:
        """An address without prefix length, None where absent or "" (how Go's net.IP writes none)."""
        text = self.text(key)
        if not text:
            return None
        ip = canonical_ip(text)
        if ip is None:
            raise self.wrong(key, "an IPv4 or IPv6 address")
        return ip

    def prefix(self, key: str, *, host_bits: bool) -> str:
        """``ip/prefixlen``, which must be there; see ``canonical_prefix``."""
        prefix = canonical_prefix(self.required(key), host_bits=host_bits)
        if prefix is None:
            raise self.wrong(key, "an address with a prefix length")
        return prefix

    def mac(self, key: str) -> str:
        """A hardware address of any length and in any usual spelling, lower case with colons; "" where absent."""
        text = self.text(key)
        if not text:
            return ""
        try:
            octets = bytes.fromhex(text.translate(_MAC_SEPARATORS))
        except ValueError:
            raise self.wrong(key, "a hardware address") from None
        if len(octets) not in _MAC_LENGTHS:
            raise self.wrong(key, "a hardware address")
        return octets.hex(":")

    def _list(self, key: str) -> list[Any]:
        value = self.raw.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong(key, "a list")
        return value


_MAC_SEPARATORS = str.maketrans("", "", ":-.")


def _packed(text: str) -> bytes | None:
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):  # ValueError: a zero byte, or not encodable
        return None


def _unpacked(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET6 if len(packed) == 16 else socket.AF_INET, packed)
