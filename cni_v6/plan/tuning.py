"""Plans what the reference plugin ``tuning`` does: sysctls of the container's namespace, and its interface.

Pure. Imported only for networks that ask for it. DEL has nothing to undo: the interface goes, and the sysctls are the
namespace's, which the container's runtime made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from cni_v6.config.main import MainConf
from cni_v6.config.tuning import IFNAME, parts_of
from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.kernel import ops
from cni_v6.kernel.ops import Op
from cni_v6.kernel.questions import GetLink, GetSysctl, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.plan.site import Allocation, Site

ALLOW_LIST = "/etc/cni/tuning/allowlist.conf"  # the reference plugin's


def check_allowed(conf: MainConf, read_file: Callable[[str], str]) -> None:
    """Refuse a sysctl that the node's list does not allow. Without the list all are allowed, as by the reference.

    :param read_file: as in ``Context``.
    :raises CniError: INVALID_CONFIG.
    """
    if not conf.tuning or not conf.tuning.sysctls:
        return
    try:
        lines = read_file(ALLOW_LIST).split("\n")
    except FileNotFoundError:
        return
    except OSError as error:
        raise CniError(INVALID_CONFIG, f"sysctl: {ALLOW_LIST} cannot be read", str(error)) from error
    try:
        allowed = [re.compile(line.strip()) for line in lines if line.strip()]
    except re.error as error:
        raise CniError(INVALID_CONFIG, f"sysctl: {ALLOW_LIST} has no regular expression", str(error)) from error
    for key, _ in conf.tuning.sysctls:
        if not any(expression.search(key) for expression in allowed):
            words = f"sysctl: {key} is not in {ALLOW_LIST}, the list of what this node allows"
            raise CniError(INVALID_CONFIG, words, "remove it, or add a line to the list")


def _sysctls(site: Site, conf: MainConf) -> Iterator[tuple[str, str]]:
    """(key below net, value) in the container's namespace."""
    for key, value in conf.tuning.sysctls if conf.tuning else ():
        parts = (site.owner.ifname if part == IFNAME else part for part in parts_of(key)[1:])
        yield "/".join(parts), value


def container_steps(site: Site, conf: MainConf, _: Allocation, __: Snapshot) -> Iterator[Op]:
    """Set them, once the interface is configured."""
    assert conf.tuning
    yield from (ops.SetSysctl(site.netns, key, value) for key, value in _sysctls(site, conf))
    wanted = conf.tuning
    if (wanted.promisc, wanted.allmulti, wanted.tx_queue) != (None, None, None):
        yield ops.TuneLink(site.netns, site.owner.ifname, wanted.promisc, wanted.allmulti, wanted.tx_queue)


# CHECK


def inside_questions(site: Site, conf: MainConf, _: Attachment | None) -> tuple[Question, ...]:
    """The questions that CHECK asks of the container's namespace."""
    return (
        GetLink(site.netns, site.owner.ifname), *(GetSysctl(site.netns, key) for key, _ in _sysctls(site, conf))
    )


def inside_differences(site: Site, conf: MainConf, _: Attachment | None, seen: Snapshot) -> Iterator[str]:
    """The differences between the configuration and the namespace, one phrase for each."""
    assert conf.tuning
    for key, value in _sysctls(site, conf):
        found = seen.sysctl(site.netns, key)
        if found is None or found.split() != value.split():  # the kernel writes tabs between several values
            yield f"container: net/{key} is {found}, not {value}"
    link, ifname = seen.link(site.netns, site.owner.ifname), site.owner.ifname
    if link is None:
        return  # which another difference says
    if conf.tuning.promisc and not link.promisc:
        yield f"interface {ifname} is not promiscuous"
    if conf.tuning.allmulti and not link.allmulti:
        yield f"interface {ifname} is not in all multicast groups"
    if conf.tuning.tx_queue not in (None, link.tx_queue):
        yield f"interface {ifname} has a queue of {link.tx_queue} packets, not {conf.tuning.tx_queue}"
