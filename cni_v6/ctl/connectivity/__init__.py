"""``cni-v6ctl connectivity``: tries what a network promises, from inside two throwaway containers, and leaves nothing.

``plan.promises`` says what is promised, and judges what was seen. Nothing of a container but its namespace is needed.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cni_v6.attachments.context import Context
from cni_v6.config.main import MainConf
from cni_v6.ctl import conf_dir, findings, places, runtime_folders
from cni_v6.engine.handle import real_context
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.kernel.questions import GetSurroundings
from cni_v6.net.addresses import is_link_local, version
from cni_v6.plan import promises
from cni_v6.plan.health.finding import Finding, worst
from cni_v6.plan.promises import SERVICE, Surroundings
from cni_v6.protocol.invocation import BRIDGE, ROUTED

DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
SECONDS = 5.0
TYPES = (BRIDGE, ROUTED)
INTERRUPTED = 128  # and the signal's number, as a shell says it
OUTPUTS = {"connectivity": findings.OUTPUT}


def register(commands: Any) -> None:
    parser = commands.add_parser("connectivity", help="try what a network promises, from inside throwaway containers")
    parser.add_argument("network", metavar="NETWORK", help="the name of a configured network")
    parser.add_argument("--outside", action="append", default=[], metavar="ADDRESS",
                        help="a host beyond the node that answers a ping (default: the next hop of the default route)")
    parser.add_argument("--conf-dir", type=Path, metavar="DIR",
                        help="configurations (default: what the runtimes of this node are told)")
    parser.add_argument("--timeout", type=float, default=SECONDS, metavar="SECONDS",
                        help="how long to wait for what must be answered (%(default)g)")
    parser.add_argument("--json", action="store_true",
                        help="a list of objects as of doctor: level, check, message, why, remedy")
    parser.set_defaults(run=run, root=True)


def run(chosen: argparse.Namespace, make_node: Callable[[], Context] = real_context) -> int:
    """
    :returns: 0 if all promises are kept, 1 if some could not be tried, 2 if one is broken; 128 and a signal's number.
    """
    from cni_v6.ctl.waiting import Interrupted, check_seconds, interruptible

    check_seconds("--timeout", chosen.timeout)
    with ExitStack() as stack:
        node = make_node()
        stack.callback(node.kernel.close)
        config, path = _configuration(chosen.network, chosen.conf_dir)
        found: list[Finding] = []
        try:
            with interruptible() as waiting, closing(_findings(config, path, chosen, node, waiting)) as tried:
                for finding in tried:
                    found.append(finding)
                    if not chosen.json:
                        print("\n".join(findings.lines(finding)), flush=True)
        except Interrupted as signalled:
            number = int(signalled.args[0])
            print(f"cni-v6ctl: ended by {signal.Signals(number).name}; the containers are gone", file=sys.stderr)
            return INTERRUPTED + number
    if chosen.json:
        OUTPUTS["connectivity"].show([asdict(finding) for finding in found])
    else:
        print(findings.total(found))
    return worst(found)


def _address(text: str) -> str:
    found = places.address_of(text)
    if found is None:
        raise CniError(INVALID_CONFIG, f"--outside {text} is no address", "write an IPv4 or IPv6 address")
    return found


def _configuration(network: str, folder: Path | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The first configuration with this name whose containers are neighbours of the node, and CNI_PATH.

    A macvlan's are not: the node does not reach them, and promises them nothing.
    """
    known = runtime_folders.runtimes()
    folders = [folder] if folder else [Path(runtime.conf_dir) for runtime in known] or [conf_dir.CONF_DIR]
    bin_dirs = dict.fromkeys((*(place for runtime in known for place in runtime.bin_dirs), runtime_folders.BIN_DIR))
    names = set()
    for place in dict.fromkeys(folders):
        for _, config in conf_dir.ours(place) if place.is_dir() else ():
            if config["type"] in TYPES and config.get("name") == network:
                return config, tuple(bin_dirs)
            names |= {str(config.get("name"))} if config["type"] in TYPES else set()
    where = ", ".join(map(str, dict.fromkeys(folders)))
    words = f"no network {network} of {' or '.join(TYPES)} is configured in {where}"
    raise CniError(INVALID_CONFIG, words, f"there is {', '.join(sorted(names))}" if names else "see --conf-dir")


def _findings(
    config: Mapping[str, Any], path: tuple[str, ...], chosen: argparse.Namespace, node: Context, waiting: Any
) -> Generator[Finding, None, None]:
    from cni_v6.ctl.connectivity import probes, stage
    from cni_v6.ctl.connectivity.exchange import Exchange, listening
    from cni_v6.kernel.netns.throwaway import Own

    outside = {version(address): address for address in map(_address, chosen.outside)}
    publishes = isinstance(config.get("capabilities"), dict) and config["capabilities"].get("portMappings") is True
    port = stage.free_port() if publishes else 0
    with ExitStack() as stack:
        conf = conf_dir.checked(stage.parameters(config, port), node)
        assert isinstance(conf, MainConf)
        beyond = stack.enter_context(stage.beyond(node))
        first = stack.enter_context(stage.attached(stage.parameters(config, port), 1, path))
        second = stack.enter_context(stage.attached(stage.parameters(config, 0), 2, path))
        waiting.check()
        around = _surroundings(conf.at(first.host), first, beyond, outside, node, port)
        stack.enter_context(listening(first.place, {ip.family for ip in first.result.ips}, SERVICE))
        servers = stack.enter_context(listening(beyond.place, beyond.families, SERVICE))
        place = probes.Stage(conf.at(first.host), first, second, beyond, servers, port, node)
        exchange = Exchange(waiting, stage.IFNAME, chosen.timeout)
        ours = [ip.ip for ip in (*first.result.ips, *second.result.ips)] if conf.is_gateway else []
        for address in (*around.beyond.values(), *ours):  # wait for the routes of new addresses (exchange.AGAIN)
            exchange.echo(Own(), address)
        for promise in promises.promises(place.conf, first.result, second.result, around):
            yield promises.judge(promise, probes.seen(promise, place, exchange))


def _surroundings(
    conf: MainConf, first: Any, beyond: Any, outside: Mapping[int, str], node: Context, port: int
) -> Surroundings:
    from cni_v6.ctl.connectivity.stage import TRIAL

    seen = node.kernel.observe([GetSurroundings()]).surroundings()
    own = {ip.family: ip.address for ip in first.result.ips}
    gateways = {ip.gateway for ip in first.result.ips}
    others: dict[int, str] = {}
    for name, text in seen.addresses:
        address = text.partition("/")[0]
        family = version(address)
        mine = family not in own or address in gateways or name in ("lo", conf.gateway_interface)
        if not mine and not is_link_local(address) and address != TRIAL[family][0]:
            others.setdefault(family, address)
    hops = {family: route.gateway for family, default in DEFAULT.items() for _, route in seen.routes
            if route.dst == default and route.gateway and version(route.gateway) == family
            and not is_link_local(route.gateway)}
    return Surroundings(
        others, {**hops, **outside}, {family: TRIAL[family][1] for family in beyond.families},
        {family: TRIAL[family][0] for family in beyond.families}, port,
    )
