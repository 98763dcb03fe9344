"""A remark about a network configuration, and the rules that remarks come from. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

WARNING, ERROR = "warning", "error"
LEVELS = ("", WARNING, ERROR)  # the exit status of lint is the place of the worst

# Each rule, and why it matters.
RULES: Mapping[str, str] = {
    "refused": "every ADD of this network fails",
    "said": "an ADD says so in its log, and goes on",
    "not-json": "no runtime can read the file",
    "no-plugin": "the file attaches nobody to a network of cni-v6",
    "file-name": "runtimes read a file by the end of its name: .conflist has a list, .conf and .json one plugin",
    "version": "a result of 0.1.0 has one address a family and no interfaces, and only newer runtimes read cniVersions",
    "plugins": "a runtime refuses the whole list, before it calls a plugin",
    "written-twice": "the last one counts, and readers do not see which that is",
    "unreachable": "addresses of this kind are not routed beyond the site: containers reach nothing there, and no "
                   "answer comes back",
    "documentation-prefix": "no router of the world has a route to it (RFC 3849, RFC 5737)",
    "on-link": "the router looks for each address by a neighbour solicitation on that link, and nobody answers for "
               "the containers",
    "mtu": "the kernel takes IPv6 off an interface with a smaller MTU (RFC 8200, section 5)",
    "overlap": "the kernel takes the same prefix twice, and one of both is dead",
    "same-name": "both would share leases and records",
    "no-default-route": "containers reach their network and the node, and nothing beyond",
    "ingress": 'the default, "published", closes pods to the pods and kubelets of other nodes',
    "too-small": "a pod that finds no free address does not start",
    "capability": "the runtime writes what nobody reads",
    "no-ports": "the runtime asks nobody to publish ports, without an error",
    "ports-twice": "both publish the port, and one of them loses",
    "bandwidth-twice": "both shape the container: the packets wait twice",
    "mac": "the guard drops what a container says with another MAC than the one it was given",
}


@dataclass(frozen=True, slots=True)
class Remark:
    """``rule``: one of RULES. ``key``: the key that it is about, to find its line; "" for the whole file."""

    rule: str
    level: str
    message: str
    remedy: str
    key: str = ""

    @property
    def why(self) -> str:
        return RULES[self.rule]


def worst(remarks: Iterable[Remark]) -> int:
    """The exit status: 0 without remarks, 1 with warnings, 2 with errors."""
    return max((LEVELS.index(remark.level) for remark in remarks), default=0)


def line_of(text: str, key: str) -> int:
    """The first line that writes a key, counted from 1; 1 if none does. Of a path such as ``ipam.ranges[0]`` the last
    name counts that the text has."""
    names = [part.partition("[")[0] for part in key.split(".")]
    for name in reversed([name for name in names if name]):
        at = text.find(f'"{name}"')
        if at >= 0:
            return text.count("\n", 0, at) + 1
    return 1
