"""Attachments whose record cannot be read: completed by what the kernel says, or blocked.

A record says what the firewall knows of a container. Without it a reload would leave the container unguarded and open.
The firewall's elements say the same, as long as they are there. After them, nothing does: the container's port is
blocked, until DEL and ADD.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cni_v6.attachments.context import Context
from cni_v6.firewall import ruleset
from cni_v6.firewall.policy import GUARD_BLOCKED, ISOLATED, Policy
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetAllElements, GetLink, GetRuleset
from cni_v6.leases.attachment import Attachment
from cni_v6.protocol.names import ROUTED_NETWORK, ROUTED_NETWORKS, host_interface

REMEDY = "run DEL and ADD for the container again"


def is_blocked(record: Attachment) -> bool:
    """Whether an attachment is blocked, since nothing said any more what its container may do."""
    return record.policy is not None and record.policy.guard == GUARD_BLOCKED


def completed(
    record: Attachment, others: Iterable[Attachment], context: Context, *, wanted: bool = True
) -> tuple[Attachment, str]:
    """A damaged record with all that can be found out, and what was done about it, for the operator.

    Nothing is to be done, and said, if there is no interface to guard, as after a loss of power: the leases are kept
    until DEL or GC.

    :param others: the records of this node. Where none of the network's has a policy, it has no firewall.
    :param wanted: whether the network has a firewall, where its configuration is known.
    """
    from cni_v6.firewall.recovered import Present, policy_of  # few calls find a damaged record

    owner, host = record.owner, host_interface(record.owner)
    seen = context.kernel.observe([GetLink(HOST, host), GetRuleset(), GetAllElements()])
    link = seen.link(HOST, host)
    elements = seen.all_elements() if seen.ruleset() == ruleset.mark() else ()
    policy = policy_of(owner, host, link.master or host if link else host, record.addresses, Present(elements))
    if link is None:
        return replace(record, policy=policy, damaged=False), ""
    home = context.kernel.netns_id(HOST)
    found = replace(record, host=host, boot=context.boot, home=home, policy=policy, damaged=False)
    if link.group & ROUTED_NETWORKS == ROUTED_NETWORK:
        from cni_v6.plan import routed_repair

        asked = context.kernel.observe(routed_repair.recall_questions(host))
        port, anchors = routed_repair.recalled(host, owner, asked)
        found = replace(found, port=port, anchors=anchors)
    network = [other for other in others if other.owner.network == owner.network and other.host]
    if policy and policy.guard != GUARD_BLOCKED:
        return found, f"the record of {owner} was damaged: made anew from the firewall's sets and the lease files"
    if not policy and (not wanted or (network and not any(other.policy for other in network))):
        return found, f"the record of {owner} was damaged: made anew, without a firewall as its network is"
    blocked = Policy(link.master or host, host, addresses=record.addresses, guard=GUARD_BLOCKED, ingress=ISOLATED)
    return replace(found, policy=blocked, damaged=True), blocked_words(str(owner))


def blocked_words(owner: str) -> str:
    return f"{owner} is blocked: its record is damaged, and nothing says what it may do; {REMEDY}"
