"""resolv.conf(5), read."""

from __future__ import annotations

import pytest

from cni_v6.config.resolv_conf import parse
from cni_v6.protocol.result import Dns

FILE = """\
# made by hand
; so it is
nameserver 2001:db8::53
nameserver\t192.0.2.53  # the old one
domain old.example

search old.example
search example.org  b.example
options ndots:5 timeout:1
  options edns0
domain example
lookup file bind
"""


def test_a_file() -> None:
    assert parse(FILE) == Dns(
        nameservers=("2001:db8::53", "192.0.2.53"),
        domain="example",
        search=("example.org", "b.example"),
        options=("ndots:5", "timeout:1", "edns0"),
    )


@pytest.mark.parametrize("text", ["", "\n\n", "nameserver\n", "domain\n", "#nameserver 2001:db8::53\n", "options\n"])
def test_nothing_to_say(text: str) -> None:
    assert parse(text) == Dns()


def test_bytes_that_are_no_text() -> None:
    """As ``text_file.read`` returns them: in a comment they are nobody's matter, in a value they are."""
    assert parse("# fa\udce7ade\nnameserver ::1\n; \udcff\nsortlist \udcff\n") == Dns(nameservers=("::1",))
    with pytest.raises(UnicodeEncodeError):
        parse("search fa\udce7ade.example\n")


def test_an_empty_search_list_takes_back_the_one_before() -> None:
    assert parse("search a.example\nsearch\n").search == ()
