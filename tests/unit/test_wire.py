"""The framing between executables and the engine: what goes in comes out, and nothing else is taken for a message."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from cni_v6 import wire

FIELDS = st.lists(st.binary(max_size=40), max_size=6)


@given(FIELDS)
def test_what_goes_in_comes_out(fields: list[bytes]) -> None:
    message = wire.pack(*fields)
    assert wire.body_length(message[: wire.HEADER]) == len(message) - wire.HEADER
    assert wire.unpack(message[wire.HEADER :], len(fields)) == fields


@given(st.binary(max_size=60))
def test_anything_else_is_refused_or_read_without_harm(data: bytes) -> None:
    try:
        fields = wire.unpack(data, 2)
    except ValueError:
        return
    assert sum(4 + len(field) for field in fields) == len(data)


@pytest.mark.parametrize(
    "header",
    [b"", b"CNI6", b"CNI6\0\0\0", b"HTTP\0\0\0\1", b"CNI6" + (wire.LIMIT + 1).to_bytes(4, "big")],
)
def test_a_header_that_is_none(header: bytes) -> None:
    with pytest.raises(ValueError, match="not a message"):
        wire.body_length(header)


def test_fields_must_add_up() -> None:
    body = wire.pack(b"a", b"b")[wire.HEADER :]
    with pytest.raises(ValueError, match="2 fields, not 3"):
        wire.unpack(body, 3)
    with pytest.raises(ValueError, match="goes beyond"):
        wire.unpack(body[:-1], 2)


def test_an_environment_keeps_its_values() -> None:
    variables = {b"CNI_COMMAND": b"ADD", b"CNI_ARGS": b"IgnoreUnknown=1;IP=fd00::2", b"EMPTY": b"", b"RAW": b"\xff"}
    assert wire.unpack_environment(wire.pack_environment(variables)) == variables
    assert wire.unpack_environment(b"") == {}


@pytest.mark.parametrize("word", [wire.DONE, wire.HANDLE_LOCALLY])
def test_a_reply_is_read(word: bytes) -> None:
    body = wire.pack(word, b"255", b"out", b"err")[wire.HEADER :]
    assert wire.unpack_reply(body) == (word, 255, b"out", b"err")


@pytest.mark.parametrize(
    "fields",
    [
        (b"done", b"", b"", b""), (b"done", b"-1", b"", b""), (b"done", b"1_0", b"", b""), (b"done", b" 1", b"", b""),
        (b"done", b"256", b"", b""), (b"done", b"0000", b"", b""), (b"do", b"0", b"", b""), (b"done", b"0", b""),
    ],
)
def test_what_looks_like_a_reply_is_none(fields: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="not a reply|fields"):
        wire.unpack_reply(wire.pack(*fields)[wire.HEADER :])
