"""Bytes from outside -> a JSON object, or a CniError: nothing but plain, finite, encodable values comes through."""

from __future__ import annotations

import json
import math
from typing import Any

from cni_v6.errors import DECODING_FAILURE, CniError


def decode(data: bytes, what: str) -> dict[str, Any]:
    """The JSON object in ``data``. A key given twice: the last one counts, as with Go's encoding/json.

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
