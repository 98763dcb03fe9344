"""A CNI type is a module and a row of the registry: a main plugin of this test's own, in the frame of all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from cni_v6 import errors
from cni_v6.attachments.context import Context
from cni_v6.attachments.register import Network
from cni_v6.config.bridge import parse_bridge
from cni_v6.config.main import MainConf, RemovalConf
from cni_v6.errors import CniError
from cni_v6.kernel import ops
from cni_v6.kernel.ops import HOST
from cni_v6.kernel.questions import GetLink, GetLinks, Question
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.plan import families, features
from cni_v6.plan.site import Allocation, Plan, Site
from cni_v6.plugins.registry import PLUGINS, main_plugin
from cni_v6.protocol import names
from cni_v6.protocol.invocation import Invocation, Request, parse
from cni_v6.protocol.names import Owner, owner_of_alias
from cni_v6.protocol.result import Address, Interface, Result, to_json
from tests.unit.fake_context import CONFIG, FakeContext

MAC = "02:00:00:00:00:77"
SEGMENT = "seg0"


class Segment:
    """A veth on a bridge that is nobody's gateway, of one fixed name."""

    def load(self, call: Invocation, context: Context) -> MainConf:
        conf = parse_bridge(call)
        own = conf.network, False, conf.mtu, "", conf.mac, conf.dns, conf.ipam, conf.firewall
        return MainConf(*own, allow_overlap=False, bandwidth=None, tuning=None, source_routing=None)

    def questions(self, site: Site, conf: MainConf) -> Iterable[Question]:
        return GetLink(HOST, site.host), *families.questions(site.netns), *features.questions(conf)

    def check_free(self, site: Site, conf: MainConf, seen: Snapshot) -> None:
        features.check(conf, seen)
        if seen.link(HOST, site.host):
            raise CniError(errors.ALREADY_ATTACHED, f"{site.host} is there already")

    def network(self, site: Site, conf: MainConf, seen: Snapshot) -> Network:
        return Network(conf, lambda addresses: MAC, is_ours=False)

    def plan_add(self, site: Site, conf: MainConf, allocation: Allocation, seen: Snapshot) -> Plan:
        ifname = site.owner.ifname
        steps: list[ops.Op] = [
            ops.EnsureBridge(SEGMENT, MAC, 1500, multicast_snooping=False, vlan_filtering=False),
            ops.CreateVeth(site.host, names.host_mac(site.owner), SEGMENT, site.netns, ifname, MAC, 1500),
            ops.SetAlias(HOST, site.host, names.alias(site.owner)),
            *(ops.AddAddress(site.netns, ifname, ip.address) for ip in allocation.ips),
            ops.SetLink(site.netns, ifname, up=True),
            *features.arrival_steps(conf, allocation, seen),
        ]
        interfaces = Interface(site.host, names.host_mac(site.owner)), Interface(ifname, MAC, sandbox=site.netns)
        ips = tuple(Address(ip.address, ip.gateway, interface=1) for ip in allocation.ips)
        return Plan(tuple(steps), Result(interfaces, ips, allocation.routes, allocation.dns))

    def check_questions(
        self, site: Site, conf: MainConf, result: Result, record: Attachment | None
    ) -> Iterable[Question]:
        return (GetLink(site.netns, site.owner.ifname),)

    def differences(
        self, site: Site, conf: MainConf, result: Result, record: Attachment | None, seen: Snapshot
    ) -> Iterable[str]:
        if seen.link(site.netns, site.owner.ifname) is None:
            yield f"interface {site.owner.ifname} is missing in the container"

    def ports(
        self, conf: RemovalConf, context: Context, known: frozenset[str], among: frozenset[str] | None = None
    ) -> list[tuple[str, Owner]]:
        named = ((link.name, owner_of_alias(link.alias)) for link in context.kernel.observe([GetLinks()]).links())
        return [(name, owner) for name, owner in named if owner and owner.network == conf.network]

    def status_questions(self, conf: MainConf, node: str, records: Sequence[Attachment]) -> Iterable[Question]:
        return ()

    def more_status_questions(self, conf: MainConf, seen: Snapshot) -> Iterable[Question]:
        return ()

    def check_status(
        self, conf: MainConf, node: str, records: Sequence[Attachment], seen: Snapshot
    ) -> Iterable[str]:
        return ()


COMMANDS = main_plugin(Segment()).commands
OPEN = {**CONFIG, "ingress": "open", "guard": False}


def call(fake: FakeContext, command: str, container_id: str, config: dict[str, Any] = OPEN) -> Result | None:
    """One call of the frame, as ``engine.handle`` makes it."""
    env = {"CNI_COMMAND": command, "CNI_PATH": "/opt/cni/bin"}
    if container_id:
        env |= {"CNI_CONTAINERID": container_id, "CNI_NETNS": f"/run/netns/{container_id}", "CNI_IFNAME": "eth0"}
    invocation = parse(Request("cni-v6", env, json.dumps(config).encode()))
    return COMMANDS[command](invocation, fake.context())


def test_the_frame_attaches_checks_and_frees() -> None:
    fake = FakeContext()
    fake.container("c1")
    result = call(fake, "ADD", "c1")
    assert result and {interface.name for interface in result.interfaces if interface.sandbox} == {"eth0"}
    assert {ip.address for ip in result.ips} == {"2001:db8:1::2/64", "10.1.0.2/24"}
    [record] = fake.attachments()
    assert record.addresses == ("2001:db8:1::2", "10.1.0.2")
    checked = {**OPEN, "prevResult": to_json(result, "1.1.0")}
    call(fake, "CHECK", "c1", checked)
    call(fake, "STATUS", "")
    with pytest.raises(CniError) as refused:
        call(fake, "ADD", "c1")
    assert refused.value.code == errors.ALREADY_ATTACHED
    call(fake, "DEL", "c1")
    assert fake.attachments() == []
    with pytest.raises(CniError, match="not leased") as lacking:
        call(fake, "CHECK", "c1", checked)
    assert lacking.value.code == errors.CHECK_FAILED


def test_what_a_main_plugin_does_not_say() -> None:
    env = {"CNI_COMMAND": "STATUS", "CNI_PATH": "/opt/cni/bin"}
    conf = Segment().load(parse(Request("cni-v6", env, json.dumps(OPEN).encode())), FakeContext().context())
    assert (conf.gateway_interface, conf.is_isolated, conf.is_trunk) == ("", False, False)


def test_what_the_runtime_forgot_is_collected() -> None:
    fake = FakeContext()
    fake.container("c1")
    call(fake, "ADD", "c1")
    fake.now += 10
    call(fake, "GC", "", {**OPEN, "cni.dev/valid-attachments": []})
    assert fake.attachments() == []
    assert "veth" not in {link.kind for link in fake.kernel.spaces[HOST].links.values()}


def test_a_failure_is_undone() -> None:
    fake = FakeContext()
    with pytest.raises(CniError) as gone:
        call(fake, "ADD", "gone")
    assert gone.value.code == errors.UNKNOWN_CONTAINER and fake.attachments() == []


def test_every_row_has_every_command() -> None:
    commands = {"ADD", "DEL", "CHECK", "GC", "STATUS"}
    assert all(plugin.commands.keys() == commands for plugin in PLUGINS.values())
    assert COMMANDS.keys() == commands and len(PLUGINS) == len(set(PLUGINS))
