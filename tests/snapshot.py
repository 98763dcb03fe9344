"""What a plugin may change on a node, as sorted lines of text that can be compared and read.

Left out is what the kernel moves by itself: counters, timers, carrier, the link-local addresses and routes it makes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cni_v6.plan.firewall import link_local

Run = Callable[..., str]  # a command's arguments -> its standard output

# By name, wherever they occur below a link. Bridge and port timers and states: net/bridge/br_stp*.c.
VOLATILE = re.compile(
    r"ifindex|operstate|linkmode|link_netnsid|link_index|.*_timer|topology_change.*|state|root_.*|designated_.*"
    r"|port|id|no|config_pending|broadcast_tx|tentative|mc(ast)?_router|fdb_n_learned"
)
VOLATILE_FLAGS = {"NO-CARRIER", "LOWER_UP", "dead", "linkdown"}
ADDRESS_FIELDS = (
    "nodad", "dadfailed", "deprecated", "noprefixroute", "secondary", "label", "scope", "broadcast", "protocol",
)
# Not a container's: a set's cursor only moves forward, the lock file stays.
BOOKKEEPING = re.compile(r"(.*/)?(lock|last_reserved_ip\.[^/]*|cursors/.*)")
SYSCTLS = "/proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf /proc/sys/net/ipv4/ip_forward"
# One command for all that there is to see in a place, since a test looks at several, twice, and each program has to
# start. What fails there prints nothing: a kernel without IPv6 has no routes of it.
SECTION = "\f\n"
LOOK = f"""
printf 'address show\nneighbour show nud permanent\nneighbour show proxy\n' | ip -j -d -force -batch -
for family in -4 -6; do
    printf '\f\n'
    printf 'route show table all\nrule show\n' | ip -j $family -force -batch -
done
printf '\f\n'
bridge -j vlan show
printf '\f\n'
nft --stateless list ruleset
printf '\f\n'
grep -rs '' {SYSCTLS}
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Sorted lines such as ``node link cni0.mtu = 1500``."""

    lines: tuple[str, ...]

    def difference(self, later: Snapshot, ignore: str = "") -> list[str]:
        """Lines that are gone (``-``) and new (``+``) later, but for those in which ``ignore`` is found."""
        mine, theirs = set(self.lines), set(later.lines)
        gone = [(line, "- ") for line in mine - theirs]
        new = [(line, "+ ") for line in theirs - mine]
        return [sign + line for line, sign in sorted(gone + new) if not (ignore and re.search(ignore, line))]


def take(places: Mapping[str, Run], store: Path) -> Snapshot:
    """Look at each place (name -> a way to run commands there) and at the lease store."""
    lines = [f"{place} {line}" for place, run in places.items() for line in _network(run)]
    return Snapshot(tuple(sorted({*lines, *_store(store)})))


def _network(run: Run) -> Iterator[str]:
    found, ipv4, ipv6, vlans, nftables, sysctls = run("sh", "-c", LOOK).split(SECTION)
    entries = _json(found)
    links = [entry for entry in entries if "ifname" in entry]
    for link in links:
        addresses = link.pop("addr_info", [])
        yield from _flat(f"link {link['ifname']}", link)
        for address in addresses:
            if not _kernel_made(address, link):
                yield f"address {link['ifname']} {address['local']}/{address['prefixlen']}{_flags(address)}"
    yield from (f"neighbour {_text(entry)}" for entry in entries if "ifname" not in entry)
    for family, shown in (("-4", ipv4), ("-6", ipv6)):
        for entry in _json(shown):
            if "priority" in entry:
                yield f"rule {family} {_text(entry)}"
            # The kernel's own follow from the addresses; it makes and drops some of them later, with the carrier.
            elif entry.get("protocol") != "kernel" and entry.get("table") != "local":
                yield "route " + _text(entry)
    for port in _json(vlans):
        yield from (f"vlan {port['ifname']} {_text(vlan)}" for vlan in port.get("vlans", []))
    yield from _nftables(nftables)
    for line in sysctls.splitlines():
        yield "sysctl " + line.removeprefix("/proc/sys/net/").replace(":", " = ", 1)


def without_packets(text: str) -> str:
    """What ``nft list`` prints, but for elements that packets added: each has its time, and a packet may come late."""
    return re.sub(r"(flags [\w,]*dynamic[^{}]*)elements = \{[^{}]*\}", r"\1", text)


def _nftables(text: str) -> Iterator[str]:
    """Each rule or element with the table and chain it stands in, but for elements that packets added."""
    text = without_packets(text)
    blocks: list[str] = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        if line == "}":
            yield "nftables " + " / ".join(blocks)
            blocks.pop()
        elif line.endswith("{") and "=" not in line:
            blocks.append(line.removesuffix("{").strip())
        else:
            yield f"nftables {' / '.join(blocks)}: {line}"


def _store(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_symlink() or not path.is_file() or BOOKKEEPING.fullmatch(str(name)):
            continue
        mode = path.stat().st_mode & 0o7777
        yield f"store {name} {mode:04o} {path.read_bytes()[:1000]!r}"


def _flat(prefix: str, value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if not VOLATILE.fullmatch(key):
                yield from _flat(f"{prefix}.{key}", item)
    elif isinstance(value, list):
        yield f"{prefix} = {sorted(str(item) for item in value if item not in VOLATILE_FLAGS)}"
    else:
        yield f"{prefix} = {value}"


def _kernel_made(address: Mapping[str, Any], link: Mapping[str, Any]) -> bool:
    """Whether it is the link-local address that the kernel makes of the MAC, some time after the carrier is there.

    ``kernel_ll`` is IFAPROT_KERNEL_LL, since Linux 5.18. Debian 12's ``ip`` does not print it: there the MAC tells.
    """
    of_mac = link_local(link["address"]) if link["link_type"] == "ether" else ""
    return address.get("protocol") == "kernel_ll" or address["local"] == of_mac


def _flags(address: Mapping[str, Any]) -> str:
    return "".join(f" {key}={address[key]}" for key in ADDRESS_FIELDS if key in address)


def _text(entry: Mapping[str, Any]) -> str:
    """One line of an entry, without the empty and the volatile."""
    fields: Iterable[tuple[str, object]] = ((key, entry[key]) for key in sorted(entry))
    shown = {key: value for key, value in fields if key not in ("flags", "expires") and value not in ([], None)}
    return json.dumps(shown)


def _json(text: str) -> list[Any]:
    """What each line lists."""
    return [entry for line in text.splitlines() for entry in json.loads(line)]
