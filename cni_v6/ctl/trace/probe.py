"""Sends one packet, or opens one connection, from inside a container, and says what its sender sees of it."""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass

from cni_v6.errors import INVALID_CONFIG, CniError
from cni_v6.kernel.netns.throwaway import Place, open_socket
from cni_v6.net import packets
from cni_v6.net.addresses import from_text, is_link_local, to_text, version
from cni_v6.net.packets import ICMP, ICMPV6, TCP, UDP, Headers
from cni_v6.plan.journey import ANSWERED, ERROR, REFUSED, TOO_BIG, UNSENT, Outcome

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
# linux/in.h, linux/in6.h: level, IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_RECVERR, IP_TRANSPARENT; and of IPv6
OPTIONS = {4: (socket.IPPROTO_IP, 10, 2, 11, 19), 6: (socket.IPPROTO_IPV6, 23, 2, 25, 75)}
MSG_ERRQUEUE = 0x2000  # linux/socket.h
SENT_BY_ICMP = (2, 3)  # linux/errqueue.h: SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6
ERROR_HEADER = struct.Struct("=IBBBxII")  # struct sock_extended_err
PAYLOAD, DATAGRAM = 56, b"cni-v6ctl trace".ljust(64, b".")
ETHERNET = 14


@dataclass(frozen=True, slots=True)
class Target:
    """``port`` 0: a ping. ``udp``: a datagram, not a connection. ``size``: bytes of the whole ping, 0 for any."""

    address: str
    port: int = 0
    udp: bool = False
    size: int = 0

    @property
    def protocol(self) -> int:
        if self.port:
            return UDP if self.udp else TCP
        return ICMPV6 if version(self.address) == 6 else ICMP

    @property
    def least_frame(self) -> int:
        """A length that its frames have at least, and most frames of neighbour discovery and ARP have not."""
        header = packets.HEADERS[version(self.address)]  # of a TCP segment with its usual options, too
        return ETHERNET + header + (12 if self.protocol == TCP else min(PAYLOAD, self.size or PAYLOAD))

    def __str__(self) -> str:
        if not self.port:
            return f"a ping to {self.address}" + f" of {self.size} bytes in one piece" * bool(self.size)
        inner = f"[{self.address}]" if ":" in self.address else self.address
        return f"{'UDP' if self.udp else 'TCP'} to {inner}:{self.port}"


def target(text: str, *, udp: bool, size: int) -> Target:
    """``ADDRESS``, ``IPV4:PORT`` or ``[IPV6]:PORT``.

    :raises CniError: INVALID_CONFIG.
    """
    address, port = text, ""
    if text.startswith("["):
        address, _, port = text[1:].partition("]:")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    try:
        found = Target(to_text(*from_text(address)), int(port or 0), udp, size)
    except ValueError:
        found = Target("", -1)
    if not 0 <= found.port <= 65535 or (text.startswith("[") and not found.port):
        raise CniError(INVALID_CONFIG, f"--to {text} is no address", "write ADDRESS, IPV4:PORT or [IPV6]:PORT")
    least = packets.HEADERS[version(found.address)]
    if (udp and not found.port) or (size and found.port):
        raise CniError(INVALID_CONFIG, "--udp needs a port in --to, and --size needs none", "leave one of them out")
    if size and not least <= size <= 65535:
        raise CniError(INVALID_CONFIG, f"--size {size} is not the size of a ping", f"write {least} to 65535")
    return found


