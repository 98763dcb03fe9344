"""The interfaces of the carriers on the real kernel: what they must be like, and what makes them so."""

from __future__ import annotations

from cni_v6.cluster.facts import (
    SRV6,
    SRV6_IN,
    TUNNEL,
    Device,
    Op,
    Pair,
    RemoveDevice,
    Tunnel,
    Underlay,
)
from cni_v6.cluster.linux_asked import GONE, Asked
from cni_v6.cluster.linux_wireguard import WireGuard
from cni_v6.cluster.protocol import PORT, VNI
from cni_v6.cluster.tables import Tables, encrypted, messages, source
from cni_v6.cluster.wireguard_values import WIREGUARD, Encrypted
from cni_v6.kernel import ops, sysctl
from cni_v6.kernel.netlink import answers, devconf, pyroute2_tunnels, requests, segments

PAIR_MAC = "02:00:00:00:00:a6"  # both ends have it, so that each takes what the other sends
# Of SRV6_IN. It has no address, so even a loose filter would drop IPv4, and what comes in there may be from the node
# itself: by IPv4 the kernel drops a source of its own (fib_validate_source, net/ipv4/fib_frontend.c).
INNER = {f"ipv4/conf/{SRV6_IN}/rp_filter": "0", f"ipv4/conf/{SRV6_IN}/accept_local": "1"}


class Devices:
    """The interfaces of the carriers in the network namespace."""

    def __init__(self, asked: Asked, sysctls: sysctl.Folders, tables: Tables, wireguard: WireGuard) -> None:
        self._asked = asked
        self._sysctls = sysctls
        self._tables = tables
        self._wireguard = wireguard

    def look(
        self, underlay: Underlay | None, index: int
    ) -> tuple[dict[str, Device | None], frozenset[Device], dict[int, str]]:
        """(as ``Facts.devices``, as ``Facts.interfaces``, the names of their ends by index).

        :param index: of the underlay.
        """
        found: dict[str, Device | None] = {}
        interfaces: set[Device] = set()
        names: dict[int, str] = {}
        for name in (TUNNEL, SRV6, SRV6_IN, WIREGUARD):
            data = self._asked.link(requests.get_link(name))
            if data:
                names[answers.index_of(data)] = name
                if name == SRV6_IN:
                    continue
                device = self._device(name, data, underlay, index)
                interfaces |= {device.interface} if device else set()
                found[name] = device if device and self._has_table(device) else None
        for name in (TUNNEL, SRV6, WIREGUARD):
            if self._tables.of(name).look():
                found.setdefault(name, None)
        return found, frozenset(interfaces), names

    def _device(self, name: str, data: bytes, underlay: Underlay | None, index: int) -> Device | None:
        if name == WIREGUARD:
            mtu = self._wireguard.look(data)
            return None if mtu is None else encrypted(mtu, self._tables.wireguard.look())
        return self._tunnel(data, underlay, index) if name == TUNNEL else self._pair(data)

    def _has_table(self, device: Device) -> bool:
        table = self._tables.of(device.ifname)
        if isinstance(device, Encrypted) and not device.pools:
            return False
        return table.has(device) or isinstance(device, Tunnel) and table.without

    def _tunnel(self, data: bytes, underlay: Underlay | None, index: int) -> Tunnel | None:
        """The tunnel; None if its interface is not whole, as when an agent ended before it was, or somebody changed it.
        """
        link, _ = answers.read_link(data)
        given = pyroute2_tunnels.read_vxlan(data)
        addresses = [*self._asked.addresses(answers.index_of(data))]
        wanted = {"vni": VNI, "port": PORT, "link": index, "learning": 0}
        as_wanted = all(given.get(key) == value for key, value in wanted.items())
        if not underlay or not link.up or not as_wanted or len(addresses) != 1:
            return None
        return Tunnel(underlay.ifname, str(given["local"]), link.mac, addresses[0], link.mtu)

    def _pair(self, data: bytes) -> Pair | None:
        """The pair; None if its interfaces are not whole."""
        other = self._asked.link(requests.get_link(SRV6_IN))
        if other is None or answers.peer_of(data) != answers.index_of(other):
            return None
        mtu = answers.read_link(data)[0].mtu
        for end in (data, other):
            link, master = answers.read_link(end)
            as_made = (link.kind, link.mac, link.mtu, master) == ("veth", PAIR_MAC, mtu, 0)
            if not as_made or not segments.is_up_without_arp(end) or [*self._asked.addresses(answers.index_of(end))]:
                return None
        return None if self._wrong_inside() else Pair(mtu, source(self._tables.srv6.look()))

    def _wrong_inside(self) -> dict[str, str]:
        """Of INNER what is not so. A kernel without IPv4 has none of it."""
        return {key: value for key, value in INNER.items() if sysctl.read(self._sysctls, key) not in (value, None)}

    def remove(self, operation: RemoveDevice) -> None:
        """
        :raises CniError: KERNEL_REFUSED.
        """
        self._asked.do(operation, requests.delete_link(ops.DeleteLink(ops.HOST, operation.ifname)), GONE)
        self._tables.of(operation.ifname).remove(operation)

    def add(self, operation: Op, device: Device) -> None:
        """
        :raises CniError: KERNEL_REFUSED, IO_FAILURE.
        """
        if isinstance(device, Pair):
            self._add_pair(operation, device)
        elif isinstance(device, Encrypted):
            self._wireguard.add(operation, device, self._tables.wireguard)
        else:
            self._add_tunnel(operation, device)

    def _add_tunnel(self, operation: Op, tunnel: Tunnel) -> None:
        """The table first: the tunnel must at no time take what is not from a node.

        The interface in four requests: one takes no way to make link-local addresses (rtnl_newlink).
        """
        if not self._tables.tunnel.without:
            self._tables.tunnel.load(operation, messages(tunnel))
        self._asked.do(operation, pyroute2_tunnels.create_vxlan(
            TUNNEL, vni=VNI, port=PORT, local=tunnel.local, link=self._asked.index(tunnel.underlay), mac=tunnel.mac,
            mtu=tunnel.mtu,
        ))
        index = self._without_own_address(operation, TUNNEL)
        address = ops.AddAddress(ops.HOST, TUNNEL, f"{tunnel.address}/64")
        self._asked.do(operation, requests.set_link(ops.SetLink(ops.HOST, TUNNEL, up=True)))
        self._asked.do(operation, requests.add_address(address, index))

    def _add_pair(self, operation: Op, pair: Pair) -> None:
        self._tables.srv6.load(operation, messages(pair))
        self._asked.do(operation, segments.create_pair(SRV6, SRV6_IN, address=PAIR_MAC, mtu=pair.mtu))
        for name in (SRV6, SRV6_IN):
            self._without_own_address(operation, name)
        for key, value in self._wrong_inside().items():
            message = devconf.setting(key, value, self._asked.index(SRV6_IN))
            assert message
            self._asked.do(operation, message)
        for name in (SRV6, SRV6_IN):
            self._asked.do(operation, segments.set_up_without_arp(name))

    def _without_own_address(self, operation: Op, ifname: str) -> int:
        """Let the kernel make no link-local address for an interface; its index."""
        index = self._asked.index(ifname)
        message = devconf.setting(f"ipv6/conf/{ifname}/addr_gen_mode", "1", index)
        assert message
        self._asked.do(operation, message)
        return index
