"""What is provably over, case by case: whatever is not known counts as alive."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cni_v6.attachments import stale
from cni_v6.attachments.stale import Here
from cni_v6.kernel.facts import Link
from cni_v6.kernel.questions import GetAlive, GetLinks
from cni_v6.kernel.snapshot import Snapshot
from cni_v6.leases.attachment import Attachment
from cni_v6.protocol import names
from cni_v6.protocol.names import Owner

BOOT, EARLIER = "b007", "b006"
HOME, ELSEWHERE, NETNS = (3, 1), (5, 2), (9, 7)
HERE = Here(BOOT, HOME)
OWNER = Owner("pods", "c1", "eth0")
HOST = names.host_interface(OWNER)
BRIDGED = Attachment(OWNER, ("10.1.0.2",), HOST, NETNS, 1000.0, BOOT, home=HOME)
ALONE = replace(BRIDGED, host="")


def link(name: str, alias: str = "") -> Link:
    return Link(name, "02:00:00:00:00:01", 1500, kind="veth", alias=alias)


def seen(*links: Link, alive: frozenset[tuple[int, int]] = frozenset()) -> Snapshot:
    return Snapshot({GetLinks(): links, GetAlive(frozenset({NETNS})): alive})


@pytest.mark.parametrize(
    ("recorded", "ours", "earlier"),
    [(EARLIER, BOOT, True), (BOOT, BOOT, False), ("", BOOT, False), (EARLIER, "", False), ("", "", False)],
)
def test_an_earlier_boot(recorded: str, ours: str, earlier: bool) -> None:
    assert stale.is_of_earlier_boot(replace(BRIDGED, boot=recorded), ours) is earlier


@pytest.mark.parametrize(
    ("record", "here", "is_one"),
    [
        pytest.param(BRIDGED, HERE, True, id="bridge"),
        pytest.param(ALONE, HERE, True, id="addresses alone"),
        pytest.param(replace(ALONE, home=ELSEWHERE), HERE, True, id="addresses alone, of another node on this kernel"),
        pytest.param(replace(BRIDGED, home=ELSEWHERE), HERE, False, id="another node on this kernel"),
        pytest.param(replace(BRIDGED, home=(0, 0)), HERE, False, id="home not recorded"),
        pytest.param(replace(BRIDGED, home=(0, 0)), Here(BOOT, (0, 0)), False, id="no home known at all"),
        pytest.param(replace(BRIDGED, netns=(0, 0)), HERE, False, id="namespace not recorded"),
        pytest.param(replace(BRIDGED, boot=EARLIER), HERE, False, id="earlier boot"),
        pytest.param(replace(BRIDGED, boot=""), Here("", HOME), False, id="no boot id"),
    ],
)
def test_of_whom_the_kernel_could_say_it(record: Attachment, here: Here, is_one: bool) -> None:
    assert stale.candidates([record], here) == [record] * is_one


@pytest.mark.parametrize(
    ("links", "suspicious"),
    [
        pytest.param([], True, id="no interfaces"),
        pytest.param([link("veth9"), link("veth8", "uplink")], True, id="others"),
        pytest.param([link("veth8", names.alias(replace(OWNER, ifname="net1")))], True, id="the container's other one"),
        pytest.param([link(HOST)], False, id="its own"),
        pytest.param([link("veth8", names.alias(OWNER))], False, id="renamed"),
    ],
)
def test_an_interface_is_missing(links: list[Link], suspicious: bool) -> None:
    assert stale.suspects([BRIDGED], seen(*links)) == [BRIDGED] * suspicious
    assert stale.suspects([ALONE], seen(*links)) == [ALONE]


def test_a_missing_interface_alone_proves_nothing() -> None:
    assert stale.ended([BRIDGED], seen(alive=frozenset({NETNS}))) == []
    assert stale.ended([BRIDGED], seen()) == [BRIDGED]


def test_nothing_is_asked_without_need() -> None:
    nothing = Snapshot({})
    assert stale.first_questions([]) == stale.first_questions([ALONE]) == stale.last_questions([]) == ()
    assert stale.suspects([], nothing) == stale.ended([], nothing) == []
    assert stale.first_questions([BRIDGED]) == (GetLinks(),)
    assert stale.last_questions([BRIDGED, ALONE]) == (GetAlive(frozenset({NETNS})),)
