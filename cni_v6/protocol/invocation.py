"""The CNI protocol's frame: environment and stdin become an Invocation, or a CniError.

Source: SPEC.md, sections 2 and 4, and libcni's ``pkg/skel`` and ``pkg/utils`` for what runtimes rely on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from cni_v6.errors import DECODING_FAILURE, INCOMPATIBLE_VERSION, INVALID_CONFIG, INVALID_ENVIRONMENT, CniError
from cni_v6.log import Log, Steps
from cni_v6.protocol.identifiers import check_container_id, check_interface, check_network, check_owner
from cni_v6.protocol.json_reader import decode, decoded, shown
from cni_v6.protocol.names import Owner
from cni_v6.protocol.result import Result, from_json
from cni_v6.protocol.versions import CURRENT, SINCE, SUPPORTED_VERSIONS as SUPPORTED_VERSIONS, UNNAMED, allows
from cni_v6.values import dataclass
from cni_v6.wire import stdin_bytes

BRIDGE = "cni-v6"
ROUTED = "cni-v6-routed"
MACVLAN = "cni-v6-macvlan"
IPVLAN = "cni-v6-ipvlan"
VLAN = "cni-v6-vlan"
CHILDREN = (MACVLAN, IPVLAN, VLAN)  # those whose containers have a child of one of the node's interfaces
MAIN = (BRIDGE, ROUTED, *CHILDREN)  # the main plugins: what they answer to an ADD is compared by CHECK
IPAM = "cni-v6-ipam"
LOOPBACK = "loopback"


@dataclass(frozen=True, slots=True)
class Request:
    """What an executable was started with. ``plugin`` is its CNI type, as in ``plugins.registry``."""

    plugin: str
    env: Mapping[str, str]
    stdin: bytes


@dataclass(frozen=True, slots=True)
class Args:
    """CNI_ARGS, parsed: ``ip`` and ``mac`` as given ("" where absent), the K8S_POD_* by their own names."""

    ip: str = ""
    mac: str = ""
    kubernetes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of a runtime, its frame checked; ``config`` is the network configuration as of
    ``json_reader.decoded``, ``version`` its.

    ``container_id``, ``netns`` and ``ifname`` are "" for the commands that have none (GC, STATUS, VERSION), ``netns``
    is "" too for a DEL whose namespace is gone. ``prev_result`` is None where the configuration brings none. ``valid``:
    for GC, what ``valid.valid_attachments`` returns.
    """

    plugin: str
    command: str
    version: str
    network: str
    config: Mapping[str, Any]
    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: Args = Args()
    path: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes = b""
    prev_result: Result | None = None
    valid: frozenset[str] | None = None
    log: Log = field(default_factory=Log, compare=False)

    @property
    def owner(self) -> Owner:
        return Owner(self.network, self.container_id, self.ifname)


class Report:
    """What is known of a call at its end, for the log of calls. ``id`` is in the message of its error too.

    ``call`` is None if the request could not be parsed. ``traceback``: of an error that is a bug.
    """

    def __init__(self, id: str, steps: Steps) -> None:
        self.id = id
        self.steps = steps
        self.call: Invocation | None = None
        self.result: Result | None = None
        self.error: CniError | None = None
        self.traceback = ""


def parse(request: Request) -> Invocation:
    """Check the frame of a call: environment, version, network name, what the command requires.

    Touches nothing: whether CNI_NETNS exists, and is not the plugin's own, is the kernel's to say.

    :raises CniError: INVALID_ENVIRONMENT, DECODING_FAILURE, INCOMPATIBLE_VERSION or INVALID_CONFIG.
    """
    env = request.env
    command = _command(env)
    if command == "VERSION":
        return _version_call(request)
    attached = command in _OF_A_CONTAINER
    container_id = check_container_id(env["CNI_CONTAINERID"]) if attached else ""
    ifname = check_interface(env["CNI_IFNAME"]) if attached else ""
    config = _config(command, request.stdin)
    version = _version(config, command)
    network = check_network(config.get("name"))
    log = Log(f"{request.plugin} {command} {network}")
    if attached:
        log.prefix = f"{request.plugin} {command} {check_owner(Owner(network, container_id, ifname))}"
    return Invocation(
        plugin=request.plugin,
        command=command,
        version=version,
        network=network,
        config=config,
        container_id=container_id,
        netns=env.get("CNI_NETNS", "") if attached else "",
        ifname=ifname,
        args=_arguments(env.get("CNI_ARGS", ""), lenient=command in _CLEANING_UP, log=log),
        path=env["CNI_PATH"],
        env=env,
        stdin=request.stdin,
        prev_result=_prev_result(config, version, request.plugin, command, log) if attached else None,
        valid=_valid(config) if command == "GC" else None,
        log=log,
    )


def _valid(config: Mapping[str, Any]) -> frozenset[str] | None:
    from cni_v6.protocol.valid import valid_attachments  # for GC alone

    return valid_attachments(config)


def version_reply(version: str) -> dict[str, Any]:
    """VERSION's answer (SPEC.md, section 5)."""
    return {"cniVersion": version, "supportedVersions": list(SUPPORTED_VERSIONS)}


def error_reply(error: CniError, version: str) -> dict[str, Any]:
    """What goes to stdout when a command fails (SPEC.md, section 5).

    :param version: the request's, see ``version_of`` for a request that could not be parsed.
    """
    return {"cniVersion": version, "code": error.code, "msg": error.msg, "details": error.details}


def version_of(stdin: bytes) -> str:
    """The version to answer in where ``parse`` failed: the configuration's, 1.1.0 where it cannot be known."""
    try:
        version = _named_version(decode(stdin, "stdin"))
    except CniError:
        return CURRENT
    return version if version in SUPPORTED_VERSIONS else CURRENT


