"""What an operator may write for an address or a prefix."""

from __future__ import annotations

import pytest

from cni_v6 import errors
from cni_v6.ctl import places
from cni_v6.errors import CniError


@pytest.mark.parametrize("text, prefix", [
    ("10.86.0.2", "10.86.0.2/32"),
    ("::ffff:10.86.0.2", "10.86.0.2/32"),
    ("FD00::1/64", "fd00::1/64"),
    ("fd00::/0", "fd00::/0"),
    ("alpha", None),
    ("pods/alpha/eth0", None),
    ("10.86.0.2/alpha", None),
    ("10.86.0.2/", None),
])
def test_an_address_or_a_prefix(text: str, prefix: str | None) -> None:
    assert places.prefix_of(text) == prefix


@pytest.mark.parametrize("text, most", [("10.86.0.2/99", "IPv4 is 0 to 32"), ("fd00::1/129", "IPv6 is 0 to 128")])
def test_a_length_that_no_prefix_has(text: str, most: str) -> None:
    with pytest.raises(CniError, match=f"{text} is no prefix: the length of one of {most}") as caught:
        places.prefix_of(text)
    assert caught.value.code == errors.INVALID_CONFIG
