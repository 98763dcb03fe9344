"""``resolvConf``: name service for the container, read from a file in resolv.conf(5) format."""

from __future__ import annotations

from cni_v6.protocol.result import Dns


_KEYS = ("nameserver", "domain", "search", "options")


def parse(text: str) -> Dns:
    """The last ``domain`` and ``search`` hold, as resolv.conf(5) says; ``nameserver`` and ``options`` add up.

    :param text: as ``kernel.text_file.read`` returns it; only a value has to be UTF-8, a comment may be anything.
    :raises UnicodeEncodeError: for a value that is not UTF-8.
    """
    nameservers: list[str] = []
    options: list[str] = []
    domain = ""
    search: tuple[str, ...] = ()
    for line in text.splitlines():
        key, *values = line.split() or [""]
        if key in _KEYS:
            line.encode()  # the result is JSON, which is UTF-8
        if key == "nameserver":
            nameservers += values[:1]
        elif key == "domain" and values:
            domain = values[0]
        elif key == "search":
            search = tuple(values)
        elif key == "options":
            options += values
    return Dns(tuple(nameservers), domain, search, tuple(options))
