"""The architecture, as assertions: which module may import what, and how large things may grow."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "cni_v6"

# Modules that touch the kernel, the disk, other processes or the clock; a name stands for its submodules too.
# Every other module is pure: it imports pure modules only, and of Python's library nothing that reaches outside.
IO = frozenset({
    "cluster.bird", "cluster.disk", "cluster.dropped", "cluster.echo", "cluster.etcd_store", "cluster.file_store",
    "cluster.files", "cluster.follow", "cluster.kubernetes_store", "cluster.lease_folder", "cluster.linux",
    "cluster.linux_asked", "cluster.linux_devices", "cluster.linux_wireguard", "cluster.news", "cluster.open_store",
    "cluster.other_store", "cluster.reporter", "cluster.serve", "cluster.tables", "ctl", "engine.call_log",
    "engine.delivery", "engine.engine_metrics", "engine.handle", "engine.in_order", "engine.incoming",
    "engine.inheritance", "engine.inprocess", "engine.installation", "engine.log_file", "engine.metrics",
    "engine.scrape", "engine.server", "engine.service", "engine.start", "engine.suspect", "engine.tracing",
    "engine.watch", "engine.workers", "kernel.all_links", "kernel.apply_firewall", "kernel.bridge_macs",
    "kernel.by_key", "kernel.child_link", "kernel.child_process", "kernel.deadline", "kernel.detached_mount",
    "kernel.drops", "kernel.inotify", "kernel.link_deletion", "kernel.linux", "kernel.listeners",
    "kernel.netfilter.events", "kernel.netfilter.socket", "kernel.netlink.socket", "kernel.netns.alive",
    "kernel.netns.enter", "kernel.netns.throwaway", "kernel.node_news", "kernel.observe", "kernel.open_namespaces",
    "kernel.private_proc", "kernel.privilege", "kernel.programs", "kernel.refusal", "kernel.return_rules",
    "kernel.second_route", "kernel.sysctl", "kernel.text_file", "kernel.wait", "kernel.whole_file",
    "leases.disk.allocation_files", "leases.disk.data_dirs", "leases.disk.directory", "leases.disk.known_records",
    "leases.disk.lease_files", "leases.disk.lock", "leases.disk.peek", "leases.disk.rebuild",
    "leases.disk.release_queue_file", "leases.disk.store", "leases.disk.transaction", "plugins.delegate", "shim",
})
HARMLESS = frozenset({
    "__future__", "abc", "base64", "binascii", "bisect", "collections", "contextlib", "dataclasses", "difflib", "enum",
    "errno", "fractions", "functools", "hashlib", "heapq", "hmac", "html", "ipaddress", "itertools", "json", "math",
    "operator", "re", "stat", "string", "struct", "textwrap", "types", "typing", "unicodedata",
})
# What is harmless in modules that are otherwise not: functions of bytes and text, locks.
HARMLESS_NAMES = {
    "posixpath": {"basename", "dirname", "isabs", "join", "normpath"},
    "socket": {"AF_INET", "AF_INET6", "inet_aton", "inet_ntoa", "inet_ntop", "inet_pton"},
    "threading": {"Condition", "Lock", "RLock"},
}
THIRD_PARTY = {  # library -> the modules that may import it; None: any
    "filelock": {"leases.disk.lock", "engine.server"},
    "httpx2": {"cluster.kubernetes_store"},
    "lightkube": {"cluster.kubernetes_store"},
    "netaddr": None,
    "opentelemetry": {"engine.tracing"},
    "pyroute2": {"ctl.doctor.kernel", "ctl.list", "ctl.node_facts", "kernel.netlink.pyroute2_messages"},
    "resvg_py": {"ctl.map.png"},
    "tomli": {"ctl.runtime_folders"},
    "yaml": {"cluster.kubernetes_store"},
}

MODULE_LINES = 300
LARGER = {  # module -> lines it may have all the same, where two modules would make two rooms of one idea
    "cluster.agent": 310,  # the whole of a step
    "config.main": 360,  # what every main plugin reads of its configuration
    "config.ipam": 320,  # every key of the ``ipam`` object
    "kernel.fake.ops": 375,  # the effect of every operation
    "kernel.linux": 370,  # order, batches, and what undoes them
    "kernel.observe": 370,  # the answer to every question
    "kernel.ops": 500,  # every operation that changes something
    "kernel.netlink.pyroute2_messages": 365,  # every other request
    "kernel.netlink.requests": 350,  # every request of a plain ADD and DEL
    "leases.memory": 310,  # every method of the store's protocol
    "leases.disk.directory": 340,  # every access to a file of the store
    "leases.disk.transaction": 335,  # the order in which files come and go
    "plugins.main": 385,  # the five commands of any main plugin, and what undoes them
}
FUNCTION_LINES = 55  # the longest
FUNCTION_LINES_P90 = 30


def module_name(path: Path) -> str:
    """Name below ``cni_v6``: ``kernel.netlink``, ``kernel`` for its ``__init__``, "" for the package's own."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imports(name: str) -> Iterator[tuple[str, str]]:
    """(module, name taken from it or "") of every import, wherever it stands."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"cni_v6/{name}: relative import; write the whole name"
            yield from ((node.module, alias.name) for alias in node.names)


def taken_from(name: str, module: str) -> set[str]:
    """What a module takes from a library module, by ``from module import it`` or as ``module.it``."""
    by_name = {taken for source, taken in imports(name) if source == module and taken}
    return by_name | {
        node.attr
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == module
    }


def own_imports(name: str) -> Iterator[str]:
    """Our modules that a module imports; ``from cni_v6.kernel import netns`` means ``kernel.netns``."""
    for module, taken in imports(name):
        if module.partition(".")[0] == "cni_v6":
            below = module.removeprefix("cni_v6").removeprefix(".")
            longer = f"{below}.{taken}".removeprefix(".")
            yield longer if longer in MODULES else below


# Who may import whom: a room imports only those above it. docs/design/README.md says what lives in each.
ROOMS = (
    "values", "errors", "log", "wire", "net", "protocol", "allocation", "firewall", "config", "kernel", "leases",
    "planning", "conversion", "plan", "attachments", "drawing", "plugins", "engine", "cluster", "ctl",
)
START = {"", "shim"}  # the executables' path: it imports ``wire``, and what stands behind it only when it needs that
NEVER = {
    "kernel": {"protocol", "allocation", "config"},  # it is told all by operations and questions
    "cluster": {"engine"},  # the two are programs of their own
}


def room(name: str) -> str:
    return name.partition(".")[0]


def test_every_module_is_in_a_room() -> None:
    assert {room(name) for name in MODULES} - START == set(ROOMS)


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name not in START))
def test_imports_lead_upward(name: str) -> None:
    own = room(name)
    below = set(ROOMS[ROOMS.index(own) + 1:]) | NEVER.get(own, set())
    assert {module for module in own_imports(name) if room(module) in below} == set()


def is_io(name: str) -> bool:
    return any(name == entry or name.startswith(entry + ".") for entry in IO)


PURE = sorted(name for name in MODULES if not is_io(name))


def test_the_list_of_io_modules_is_current() -> None:
    assert {entry for entry in IO if entry not in MODULES} == set()


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_imports_only_pure_modules(name: str) -> None:
    assert [module for module in own_imports(name) if is_io(module)] == []


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_reaches_nothing_outside(name: str) -> None:
    known = HARMLESS | THIRD_PARTY.keys() | {"cni_v6"}
    unknown = {module for module, _ in imports(name) if module.partition(".")[0] not in known}
    reaching = {module: taken_from(name, module) - HARMLESS_NAMES.get(module, set()) for module in unknown}
    reaching = {module: taken for module, taken in reaching.items() if taken or module not in HARMLESS_NAMES}
    assert reaching == {}, "inject it, or list the module in IO with the reason in its page of docs/design"


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_opens_and_prints_nothing(name: str) -> None:
    calls = (node.func for node in ast.walk(TREES[name]) if isinstance(node, ast.Call))
    called = {function.id for function in calls if isinstance(function, ast.Name)}
    own = {"exec"} if name == "values" else set()  # a value's ``__init__``, as Python's dataclasses make it
    assert called.isdisjoint({"open", "print", "input", "exec", "eval", "__import__"} - own)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_library_is_imported_where_it_belongs(name: str) -> None:
    for module, _ in imports(name):
        allowed = THIRD_PARTY.get(module.partition(".")[0])
        assert allowed is None or name in allowed, f"{module} belongs in {allowed}"


def test_the_package_itself_imports_nothing() -> None:
    assert list(imports("")) == [], "every executable pays for it at every start"


# What costs a call without an engine milliseconds (tools/imports) and is of use to few: imported where it is needed.
LATE = {
    "argparse", "asyncio", "ctypes", "filelock", "multiprocessing", "netaddr", "opentelemetry", "pyroute2",
    "subprocess", "tempfile",
}
IMPORTS = 230  # modules of ours and of Python's library, our packages (a line of text each) left out
PACKAGES = {f"cni_v6.{name}".removesuffix(".") for name, path in MODULES.items() if path.name == "__init__.py"}
PROGRAM = """
import sys
sys.path[:0] = {path!r}
import cni_v6.engine.inprocess, cni_v6.engine.handle
print(*sys.modules)
"""


def test_a_call_in_its_own_process_imports_little() -> None:
    path = [str(ROOT), sysconfig.get_path("purelib")]
    program = [sys.executable, "-ISE", "-c", PROGRAM.format(path=path)]
    imported = set(subprocess.run(program, capture_output=True, text=True, check=True).stdout.split()) - PACKAGES
    assert LATE.isdisjoint(imported)
    assert len(imported) <= IMPORTS, "every call on a node without an engine pays for them"


def test_modules_stay_small() -> None:
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: count for name, count in lines.items() if count > LARGER.get(name, MODULE_LINES)} == {}


def function_lines(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """(name, lines of its body without the docstring) of every function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            yield node.name, (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_functions_stay_short() -> None:
    lengths = {f"{name}.{function}": lines for name, tree in TREES.items() for function, lines in function_lines(tree)}
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES} == {}
    assert statistics.quantiles(lengths.values(), n=10)[-1] <= FUNCTION_LINES_P90


def loop_variables(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.For, ast.comprehension)):
            yield from ((name.id, name.lineno) for name in ast.walk(node.target) if isinstance(name, ast.Name))


@pytest.mark.parametrize("name", sorted(MODULES))
def test_loop_variables_say_what_they_hold(name: str) -> None:
    assert not [found for found in loop_variables(TREES[name]) if found[0] in ("each", "one", "it")]
