"""The output of the plugins' executables for a person: ``--version``, ``--help``, unknown arguments."""

from __future__ import annotations

from collections.abc import Sequence

from cni_v6 import __version__
from cni_v6.protocol.versions import SUPPORTED_VERSIONS

PURPOSE = {
    "cni-v6": "connects containers to a bridge, with IPv6 and IPv4 addresses",
    "cni-v6-routed": "routes containers one by one, without a bridge, with IPv6 and IPv4 addresses",
    "cni-v6-macvlan": "connects containers to an interface of the node, with IPv6 and IPv4 addresses",
    "cni-v6-ipvlan": "connects containers to an interface of the node, with its MAC",
    "cni-v6-vlan": "connects containers to a VLAN on an interface of the node",
    "cni-v6-ipam": "manages the IPv6 and IPv4 addresses of containers",
    "loopback": "brings up the loopback interface of containers",
}


def answer(plugin: str, arguments: Sequence[str], *, called: bool) -> tuple[int, str, str] | None:
    """Answer a command line.

    :param arguments: without the program's name; empty if a person started the plugin at a terminal without any.
    :param called: whether CNI_COMMAND is set. The specification has no arguments, so a call ignores unknown ones.
    :returns: exit status, standard output and standard error; None if the call is to be handled.
    """
    if not arguments:
        return 0, "", help_text(plugin)
    if "--help" in arguments or "-h" in arguments:
        return 0, help_text(plugin), ""
    if "--version" in arguments:
        return 0, version(plugin), ""
    return None if called else (2, "", f"{plugin}: unknown argument {arguments[0]!r}; see {plugin} --help\n")


def version(plugin: str) -> str:
    """Two lines: the name with its version, and the versions of the CNI specification."""
    return f"{plugin} {__version__}\nCNI versions: {', '.join(SUPPORTED_VERSIONS)}\n"


def help_text(plugin: str) -> str:
    """The help text: purpose, callers, usage, documentation."""
    return f"""{version(plugin)}
{plugin} is a CNI plugin: it {PURPOSE[plugin]}.

A container runtime calls it. The environment has the command and its parameters (CNI_COMMAND, CNI_CONTAINERID,
CNI_NETNS, CNI_IFNAME, CNI_ARGS, CNI_PATH), standard input has the network configuration. The result is JSON on
standard output.

  cnitool add NETWORK NETNS   calls the plugins of a network for a network namespace, as a runtime does
  cni-v6ctl plan FILE         shows what an ADD with a network configuration would do, and does nothing
  {plugin} --version
  {plugin} --help

Documentation: docs/ in the source tree, share/doc/cni-v6 below the prefix of "make install".
"""
