"""The words that come from outside and become file names, interface names and owners: which are fit for that.

Source: libcni's ``pkg/utils`` for what runtimes check too, the kernel for what it makes of a name.
"""

from __future__ import annotations

import re

from cni_v6.errors import INVALID_CONFIG, INVALID_ENVIRONMENT, CniError
from cni_v6.protocol.json_reader import shown
from cni_v6.protocol.names import IFALIASZ, IFNAMSIZ, Owner, alias

# No slash and no leading dot: a container id or a network name cannot lead out of the store's folder.
_WORD = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*", re.ASCII)
_WORD_RULE = "it must start with a letter or digit and go on with letters, digits, '_', '.' and '-'"

# "/" and ":" and white space as in dev_valid_name (net/core/dev.c), for which the byte 0xa0 is white space too
# (lib/ctype.c). "%" the kernel takes for a pattern and fills in, so the interface would get another name.
_NOT_IN_INTERFACE = re.compile(rb"[/:%\x00\s\xa0]")
# Directories for all interfaces in /proc/sys/net; the kernel refuses both (sysctl_dev_name_is_allowed, net/ip.h).
_RESERVED = (".", "..", "all", "default")


def check_container_id(text: str) -> str:
    """CNI_CONTAINERID as it is, where it can be one.

    :raises CniError: INVALID_ENVIRONMENT.
    """
    if not _WORD.fullmatch(text):
        raise CniError(INVALID_ENVIRONMENT, f"CNI_CONTAINERID {shown(text)} is not a container id", _WORD_RULE)
    return text


def check_interface(text: str) -> str:
    """CNI_IFNAME as it is, where the kernel would give an interface exactly this name.

    :raises CniError: INVALID_ENVIRONMENT.
    """
    problem = _interface_problem(text)
    if problem:
        raise CniError(INVALID_ENVIRONMENT, f"CNI_IFNAME {shown(text)} cannot be an interface's name", problem)
    return text


def check_network(name: object) -> str:
    """The configuration's ``name``, where it can be a folder's.

    :raises CniError: INVALID_CONFIG.
    """
    if not name:
        raise CniError(INVALID_CONFIG, "name is missing or empty", "give the network a name")
    if not isinstance(name, str) or not _WORD.fullmatch(name):
        raise CniError(INVALID_CONFIG, f"name {shown(name)} is not a network name", _WORD_RULE)
    if len(alias(Owner(name, "", ""))) > IFALIASZ:
        raise CniError(INVALID_CONFIG, f"name {shown(name)} is too long", _limit(Owner(name, "", "")))
    return name


def check_owner(owner: Owner) -> Owner:
    """The owner as it is, where its alias fits the kernel and its file name the store.

    The alias is the narrower of the two: 255 bytes, as for a file name, but it holds the network's name as well.

    :raises CniError: INVALID_ENVIRONMENT, or INVALID_CONFIG where the network's name is the longer one.
    """
    if len(alias(owner).encode()) <= IFALIASZ:
        return owner
    if len(owner.network) > len(owner.container_id):
        words = f"name {shown(owner.network)} is too long beside CNI_CONTAINERID {shown(owner.container_id)}"
        raise CniError(INVALID_CONFIG, words, _limit(owner))
    raise CniError(INVALID_ENVIRONMENT, f"CNI_CONTAINERID {shown(owner.container_id)} is too long", _limit(owner))


def _interface_problem(text: str) -> str:
    try:
        name = text.encode()
    except UnicodeEncodeError:
        return "it is not UTF-8"
    if len(name) > IFNAMSIZ:
        return f"it has {len(name)} bytes, at most {IFNAMSIZ} are possible"
    if not name or text in _RESERVED:
        return "the kernel has no interface of that name"
    if _NOT_IN_INTERFACE.search(name) or any(character.isspace() for character in text):
        return "it must have no '/', ':', '%' or white space"
    return ""


def _limit(owner: Owner) -> str:
    size = len(alias(owner).encode())
    return f"'{alias(Owner('NAME', 'ID', 'IFNAME'))}' takes {size} bytes, the kernel's ifalias holds {IFALIASZ}"
