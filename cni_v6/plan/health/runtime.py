"""What the container runtimes of the node are told: configurations, and the folders of plugins. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cni_v6.plan.health.finding import AMBER, GREEN, RED, Finding
from cni_v6.protocol.invocation import BRIDGE, IPAM, MAIN

OURS = (*MAIN, IPAM)
USUAL = (BRIDGE, IPAM)  # which every installation has
LOOPBACK = "loopback"


@dataclass(frozen=True, slots=True)
class ConfFile:
    """A configuration file: the network's name, the plugin types in it (IPAM too); ``error``: why it cannot be read.

    ``problem``: why a plugin of ours refuses its configuration, and what to do.
    """

    name: str
    network: str = ""
    types: tuple[str, ...] = ()
    error: str = ""
    problem: tuple[str, str] = ("", "")

    @property
    def is_ours(self) -> bool:
        return any(kind in OURS for kind in self.types)


@dataclass(frozen=True, slots=True)
class Runtime:
    """A container runtime's folders: ``bin_dirs`` of plugins -> executables in it, None if there is no such folder.

    ``is_known``: its own configuration names them; else it stands for any that may look there.
    """

    name: str
    conf_dir: str
    bin_dirs: Mapping[str, frozenset[str] | None]
    files: tuple[ConfFile, ...]
    takes_first: bool = True  # the first file by name is the network of all pods: containerd, CRI-O
    is_known: bool = True

    @property
    def executables(self) -> frozenset[str]:
        return frozenset().union(*(found for found in self.bin_dirs.values() if found))


def findings(runtimes: Sequence[Runtime]) -> Iterator[Finding]:
    """All of them, green ones too."""
    used = [runtime for runtime in runtimes if any(file.is_ours for file in runtime.files)]
    for runtime in runtimes:
        if used and runtime not in used:  # such as Docker's containerd beside podman
            words = f"{runtime.conf_dir} has none of ours, and another runtime's folder has"
            yield Finding(GREEN, f"{runtime.name} configurations", words)
            continue
        for found, good in ((_files(runtime), "configurations"), (_folders(runtime), "plugins")):
            problems = list(found)
            yield from problems or [Finding(GREEN, f"{runtime.name} {good}", _good(runtime, good))]


def _good(runtime: Runtime, what: str) -> str:
    if what == "plugins":
        unknown = "" if runtime.is_known else "this node has no containerd, CRI-O, podman (CNI) or nerdctl; "
        return f"{unknown}all are in {' and '.join(runtime.bin_dirs)}"
    ours = [file.name for file in runtime.files if file.is_ours]
    return f"{runtime.conf_dir} has {', '.join(ours)}" if ours else f"{runtime.conf_dir} has none of ours"


def _files(runtime: Runtime) -> Iterator[Finding]:
    check = f"{runtime.name} configurations"
    where = runtime.conf_dir
    for file in runtime.files:
        if file.error:
            yield Finding(AMBER, check, f"{where}/{file.name} cannot be read: {file.error}",
                          "a runtime leaves it out, or fails", "mend it, or move it away")
        problem, remedy = file.problem
        if problem:
            yield Finding(RED, check, f"{where}/{file.name} is refused: {problem}", "every ADD of it fails", remedy)
    readable = [file for file in runtime.files if not file.error]
    first = next((file for file in readable if file.is_ours), None)
    if first is None and (runtime.takes_first or not runtime.is_known):
        yield Finding(AMBER, check, f"{where} has no configuration of ours",
                      f"{runtime.name if runtime.is_known else 'a runtime'} attaches its containers to another "
                      "network, or to none", f"cni-v6ctl init --output {where}/10-cni-v6.conflist writes a first one")
    if first and runtime.takes_first and readable[0] is not first:
        yield Finding(AMBER, check, f"{readable[0].name} comes before {first.name} in {where}",
                      f"{runtime.name} takes the first file by name, which is not ours",
                      f"rename one of them, such as 00-{first.name}")
    names: dict[str, str] = {}
    for file in readable:
        other = names.setdefault(file.network, file.name)
        if other != file.name and file.network:
            yield Finding(AMBER, check, f"{other} and {file.name} in {where} both name network {file.network}",
                          "two networks would share leases and records", "give one of them another name")


def _folders(runtime: Runtime) -> Iterator[Finding]:
    check = f"{runtime.name} plugins"
    folders = " or ".join(runtime.bin_dirs)
    there = runtime.executables
    for folder, found in runtime.bin_dirs.items():
        if found is None and runtime.is_known:
            yield Finding(AMBER, check, f"{folder} does not exist", f"{runtime.name} looks for plugins there",
                          f"cni-v6ctl install --bin-dir {folder}, or change the runtime's configuration")
    needed = {kind: file.name for file in reversed(runtime.files) for kind in file.types}
    needed |= {kind: "" for kind in USUAL if kind not in needed}
    for kind, name in sorted(needed.items()):
        if kind not in there:
            why = f"{runtime.conf_dir}/{name} names it: every ADD of it fails" if name else "an ADD needs it"
            remedy = ("cni-v6ctl install" if kind in OURS else f"install plugin {kind} there, or take it out of {name}")
            yield Finding(RED, check, f"{kind} is not in {folders}", why, remedy)
    if runtime.takes_first and LOOPBACK not in there and LOOPBACK not in needed:
        yield Finding(AMBER, check, f"{LOOPBACK} is not in {folders}", f"{runtime.name} calls it for every pod",
                      "cni-v6ctl install brings one; or install the reference plugins there")