class Probe:
    """A probe that is on its way. ``headers``: of its packets, as the container sends them. ``unsent``: why it is not.

    :param foreign: its source may be somebody else's address.
    """

    def __init__(self, place: Place, to: Target, ifname: str, *, foreign: bool = False) -> None:
        self._to = to
        self._family = version(to.address)
        self._number = struct.unpack("!H", os.urandom(2))[0]
        kind = socket.SOCK_RAW if not to.port else socket.SOCK_DGRAM if to.udp else socket.SOCK_STREAM
        self.socket = open_socket(place, FAMILIES[self._family], kind, to.protocol if not to.port else 0)
        self.headers = Headers("", to.address, to.protocol)
        self.unsent: Outcome | None = None
        level, discovery, do, keep_errors, transparent = OPTIONS[self._family]
        self.socket.setsockopt(level, keep_errors, 1)
        if foreign:
            self.socket.setsockopt(level, transparent, 1)
        if to.size:
            self.socket.setsockopt(level, discovery, do)
        self.socket.setblocking(False)
        zone = place.run(lambda: _index(ifname)) if is_link_local(to.address) else 0
        self._end = (to.address, to.port, 0, zone) if self._family == 6 else (to.address, to.port)

    def close(self) -> None:
        self.socket.close()

    @property
    def connects(self) -> bool:
        """Whether its socket tells by being writable that it has an outcome."""
        return self._to.protocol == TCP

    def bind(self, source: str) -> None:
        """Choose the source and the port before anything is sent, so that nothing of it is missed."""
        if not source:
            self.unsent = Outcome(UNSENT, f"it has no IPv{self._family} address")
            return
        try:
            zone = self._end[3:] if is_link_local(source) else ()
            self.socket.bind((source, 0, 0, *zone) if self._family == 6 and zone else (source, 0))
        except OSError as error:
            self.unsent = Outcome(UNSENT, f"{source} is not its address: {_words(error)}")
        ports = (self.socket.getsockname()[1], self._to.port) if self._to.port else ()
        number = -1 if self._to.port else self._number
        kind = -1 if self._to.port else packets.ECHO_REQUEST[self._family]
        self.headers = Headers(source, self._to.address, self._to.protocol, ports, kind, number)

    def send(self) -> None:
        """Send it. What the container's own kernel refuses at once is in ``unsent``."""
        if self.unsent:
            return
        try:
            if self._to.protocol == TCP:
                code = self.socket.connect_ex(self._end)
                if code not in (0, errno.EINPROGRESS):
                    raise OSError(code, os.strerror(code))
                return
            self.socket.connect(self._end)
            size = max(0, self._to.size - packets.HEADERS[self._family]) if self._to.size else PAYLOAD
            self.socket.send(DATAGRAM if self._to.port
                             else packets.echo_request(self._family, self._number, bytes(size)))
        except OSError as error:
            self.unsent = Outcome(TOO_BIG if error.errno == errno.EMSGSIZE else UNSENT, _words(error))

    def outcome(self) -> Outcome | None:
        """What has come of it; None as long as nothing has."""
        try:
            if self._to.protocol == TCP:
                return self._of_connection()
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return None
        except OSError as error:
            return self._of_error(error)
        if self._to.udp or packets.is_reply(self._family, data, self._number):
            return Outcome(ANSWERED)
        return None

    def _of_connection(self) -> Outcome | None:
        code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        with suppress(OSError):
            self.socket.getpeername()
            return Outcome(ANSWERED)
        return None

    def _of_error(self, error: OSError) -> Outcome:
        by = self._offender()
        by = "" if by == self.headers.source else by
        if error.errno == errno.ECONNREFUSED and by in ("", self._to.address):
            return Outcome(REFUSED)
        return Outcome(TOO_BIG if error.errno == errno.EMSGSIZE else ERROR, _words(error), by)

    def _offender(self) -> str:
        """Who has sent the ICMP error; "" if it is the container's own kernel, or no ICMP error."""
        level, _, _, keep_errors, _ = OPTIONS[self._family]
        with suppress(OSError):
            _, ancillary, _, _ = self.socket.recvmsg(1 << 16, 512, MSG_ERRQUEUE)
            for kind, number, data in ancillary:
                if (kind, number) == (level, keep_errors) and ERROR_HEADER.unpack_from(data)[1] in SENT_BY_ICMP:
                    at = ERROR_HEADER.size + (8 if self._family == 6 else 4)
                    size = 16 if self._family == 6 else 4
                    return socket.inet_ntop(FAMILIES[self._family], data[at:at + size])
        return ""


def _index(ifname: str) -> int:
    return socket.if_nametoindex(ifname)


def _words(error: OSError) -> str:
    return (os.strerror(error.errno) if error.errno else str(error)).lower()
