"""The firewall's tables as text, against golden files; and that nft takes them, where it is there.

After a change that is meant: ``python -m tests.unit.test_ruleset`` writes the golden files anew.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cni_v6.firewall import policy, recovered, ruleset
from cni_v6.firewall.elements import COMMENT_BYTES, elements, published
from cni_v6.firewall.policy import Allowed, Policy, Port
from cni_v6.firewall.sets import BRIDGE, INET, SETS, Element
from cni_v6.protocol.names import Owner

GOLDEN = Path(__file__).with_name("golden")
OWNER = Owner("pods", "c1", "eth0")
PLAIN = Policy(
    "cni0", "veth1", "02:00:00:00:00:01", ("fd00::2", "10.1.0.2"), "fe80::ff:fe00:1", policy.GUARD_FULL,
    policy.PUBLISHED, masquerade=("fd00::2", "10.1.0.2"),
)
ROUTED = replace(PLAIN, home="veth1")
POLICIES = {
    "empty": (),
    "plain": (PLAIN,),
    "everything": (
        replace(
            PLAIN, ingress=policy.ISOLATED, masquerade=("10.1.0.2",), snat=(("fd00::2", "2001:db8::1"),),
            keep=("2001:db8:1::/48", "192.0.2.0/24"),
            ports=(Port("tcp", 80, 8080), Port("udp", 53, 5353, "192.0.2.1"), Port("sctp", 99, 9, "::")),
            egress=(Allowed("2001:db8::/32", "tcp", (443, 443)), Allowed("10.0.0.0/8"), Allowed("::/0", "udp", (1, 9))),
            prefixes=(("fd00::1:0:0:0/80", "2001:db8::1"),),
        ),
        Policy(
            "cni1", "veth2", "02:00:00:00:00:02", ("fd00:1::2",), "fe80::ff:fe00:2", policy.GUARD_MAC,
            snat=(("fd00:1::2", "2001:db8:2::2"),), inbound=(("2001:db8:2::2", "fd00:1::2"),), ingress=policy.PUBLISHED,
            prefixes=(("fd00:1:0:0:1::/80", policy.MASQUERADED), ("2001:db8:3::/96", "")),
        ),
        Policy("cni1", "veth3", "02:00:00:00:00:03", guard=policy.GUARD_LINK),
        Policy(
            "cni1", "veth4", "02:00:00:00:00:04", ("fd00:1::4",), "fe80::ff:fe00:4", policy.GUARD_FULL,
            prefixes=(("fd00:1:0:0:4::/80", ""),),
        ),
    ),
    "routed": (
        ROUTED,
        replace(ROUTED, home="veth2", port="veth2", addresses=("fd00::3",), guard=policy.GUARD_OFF,
                ingress=policy.ISOLATED, masquerade=(), prefixes=(("fd00::1:0:0:0/80", ""),)),
    ),
}


def made_by(*policies: Policy) -> list[Element]:
    owned = [(replace(OWNER, container_id=f"c{number}"), one) for number, one in enumerate(policies)]
    return [each for owner, one in owned for each in elements(owner, one)]


def rendered(name: str) -> str:
    return ruleset.text(made_by(*POLICIES[name])).replace(ruleset.mark(), "cni-v6 MARK")


@pytest.mark.parametrize("name", POLICIES)
def test_the_tables_are_the_golden_ones(name: str) -> None:
    assert rendered(name) == (GOLDEN / f"{name}.nft").read_text()


@pytest.mark.parametrize("name", POLICIES)
def test_an_element_has_the_fields_of_its_set(name: str) -> None:
    for element in made_by(*POLICIES[name]):
        declared = SETS[element.family, element.set]
        assert (len(element.key), len(element.data)) == (len(declared.key), len(declared.data)), element


def test_the_rules_do_not_depend_on_the_attachments() -> None:
    """Constant rules: what differs between no container and some is elements alone."""
    def rules(name: str) -> list[str]:
        lines = rendered(name).splitlines()
        inside = False
        kept = []
        for line in lines:
            inside = inside or line.strip() == "elements = {"
            if not inside:
                kept.append(line)
            inside = inside and line.strip() != "}"
        return kept

    assert rules("empty") == rules("plain") == rules("everything")


def test_every_set_is_used_by_a_rule() -> None:
    for family, name in SETS:
        assert f"@{name} " in f"{ruleset.CHAINS[family]} ".replace("\n", " "), name


def test_the_mark_tells_versions_apart() -> None:
    assert ruleset.mark() == ruleset.mark()
    assert ruleset.mark() in ruleset.text()
    assert ruleset.mark().isprintable() and len(ruleset.mark()) < COMMENT_BYTES


def test_attachments_share_no_element() -> None:
    one = replace(PLAIN, port="a")
    other = replace(
        PLAIN, port="b", mac="02:00:00:00:00:09", link_local="fe80::ff:fe00:9", addresses=("fd00::3",),
        masquerade=("fd00::3",),
    )
    places = [{(each.family, each.set, each.key) for each in elements(OWNER, policy)} for policy in (one, other)]
    assert places[0] & places[1] == set()


def test_a_port_of_any_address_is_published_in_each_family_the_container_has() -> None:
    both = list(published([Port("tcp", 80, 8080)], ["fd00::2", "10.1.0.2", "fd00::3"], "x"))
    assert both == [
        Element(INET, "ports6", ("6", "80"), ("fd00::2", "8080"), "x"),
        Element(INET, "ports4", ("6", "80"), ("10.1.0.2", "8080"), "x"),
    ]
    assert [each.set for each in published([Port("tcp", 80, 8080, "::")], ["fd00::2", "10.1.0.2"])] == ["ports6"]
    assert [each.key for each in published([Port("udp", 53, 53, "192.0.2.1")], ["fd00::2", "10.1.0.2"])] == [
        ("192.0.2.1", "17", "53")
    ]


@pytest.mark.parametrize(("host_ip", "expected"), [
    ("", [("loopback6", ("6", "80"))]), ("::", [("loopback6", ("6", "80"))]),
    ("::1", [("loopback_at6", ("6", "80"))]), ("127.0.0.1", []), ("fd00::9", []),
])
def test_the_ports_that_answer_at_loopback(host_ip: str, expected: list[tuple[str, tuple[str, ...]]]) -> None:
    policy = replace(PLAIN, ports=(Port("tcp", 80, 8080, host_ip),))
    found = [(each.set, each.key) for each in elements(OWNER, policy) if each.set.startswith("loopback")]
    assert found == expected


def test_a_long_name_is_cut_to_what_nft_prints() -> None:
    [element] = [each for each in elements(replace(OWNER, container_id="c" * 300), PLAIN) if each.set == "home4"]
    assert len(element.comment) == COMMENT_BYTES


def test_without_a_guard_nothing_is_bound() -> None:
    assert [each for each in elements(OWNER, replace(PLAIN, guard=policy.GUARD_OFF)) if each.family == BRIDGE] == []


def test_a_routed_container_is_bound_by_its_interface_alone() -> None:
    made = elements(OWNER, ROUTED)
    assert [each.family for each in made if each.set == "bound"] == [INET] and all(each.family == INET for each in made)
    assert "bound" not in {each.set for each in elements(OWNER, replace(ROUTED, guard=policy.GUARD_OFF))}


def test_a_routed_container_that_is_blocked_has_no_address_to_send_from() -> None:
    blocked = Policy("veth3", "veth3", addresses=("fd00::4",), guard=policy.GUARD_BLOCKED, ingress=policy.ISOLATED)
    made = elements(OWNER, blocked)
    assert {each.set for each in made} == {"containers6", "isolated6", "neighbours6", "bound"}
    found = recovered.policy_of(OWNER, "veth3", "veth3", ("fd00::4",), recovered.Present(made))
    assert found and found.guard == policy.GUARD_BLOCKED


@pytest.mark.parametrize("cut", [False, True], ids=["whole comments", "cut comments"])
@pytest.mark.parametrize("name", POLICIES)
def test_the_elements_tell_the_policy(name: str, cut: bool) -> None:
    """What a damaged record said is in the sets, among those of others. A comment that was cut names nobody for sure:
    then the leased addresses decide, and what only the comment tells is left out."""
    owned = [(replace(OWNER, container_id=f"c{number}" + "x" * (300 if cut else 0)), one)
             for number, one in enumerate(POLICIES[name])]
    present = [each for owner, one in owned for each in elements(owner, one)]
    for owner, one in owned:
        found = recovered.policy_of(owner, one.port, one.home, one.addresses, recovered.Present(reversed(present)))
        assert found and found.addresses == one.addresses
        same = set(elements(owner, found)) == set(elements(owner, one))
        assert same or (cut and set(elements(owner, found)) < set(elements(owner, one)))
        if not cut:
            # of another IPAM plugin
            assert recovered.policy_of(owner, one.port, one.home, (), recovered.Present(present))
    stranger = replace(OWNER, container_id="stranger")
    assert recovered.policy_of(stranger, "veth9", "cni0", ("10.1.0.9",), recovered.Present(present)) is None


@pytest.mark.parametrize("ports", [
    (Port("tcp", 80, 8080, "0.0.0.0"),), (Port("tcp", 80, 8080, "::"), Port("tcp", 80, 8081, "0.0.0.0")),
    (Port("udp", 53, 53, "192.0.2.1"), Port("udp", 53, 53, "2001:db8::9")), (Port("tcp", 443, 443),),
])
@pytest.mark.parametrize("guard", [policy.GUARD_OFF, policy.GUARD_MAC, policy.GUARD_LINK, policy.GUARD_BLOCKED])
@pytest.mark.parametrize("egress", [None, (), (Allowed("10.0.0.0/8", "tcp", (80, 81)),)])
def test_the_elements_tell_ports_guard_and_egress(
    ports: tuple[Port, ...], guard: str, egress: tuple[Allowed, ...] | None
) -> None:
    one = replace(PLAIN, ports=ports, guard=guard, egress=egress)
    found = recovered.policy_of(OWNER, one.port, "", one.addresses, recovered.Present(elements(OWNER, one)))
    assert found and set(elements(OWNER, found)) == set(elements(OWNER, one))
    assert (found.guard, found.egress) == (guard, egress) and set(found.ports) == set(ports)


def test_a_prefix_of_one_address() -> None:
    """The kernel lists it as the address; a record has it as a prefix."""
    one = replace(PLAIN, egress=(Allowed("192.0.2.7/32"), Allowed("2001:db8::7/128")), keep=("192.0.2.9/32",))
    listed = [replace(each, key=tuple(field.removesuffix("/32").removesuffix("/128") for field in each.key))
              for each in elements(OWNER, one)]
    found = recovered.policy_of(OWNER, one.port, "", one.addresses, recovered.Present(listed))
    assert found and (set(found.egress or ()), found.keep) == (set(one.egress or ()), one.keep)


def test_who_is_blocked_may_say_nothing() -> None:
    one = replace(PLAIN, guard=policy.GUARD_BLOCKED)
    assert [(each.set, each.key) for each in elements(OWNER, one) if each.family == BRIDGE] == [("bound", (one.port,))]


def main() -> None:
    for name in POLICIES:
        (GOLDEN / f"{name}.nft").write_text(rendered(name))


if __name__ == "__main__":
    main()
