"""``cni-v6ctl install`` and ``uninstall``: the plugins in the folders where this node's runtimes look for them."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from cni_v6 import __version__
from cni_v6.attachments import firewall_reload, stale
from cni_v6.attachments.context import Context
from cni_v6.ctl import engine, executables, places, put_files
from cni_v6.ctl.executables import Courier
from cni_v6.ctl.output import Output, choice, flag, listed, object_of, or_null, text, texts
from cni_v6.ctl.plan import configurations
from cni_v6.ctl.put_files import File, Step
from cni_v6.ctl.runtime_folders import BIN_DIR, CONF_DIR, Runtime, runtimes
from cni_v6.engine.handle import real_context
from cni_v6.errors import INVALID_CONFIG, NODE_CONFLICT, CniError
from cni_v6.kernel.netfilter.events import own_changes
from cni_v6.kernel.questions import GetLinks
from cni_v6.log import counted
from cni_v6.protocol.invocation import LOOPBACK
from cni_v6.protocol.json_reader import decode
from cni_v6.protocol.names import Owner, owned

PYTHON_DIR = "/usr/local/lib/cni-v6/bin"  # where the couriers of wheels look for the Python executables: tools/wheels
NAMED = 5  # containers, at most, in a message
LISTS, SINGLE = (".conflist",), (".conf", ".json")  # libcni, ConfFiles and LoadNetworkConf
DEL = "their DEL needs the plugins, which cni-v6ctl install brings back"
STAY = "to take them away once the containers are gone: nft delete table inet cni_v6; nft delete table bridge cni_v6"

_COMMON = {
    "files": listed(object_of({
        "path": text("of the file"), "action": choice("what was done", *put_files.ACTIONS),
    }), "in order"),
    "warnings": texts("what one should know"), "dryRun": flag("whether nothing was done"),
}
OUTPUTS = {
    "install": Output(object_of({
        "version": text("of cni-v6"), "plugins": choice("what the plugins are", "courier", "python"),
        "pythonDir": or_null(text("of the Python executables behind couriers; null for none")),
        "runtimes": listed(object_of({
            "name": text("of the runtime"), "source": text("the file that says it; empty for its default"),
            "binDirs": texts("where it looks for plugins"), "confDir": text("where it looks for configurations"),
        }), "that this node has"),
        **_COMMON,
    })),
    "uninstall": Output(object_of({"done": texts("besides the files"), **_COMMON})),
}


def register(commands: Any) -> None:
    parser = commands.add_parser("install", help="put the plugins into the folders where this node's runtimes look")
    _add_folders(parser)
    parser.add_argument("--conflist", type=Path, metavar="FILE", help="put this network configuration there too")
    parser.add_argument(
        "--courier-only", action="store_true", help="for a node without Python: nothing but couriers"
    )
    parser.add_argument("--force", action="store_true", help="replace files of others too")
    parser.set_defaults(run=install)
    parser = commands.add_parser("uninstall", help="take away what install put there, the engine and the tables")
    _add_folders(parser)
    parser.add_argument("--force", action="store_true", help="even if containers are attached, whose DEL then fails")
    parser.set_defaults(run=uninstall, root=True)


def _add_folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bin-dir", action="append", type=_folder, metavar="DIR",
        help="a folder of plugins (default: those of this node's runtimes; can be repeated)",
    )
    parser.add_argument(
        "--conf-dir", action="append", type=_folder, metavar="DIR", help="the same, of network configurations"
    )
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done, and do nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def _folder(text: str) -> str:
    if not text:  # of a shell's variable that is not set; it would be the working folder
        raise argparse.ArgumentTypeError("it names no folder")
    return os.path.abspath(text)


def install(
    chosen: argparse.Namespace, ask: Callable[[], list[Runtime]] = runtimes,
    get_courier: Callable[[], Courier | None] = executables.courier,
) -> int:
    found = [] if chosen.bin_dir and (chosen.conf_dir or not chosen.conflist) else ask()
    courier = get_courier()
    if chosen.courier_only and courier is None:
        words = f"this installation of cni-v6 carries no courier for {platform.machine()}"
        raise CniError(INVALID_CONFIG, words, "install the wheel for this processor, or run make install")
    files = list(_plugins(_bin_dirs(chosen, found), courier))
    if courier and not chosen.courier_only:
        files += [_python(courier.folder, name) for name in executables.PLUGIN_NAMES]
    if chosen.conflist:
        files += _conflist(chosen.conflist, _conf_dirs(chosen, found))
    steps = put_files.plan(files, force=chosen.force)
    if not chosen.dry_run:
        put_files.put(files, steps)
    exposed = [] if chosen.courier_only else executables.exposed()
    warnings = [f"root executes what others may change: {', '.join(exposed)}"] if exposed else []
    if chosen.json:
        document = _document(chosen, found, courier, steps)
        OUTPUTS["install"].show({**document, "warnings": warnings, "dryRun": chosen.dry_run})
    else:
        _tell(found, courier, chosen.courier_only)
        _tell_steps(steps, warnings, chosen.dry_run)
    return 0


def _bin_dirs(chosen: argparse.Namespace, found: Iterable[Runtime]) -> list[str]:
    """A folder for each runtime: the first that exists of those in which it looks."""
    if chosen.bin_dir:
        return list(dict.fromkeys(chosen.bin_dir))
    wanted = [next(filter(os.path.isdir, runtime.bin_dirs), runtime.bin_dirs[0]) for runtime in found]
    return list(dict.fromkeys(wanted)) or [BIN_DIR]


def _conf_dirs(chosen: argparse.Namespace, found: Iterable[Runtime]) -> list[str]:
    return list(dict.fromkeys(chosen.conf_dir or [runtime.conf_dir for runtime in found])) or [CONF_DIR]


def _plugins(folders: Iterable[str], courier: Courier | None) -> Iterator[File]:
    for folder in folders:
        for name in executables.PLUGIN_NAMES:
            if name == LOOPBACK and _is_others(f"{folder}/{name}"):
                continue  # runtimes call it for every container; any does
            if courier is None:
                yield _python(folder, name)
            elif folder == courier.folder:
                words = f"--bin-dir must not be {folder}: the courier would execute itself"
                raise CniError(INVALID_CONFIG, words, "the Python executables belong there")
            else:
                yield File(f"{folder}/{name}", courier.content, 0o755, executables.is_ours)


def _python(folder: str, name: str) -> File:
    return File(f"{folder}/{name}", executables.own_python(name), 0o755, executables.is_ours)


def _is_others(path: str) -> bool:
    return os.path.exists(path) and not executables.is_ours(put_files.read(path))


def _conflist(source: Path, folders: Iterable[str]) -> Iterator[File]:
    list(configurations(source))  # one that has nothing of ours is refused
    content = put_files.read(str(source))
    names = LISTS if "plugins" in decode(content, str(source)) else SINGLE
    if source.suffix not in names:
        words = f"no runtime reads this network configuration from a file called {source.name}"
        raise CniError(INVALID_CONFIG, words, f"its name must end in {' or '.join(names)}")
    for folder in folders:
        yield File(f"{folder}/{source.name}", content, 0o644, lambda _: False)


def _document(
    chosen: argparse.Namespace, found: Iterable[Runtime], courier: Courier | None, steps: Iterable[Step]
) -> dict[str, object]:
    return {
        "version": __version__,
        "plugins": "courier" if courier else "python",
        "pythonDir": courier.folder if courier and not chosen.courier_only else None,
        "runtimes": [
            {"name": runtime.name, "source": runtime.source, "binDirs": runtime.bin_dirs, "confDir": runtime.conf_dir}
            for runtime in found
        ],
        "files": _files(steps),
    }


def _files(steps: Iterable[Step]) -> list[dict[str, str]]:
    return [{"path": step.path, "action": step.action} for step in steps]


def _tell(found: Iterable[Runtime], courier: Courier | None, courier_only: bool) -> None:
    for runtime in found:
        source = f" ({runtime.source})" if runtime.source else ""
        print(f"{runtime.name} looks for plugins in {', '.join(runtime.bin_dirs)}{source}")
    if courier is None:
        print("the plugins are Python executables, without a courier: this installation carries none for this node")
    elif courier_only:
        print(f"the plugins are the courier {courier.version} for {platform.machine()}, without Python executables")
    else:
        behind = f"in front of the Python executables in {courier.folder}"
        print(f"the plugins are the courier {courier.version} for {platform.machine()}, {behind}")


def _tell_steps(steps: Iterable[Step], warnings: Iterable[str], dry: bool) -> None:
    for step in steps:
        print(f"{step.path}: {'would be ' if dry and step.action != put_files.UNCHANGED else ''}{step.action}")
    for words in warnings:
        print(f"cni-v6ctl: warning: {words}", file=sys.stderr)


def uninstall(
    chosen: argparse.Namespace, ask: Callable[[], list[Runtime]] = runtimes,
    make_node: Callable[[], Context] = real_context,
) -> int:
    found: list[Runtime] = []
    warnings: list[str] = []
    refusal = _needed(make_node)
    if refusal and not (chosen.force or chosen.dry_run):
        raise refusal
    warnings += [f"it would be refused: {refusal}"] if refusal and not chosen.force else []
    try:
        found = ask()
    except CniError as error:  # all else can be taken away all the same
        warnings.append(f"only the usual folders were looked at: {error}")
    folders = {*(folder for runtime in found for folder in (*runtime.bin_dirs, runtime.conf_dir)), BIN_DIR, CONF_DIR}
    folders |= {*(chosen.bin_dir or ()), *(chosen.conf_dir or ()), PYTHON_DIR}
    courier = executables.courier()
    if courier:
        folders.add(courier.folder)
    steps = put_files.remove(sorted(folders), dry=chosen.dry_run)
    done: list[str] = []
    if not chosen.dry_run:
        _leave(make_node, done, warnings, used=refusal is not None)
    if chosen.json:
        document = {"files": _files(steps), "done": done, "warnings": warnings, "dryRun": chosen.dry_run}
        OUTPUTS["uninstall"].show(document)
    else:
        _tell_steps(steps, warnings, chosen.dry_run)
        for words in done:
            print(words)
    return 0


def _needed(make_node: Callable[[], Context]) -> CniError | None:
    """Why the plugins must stay: containers that run are attached, by their records or by their host interfaces."""
    node = make_node()
    try:
        records = [record for _, record in places.peek(places.of_networks((), None, node, leased=True), node)]
        over = {record.owner for record, _ in stale.dead(records, node)}
        links = node.kernel.observe([GetLinks()]).links()
        owners = sorted({record.owner for record in records} - over | {owner for owner, _ in owned(links)})
    except CniError as error:
        return CniError(error.code, f"it is not known whether containers are attached: {error}", "or add --force")
    finally:
        node.kernel.close()
    if not owners:
        return None
    words = f"{counted(len(owners), 'container is', 'containers are')} attached: {_some(owners)}"
    return CniError(NODE_CONFLICT, words, "end them first: their DEL needs the plugins; or add --force")


def _some(owners: list[Owner]) -> str:
    named = ", ".join(map(str, owners[:NAMED]))
    return f"{named} and {len(owners) - NAMED} more, see cni-v6ctl list" if len(owners) > NAMED else named


def _leave(make_node: Callable[[], Context], done: list[str], warnings: list[str], *, used: bool) -> None:
    """End the engine, and remove the firewall's tables unless containers need them: these would be open to the world.

    :param used: whether any container that runs is attached.
    :param done: takes what was done; ``warnings`` what could not be done, and why.
    """
    try:
        done += ["the engine has ended"] if engine.end(engine.sockets()) else []
    except CniError as error:
        warnings.append(f"the engine goes on: {error}")
    own_changes()  # no engine is to load the tables again
    node = make_node()
    try:
        firewall_reload.unload(node, force=not used)
        done.append("no table of the firewall is loaded")
    except CniError as error:
        words = f"{error.msg}; {DEL}" if error.code == NODE_CONFLICT else str(error)
        warnings.append(f"the firewall's tables stay: {words}; {STAY}")
    finally:
        node.kernel.close()
