"""The network configurations in a runtime's folder, in the order in which it reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cni_v6.attachments import load_config
from cni_v6.attachments.context import Context
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import MainConf
from cni_v6.ctl import runtime_folders
from cni_v6.ctl.plan import configurations
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.plugins.registry import PLUGINS
from cni_v6.protocol import invocation
from cni_v6.protocol.invocation import Invocation, Request

CONF_DIR = Path(runtime_folders.CONF_DIR)
SUFFIXES = (".conf", ".conflist", ".json")


def files(folder: Path) -> list[Path]:
    """The configuration files, sorted by name as libcni sorts them.

    :raises CniError: INVALID_CONFIG if the folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    except OSError as error:
        raise CniError(INVALID_CONFIG, f"cannot read --conf-dir {folder}", str(error)) from error


def ours(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The configurations of our plugins. Files of other plugins and damaged ones are left out."""
    for path in files(folder):
        with suppress(CniError):
            yield from [(path, config) for config in configurations(path)]


def call(config: dict[str, Any], command: str = "ADD") -> Invocation:
    """A call with a configuration, of a container that does not exist."""
    environment = {"CNI_COMMAND": command, "CNI_PATH": "/opt/cni/bin"}
    if command == "ADD":
        environment |= {"CNI_CONTAINERID": "example", "CNI_NETNS": "/run/netns/example", "CNI_IFNAME": "eth0"}
    return invocation.parse(Request(str(config["type"]), environment, json.dumps(config).encode()))


def checked(config: dict[str, Any], context: Context, said: list[str] | None = None) -> IpamConf | MainConf:
    """A configuration of ours, read as for an ADD.

    :param said: is given the warnings that the ADD would log.
    :raises CniError: as an ADD's.
    """
    made = call(config)
    main = PLUGINS[config["type"]].main
    conf: IpamConf | MainConf = main.load(made, context) if main else load_config.ipam(made, context)
    if said is not None:
        said += (words for _, mark, words in (line.partition(" warning: ") for line in made.log.lines) if mark)
    return conf


def ipam(config: dict[str, Any], context: Context) -> IpamConf | None:
    """The address configuration, read as for an ADD; None if another IPAM plugin, or none, allocates addresses.

    :raises CniError: as an ADD's.
    """
    conf = checked(config, context)
    found = conf if isinstance(conf, IpamConf) else conf.ipam
    return found if isinstance(found, IpamConf) else None