# Which variables each command needs (libcni, pkg/skel). An empty one counts as missing there, and so here.
_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "GC": ("CNI_PATH",),
    "STATUS": ("CNI_PATH",),
    "VERSION": (),
}
COMMANDS = tuple(_REQUIRED)
_OF_A_CONTAINER = ("ADD", "DEL", "CHECK")
_CLEANING_UP = ("DEL", "GC")  # what they do not need must not keep them from freeing what they can

_TRUTH = {"1": True, "true": True, "0": False, "false": False}  # libcni, pkg/types/args.go; any case


def _command(env: Mapping[str, str]) -> str:
    command = env.get("CNI_COMMAND", "")
    if not command:
        raise CniError(INVALID_ENVIRONMENT, "CNI_COMMAND is missing", f"one of {', '.join(_REQUIRED)}")
    if command not in _REQUIRED:
        message = f"CNI_COMMAND {shown(command)} is not known"
        raise CniError(INVALID_ENVIRONMENT, message, f"one of {', '.join(_REQUIRED)}")
    missing = [name for name in _REQUIRED[command] if not env.get(name)]
    if missing:
        needs = f"{command} needs {', '.join(_REQUIRED[command])}"
        raise CniError(INVALID_ENVIRONMENT, f"missing in the environment: {', '.join(missing)}", needs)
    return command


def _version_call(request: Request) -> Invocation:
    """VERSION probes what we are: stdin is optional, and whatever is wrong with it no reason not to answer."""
    log = Log(f"{request.plugin} VERSION")
    config: Mapping[str, Any] = {}
    if request.stdin.strip():
        try:
            config = _config("VERSION", request.stdin)
        except CniError as error:
            log.warning(f"stdin ignored: {error}")
    asked = config.get("cniVersion")
    return Invocation(
        plugin=request.plugin,
        command="VERSION",
        version=asked if asked in SUPPORTED_VERSIONS else CURRENT,
        network="",
        config=config,
        path=request.env.get("CNI_PATH", ""),
        env=request.env,
        stdin=request.stdin,
        log=log,
    )


def _config(command: str, stdin: bytes) -> Mapping[str, Any]:
    most = stdin_bytes(command.encode())
    if len(stdin) > most:
        message = f"the configuration on stdin is too large: more than {most} bytes"
        raise CniError(DECODING_FAILURE, message, f"{command} takes no more; see what the runtime put into it")
    if not stdin.strip():
        raise CniError(DECODING_FAILURE, "no configuration on stdin", "the runtime must write it there as JSON")
    return decoded(stdin)


def _named_version(config: Mapping[str, Any]) -> str:
    named = config.get("cniVersion")
    if named is not None and not isinstance(named, str):
        raise CniError(DECODING_FAILURE, f"cniVersion is {shown(named)}, not a string")
    return named or UNNAMED


def _version(config: Mapping[str, Any], command: str) -> str:
    version = _named_version(config)
    if version not in SUPPORTED_VERSIONS:
        message = f"cniVersion {shown(version)} is not supported"
        raise CniError(INCOMPATIBLE_VERSION, message, f"supported are {', '.join(SUPPORTED_VERSIONS)}")
    if not allows(version, command):
        message = f"cniVersion {version} has no {command}"
        raise CniError(INCOMPATIBLE_VERSION, message, f"{command} needs cniVersion {SINCE[command]} or later")
    return version


def _arguments(text: str, *, lenient: bool, log: Log) -> Args:
    try:
        return parse_args(text)
    except CniError as error:
        if not lenient:
            raise
        log.warning(f"CNI_ARGS ignored: {error}")
        return Args()


def parse_args(text: str) -> Args:
    """CNI_ARGS, ``K=V;K=V``, as libcni's ``pkg/types/args.go`` reads it.

    :raises CniError: INVALID_ENVIRONMENT for a pair that is none, and for a key not known unless IgnoreUnknown is set.
    """
    pairs: dict[str, str] = {}
    for pair in text.split(";") if text else ():
        key, equals, value = pair.partition("=")
        if not equals or "=" in value:
            raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS has {shown(pair)}, not KEY=VALUE", "pairs are parted by ';'")
        pairs[key] = value
    ignore = pairs.pop("IgnoreUnknown", "0")
    if ignore.lower() not in _TRUTH:
        raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS has IgnoreUnknown={shown(ignore)}", "use 1, true, 0 or false")
    ip, mac = pairs.pop("IP", ""), pairs.pop("MAC", "")
    kubernetes = {key: value for key, value in pairs.items() if key.startswith("K8S_POD_")}
    unknown = [shown(key) for key in pairs if key not in kubernetes]
    if unknown and not _TRUTH[ignore.lower()]:
        remedy = "known are IP, MAC and K8S_POD_*; IgnoreUnknown=1 lets others pass"
        raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS has keys that are not known: {', '.join(unknown)}", remedy)
    return Args(ip, mac, kubernetes)


def _prev_result(config: Mapping[str, Any], version: str, plugin: str, command: str, log: Log) -> Result | None:
    raw = config.get("prevResult")
    if raw is None:
        if command == "CHECK" and plugin in MAIN:  # our IPAM checks its leases, which it needs no result for
            raise CniError(INVALID_CONFIG, "prevResult is missing", "CHECK compares with it; the runtime must send it")
        return None
    try:
        return from_json(raw, version)
    except CniError as error:
        if command in _CLEANING_UP:
            log.warning(f"prevResult ignored: {error}")
            return None
        raise CniError(error.code, f"prevResult: {error.msg}", error.details) from None
