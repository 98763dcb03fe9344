"""Loads a configuration, with the present prefixes of the interfaces that its ranges follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cni_v6.attachments.context import Context
from cni_v6.config.bridge import BridgeConf, parse_bridge
from cni_v6.config.interface_prefix import InterfacePrefixes, InterfaceRange
from cni_v6.config.ipam import IpamConf
from cni_v6.config.main import Conf, RemovalConf, parse_ipam, parse_removal
from cni_v6.errors import NOT_AVAILABLE, CniError
from cni_v6.plan import interface_prefix as plan_prefix
from cni_v6.protocol.invocation import Invocation


def bridge(call: Invocation, context: Context) -> BridgeConf:
    """``config.bridge.parse_bridge``, with the prefixes of the followed interfaces.

    :raises CniError: also NODE_CONFLICT, TRY_AGAIN; for STATUS NOT_AVAILABLE instead of these two.
    """
    return main(call, context, parse_bridge)


def main(call: Invocation, context: Context, parse: Callable[..., Conf]) -> Conf:
    """What ``parse`` makes of a main plugin's configuration, with the prefixes of the followed interfaces.

    :param parse: as ``config.bridge.parse_bridge``.
    """
    logged = len(call.log.lines)
    conf = parse(call)
    if conf.tuning:
        from cni_v6.plan import tuning  # few networks have it

        tuning.check_allowed(conf, context.read_file)
    follows = conf.ipam.follows if isinstance(conf.ipam, IpamConf) else ()
    return parse(call, _prefixes(call, follows, context, logged)) if follows else conf


def ipam(call: Invocation, context: Context) -> IpamConf:
    """``config.main.parse_ipam``, with the prefixes of the followed interfaces; errors as ``bridge``."""
    logged = len(call.log.lines)
    conf = parse_ipam(call)
    return parse_ipam(call, _prefixes(call, conf.follows, context, logged)) if conf.follows else conf


def removal(call: Invocation, context: Context) -> RemovalConf:
    """``config.main.parse_removal``; where the configuration is stripped, with the folder that has the network."""
    conf = parse_removal(call)
    dirs = context.data_dirs
    if not conf.is_stripped or conf.network in dirs.recorded(conf.data_dir):
        return conf
    found = [known for known in dirs.known() if conf.network in dirs.recorded(known)]
    return replace(conf, data_dir=found[0]) if len(found) == 1 else conf


def _prefixes(
    call: Invocation, follows: tuple[InterfaceRange, ...], context: Context, logged: int
) -> InterfacePrefixes:
    """The present prefix of each followed interface.

    :param logged: the number of log lines before the configuration was parsed. Later lines are dropped, because it is
        parsed again and logs them again.
    """
    try:
        found = plan_prefix.prefixes(follows, context.kernel.observe(plan_prefix.questions(follows)))
    except CniError as error:
        if call.command == "STATUS":
            raise CniError(NOT_AVAILABLE, error.msg, error.details) from error
        raise
    del call.log.lines[logged:]
    return found
