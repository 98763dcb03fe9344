"""Makes the firewall policy of an attachment from the configuration and its addresses."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from cni_v6.config.firewall import AUTO, ON, FirewallConf, refuse_lacking
from cni_v6.config.prefix_lists import Net, covers
from cni_v6.config.text import parse_prefix
from cni_v6.firewall.policy import GUARD_FULL, GUARD_LINK, GUARD_MAC, GUARD_OFF, MASQUERADED, Policy
from cni_v6.net.addresses import BITS, from_text, to_text, version

# Prefixes that are not routed on the Internet: RFC 1918, RFC 6598 (shared address space), RFC 4193.
_PRIVATE = tuple(
    parse_prefix(prefix)
    for prefix in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
_LINK_LOCAL = from_text("fe80::")[1]
_UNIVERSAL = 1 << 57  # the universal/local bit of an interface identifier: the MAC's, inverted


def policy(
    conf: FirewallConf, *, home: str, port: str, mac: str, addresses: Iterable[str], address_known: bool, trunk: bool,
    once: Collection[str] = (), prefixes: Iterable[str] = (),
) -> Policy:
    """The firewall policy of one attachment.

    :param home: the gateway interface; as in ``Policy``, like ``port`` and ``mac``.
    :param addresses: the container's addresses, canonical, without prefix length.
    :param address_known: the container may send from these addresses only, because there is an ``ipam``.
    :param once: those of ``addresses`` that no container had before or gets later.
    :param trunk: the container also sends in VLANs, where its addresses are not known.
    :param prefixes: IPv6 prefixes that are routed to it. nptv6 translates none of them (``prefix_delegation.check``).
    :raises CniError: INVALID_CONFIG for a published port of a family that the container has no address of.
    """
    own = tuple(addresses)
    refuse_lacking(conf.ports, {version(address) for address in own})
    translated = dict(_translated(conf, own))
    hidden = tuple(address for address in own if address not in translated and _is_hidden(conf, address))
    fixed = {address: source for address in hidden if (source := _by_family(address, conf.snat4, conf.snat6))}
    routed = tuple((prefix, _seen_as(conf, prefix)) for prefix in prefixes)
    changed = {version(place) for place in (*translated, *hidden, *(prefix for prefix, seen_as in routed if seen_as))}
    return Policy(
        home=home,
        port=port,
        mac=mac,
        addresses=own,
        link_local=link_local(mac) if any(version(address) == 6 for address in own) else "",
        guard=_guard(conf, bool(own) and address_known and not trunk),
        ingress=conf.ingress,
        masquerade=tuple(address for address in hidden if address not in fixed),
        snat=(*translated.items(), *fixed.items()),
        keep=tuple(prefix for prefix in conf.keep if parse_prefix(prefix)[0] in changed),
        inbound=tuple((outside, address) for address, outside in translated.items()),
        ports=conf.ports,
        stale=tuple(address for address in (*translated, *hidden) if address not in once),
        egress=conf.egress,
        prefixes=routed,
    )


def link_local(mac: str) -> str:
    """The link-local address of an interface: the modified EUI-64 of its MAC (RFC 4291, appendix A)."""
    digits = mac.replace(":", "")
    return to_text(6, _LINK_LOCAL | int(f"{digits[:6]}fffe{digits[6:]}", 16) ^ _UNIVERSAL)


def _guard(conf: FirewallConf, pinned: bool) -> str:
    if conf.guard:
        return GUARD_FULL if pinned else GUARD_LINK
    return GUARD_MAC if conf.macspoofchk else GUARD_OFF


def _translated(conf: FirewallConf, addresses: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs (address, external address) for the addresses in nptv6's internal prefix. The bits below the prefix stay.

    RFC 6296 changes 16 more bits so that checksums stay valid. Here connection tracking updates the checksums.
    """
    if conf.nptv6 is None:
        return
    internal, (_, outside, length) = parse_prefix(conf.nptv6[0]), parse_prefix(conf.nptv6[1])
    for address in addresses:
        if _lies_in(address, internal):
            yield address, to_text(6, outside | from_text(address)[1] & (1 << BITS[6] - length) - 1)


def _is_hidden(conf: FirewallConf, address: str) -> bool:
    mode = _by_family(address, conf.masquerade4, conf.masquerade6)
    return mode == ON or (mode == AUTO and any(_lies_in(address, prefix) for prefix in _PRIVATE))


def _seen_as(conf: FirewallConf, prefix: str) -> str:
    """The source address of packets from a prefix (``Policy.prefixes``); "" for no translation."""
    return (conf.snat6 or MASQUERADED) if _is_hidden(conf, prefix.partition("/")[0]) else ""


def _lies_in(address: str, prefix: Net) -> bool:
    family, value = from_text(address)
    return covers(prefix, (family, value, BITS[family]))


def _by_family(address: str, four: str, six: str) -> str:
    return six if version(address) == 6 else four
