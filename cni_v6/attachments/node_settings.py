"""What a network has changed of the node's interfaces is given back once no container needs it.

``plan.node_settings`` says what there is to give back.

The network's memo names for each setting one attachment that needs it. When that one goes, another takes its place, or
the setting is what it was before. So all other calls look at the memo alone. Several networks may share a bridge: the
last of them gives back what the first one found.

Under the lock of the network's leases, and without those of others: what another network claims in between is set
again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cni_v6.attachments import old_gateways
from cni_v6.attachments.context import Context
from cni_v6.kernel.ops import HOST
from cni_v6.leases.attachment import Attachment, Setting
from cni_v6.leases.store import Transaction
from cni_v6.plan import bridge_port, node_settings
from cni_v6.protocol.names import Owner


def claim(wanted: Iterable[Setting], network: str, leases: Transaction, context: Context) -> list[Setting]:
    """Before an ADD changes settings: remember what they are now.

    :returns: those that the network did not need until now. The ADD is to set them even if it has seen that they are as
        they should be: until this call, a DEL may have given them back.
    :raises CniError: STORE_FAILED, KERNEL_REFUSED.
    """
    memo = old_gateways.decode(leases.memo(), context.boot)
    known = {setting.place for setting in memo.settings}
    new = [setting for setting in wanted if setting.place not in known]
    if not new:
        return []
    others = _of_others(network, context)
    seen = context.kernel.observe(tuple(node_settings.questions(new)))
    claimed = []
    for setting in new:
        before = others[setting.place] if setting.place in others else node_settings.value(setting, seen)
        if before is not None:
            claimed.append(replace(setting, before=before))
    leases.keep_memo(old_gateways.encode(replace(memo, settings=(*memo.settings, *claimed)), context.boot))
    return claimed


def release(record: Attachment, leases: Transaction, context: Context) -> None:
    """Before a record is removed that settings name: let them name another one, or give them back.

    :raises CniError: STORE_FAILED, KERNEL_REFUSED.
    """
    memo = old_gateways.decode(leases.memo(), context.boot)
    left = {setting.place: setting for setting in memo.settings if setting.user == user(record.owner)}
    kept = {setting.place: setting for setting in memo.settings}
    for other in leases.attachments():
        if not left:
            break
        if other.owner != record.owner and other.boot in ("", context.boot):
            for setting in [setting for setting in left.values() if _needs(other, setting)]:
                kept[setting.place] = replace(left.pop(setting.place), user=user(other.owner))
    give_back(left.values(), record.owner.network, context)
    settings = tuple(setting for place, setting in kept.items() if place not in left)
    leases.keep_memo(old_gateways.encode(replace(memo, settings=settings), context.boot))


def user(owner: Owner) -> tuple[str, str]:
    """An attachment as ``Setting.user``."""
    return owner.container_id, owner.ifname


def _needs(record: Attachment, setting: Setting) -> bool:
    """Whether an attachment needs a setting. One whose port is not known may (a record that was rebuilt)."""
    if record.port is None:
        return bool(record.host)
    return setting.place in (needed.place for needed in bridge_port.needed_settings(record))


def give_back(settings: Iterable[Setting], network: str, context: Context) -> None:
    """Make settings what they were, but for those that another network needs.

    :raises CniError: KERNEL_REFUSED.
    """
    others = _of_others(network, context)
    own = [setting for setting in settings if setting.place not in others]
    seen = context.kernel.observe(tuple(node_settings.questions(own)))
    seen = seen.with_answers(context.kernel.observe(tuple(node_settings.more_questions(own, seen))))
    steps = tuple(node_settings.give_back(own, seen))
    if steps:
        context.kernel.apply(steps)
        others = _of_others(network, context)
        again = [setting for setting in own if setting.place in others and seen.link(HOST, setting.home)]
        context.kernel.apply(tuple(node_settings.turn_on(again)))


def _of_others(network: str, context: Context) -> dict[tuple[str, str], str]:
    """What was there before of the settings that other networks need now."""
    memos = (old_gateways.decode(content, context.boot) for name, content in context.data_dirs.memos()
             if name != network)
    return {setting.place: setting.before for memo in memos for setting in memo.settings}
