"""The features that a network of any main plugin can have, in the order of their operations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cni_v6.config.main import MainConf, once
from cni_v6.kernel.ops import Op
from cni_v6.kernel.questions import Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.plan import bridge_port, firewall_elements, forwarding, mtu, ndp_proxy, prefix_routes
from cni_v6.plan.feature import Feature
from cni_v6.plan.site import Allocation, Site


def _shaped(name: str) -> Callable[..., Iterable[Any]]:
    """A function of ``bandwidth``, which is imported for containers that are shaped alone."""

    def run(*given: Any) -> Iterable[Any]:
        if not any(isinstance(value, (MainConf, Attachment)) and value.bandwidth for value in given):
            return ()
        from cni_v6.plan import bandwidth

        found: Iterable[Any] = getattr(bandwidth, name)(*given)
        return found

    return run


def _tuned(name: str) -> Callable[..., Iterable[Any]]:
    """A function of ``tuning``, which is imported for networks that ask for it alone."""

    def run(site: Site, conf: MainConf, *given: Any) -> Iterable[Any]:
        if not conf.tuning:
            return ()
        from cni_v6.plan import tuning

        found: Iterable[Any] = getattr(tuning, name)(site, conf, *given)
        return found

    return run


def _by_source(name: str) -> Callable[..., Iterable[Any]]:
    """A function of ``source_routing``, which is imported for containers that may be routed so alone."""

    def run(*given: Any) -> Iterable[Any]:
        if not any((isinstance(value, MainConf) and value.may_route_by_source)
                   or (isinstance(value, Attachment) and value.rules) for value in given):
            return ()
        from cni_v6.plan import source_routing

        found: Iterable[Any] = getattr(source_routing, name)(*given)
        return found

    return run


FEATURES = (
    Feature(
        "firewall", questions=firewall_elements.questions, removal=firewall_elements.removal,
        check_questions=firewall_elements.check_questions, differences=firewall_elements.differences,
        warnings=firewall_elements.warnings,
        mending=firewall_elements.mending,
    ),
    Feature(
        "IPv6 forwarding", questions=forwarding.gateway_questions, more_questions=forwarding.gateway_more_questions,
        node_steps=forwarding.node_steps,
    ),
    Feature(
        "bandwidth", check=_shaped("check"), container_steps=_shaped("container_steps"), removal=_shaped("removal"),
        check_questions=_shaped("check_questions"), differences=_shaped("differences"), mending=_shaped("mending"),
    ),
    Feature(
        "tuning", container_steps=_tuned("container_steps"), inside_questions=_tuned("inside_questions"),
        inside_differences=_tuned("inside_differences"),
    ),
    Feature(
        "source-based routing", container_steps=_by_source("container_steps"), removal=_by_source("removal"),
        inside_questions=_by_source("inside_questions"), inside_differences=_by_source("inside_differences"),
    ),
    Feature("LLDP", warnings=bridge_port.warnings),
    Feature(
        "bridge netfilter", questions=bridge_port.netfilter_questions, warnings=bridge_port.netfilter_warnings,
    ),
    Feature("MTU of the uplinks", questions=mtu.questions, warnings=mtu.warnings),
    Feature(
        "NDP proxy", questions=ndp_proxy.questions, check=ndp_proxy.check, more_questions=ndp_proxy.more_questions,
        node_steps=ndp_proxy.node_steps, arrival_steps=ndp_proxy.arrival_steps, removal=ndp_proxy.removal,
        check_questions=ndp_proxy.check_questions, differences=ndp_proxy.differences, mending=ndp_proxy.mending,
        warnings=ndp_proxy.warnings,
    ),
    Feature(
        "delegated prefixes", container_steps=prefix_routes.container_steps, arrival_steps=prefix_routes.arrival_steps,
        removal=prefix_routes.removal, check_questions=prefix_routes.check_questions,
        differences=prefix_routes.differences, mending=prefix_routes.mending, warnings=prefix_routes.warnings,
    ),
)


@once
def questions(conf: MainConf) -> tuple[Question, ...]:
    """The questions that an ADD asks before it allocates addresses."""
    return tuple(question for feature in FEATURES for question in feature.questions(conf))


def check(conf: MainConf, seen: Snapshot) -> None:
    """Refuse a configuration that cannot work on this node.

    :raises CniError: NODE_CONFLICT.
    """
    for feature in FEATURES:
        feature.check(conf, seen)


def more_questions(conf: MainConf, seen: Snapshot) -> tuple[Question, ...]:
    """The further questions for a gateway with IPv6 addresses."""
    return tuple(question for feature in FEATURES for question in feature.more_questions(conf, seen))


def node_steps(conf: MainConf, allocation: Allocation, seen: Snapshot) -> Iterator[Op]:
    """The operations on the node if it is the gateway."""
    for feature in FEATURES:
        yield from feature.node_steps(conf, allocation, seen)


def container_steps(site: Site, conf: MainConf, allocation: Allocation, seen: Snapshot) -> Iterator[Op]:
    """The operations on the container's link and in its namespace, besides its addresses and routes."""
    for feature in FEATURES:
        yield from feature.container_steps(site, conf, allocation, seen)


def arrival_steps(conf: MainConf, allocation: Allocation, seen: Snapshot) -> Iterator[Op]:
    """The operations on the node once the container is connected."""
    for feature in FEATURES:
        yield from feature.arrival_steps(conf, allocation, seen)


def removal(record: Attachment, lost: frozenset[str], elsewhere: frozenset[str]) -> tuple[Op, ...]:
    """The operations that remove everything the features made.

    :param lost: addresses of the record that belong to another container by now.
    :param elsewhere: addresses that another network on this node has leased too.
    """
    return tuple(step for feature in FEATURES for step in feature.removal(record, lost, elsewhere))


def check_questions(conf: MainConf, record: Attachment | None) -> tuple[Question, ...]:
    """The questions that CHECK asks; none for an attachment without a record."""
    if record is None:
        return ()
    return tuple(question for feature in FEATURES for question in feature.check_questions(conf, record))


def differences(conf: MainConf, record: Attachment | None, seen: Snapshot) -> list[str]:
    """The differences between the record and the kernel, one phrase for each."""
    if record is None:
        return []
    return [phrase for feature in FEATURES for phrase in feature.differences(conf, record, seen)]


def inside_questions(site: Site, conf: MainConf, record: Attachment | None) -> tuple[Question, ...]:
    """The questions about the container's namespace that CHECK asks."""
    return tuple(question for feature in FEATURES for question in feature.inside_questions(site, conf, record))


def inside_differences(site: Site, conf: MainConf, record: Attachment | None, seen: Snapshot) -> list[str]:
    """The differences of the container's namespace, one phrase for each."""
    return [phrase for feature in FEATURES for phrase in feature.inside_differences(site, conf, record, seen)]


def mending(conf: MainConf, record: Attachment, seen: Snapshot) -> Iterator[tuple[Op, ...]]:
    """The operations that mend the differences, by feature."""
    for feature in FEATURES:
        steps = tuple(feature.mending(conf, record, seen))
        if steps:
            yield steps


def warnings(conf: MainConf, allocation: Allocation, seen: Snapshot) -> Iterator[str]:
    """The warnings that an ADD logs."""
    for feature in FEATURES:
        yield from feature.warnings(conf, allocation, seen)
