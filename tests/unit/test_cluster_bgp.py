"""The carrier bgp: its configuration, the file for BIRD, what BIRD answers, what the agent does to it."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from netaddr import IPAddress, IPNetwork

from cni_v6.cluster import bgp, membership, records
from cni_v6.cluster.agent import Outcome
from cni_v6.cluster.bird_messages import Reply, Running, read_protocols, read_reply
from cni_v6.cluster.config import AgentConf, OtherCluster, Peer, Pool, SpeakerConf
from cni_v6.cluster.facts import Route
from cni_v6.cluster.fake import GARBAGE, FakeBird, FakeNode
from cni_v6.cluster.keys import BGP, BIRD_FILE, BIRD_SOCKET
from cni_v6.cluster.store import MemoryStore
from cni_v6.errors import CniError
from tests.sandbox import ROOT
from tests.unit.test_cluster import CONF as DIRECT_CONF, GOOD, POOL4, POOL6, VALIDATOR, A, parsed
from tests.unit.test_cluster_agent import READY, Killed, Place, Stepped, place
from tests.unit.test_cluster_others import EAST4, EAST6, OTHER, Elsewhere, NoNetfilter

GOLDEN = ROOT / "tests/unit/golden/cni-v6-bird.conf"
REFLECTOR = Peer("fd00:11::fe", 64512)
RAW = {**GOOD, "carrier": "bgp", "bgp": {"as": 64512, "peers": [{"address": "fd00:11:0::FE", "as": 64512}]}}
SPEAKER = SpeakerConf(64512, (REFLECTOR,), BIRD_FILE, BIRD_SOCKET)
CONF = replace(DIRECT_CONF, carrier=BGP, bgp=SPEAKER)
BLOCKS = ("fd42:8e1f:6a00:2cb::/64", "10.244.178.192/26")


def rendered(*peers: Peer, conf: AgentConf = CONF, blocks: tuple[str, ...] = BLOCKS, ifname: str = "eth0") -> str:
    return bgp.render(conf, replace(SPEAKER, peers=peers or SPEAKER.peers), blocks, ifname)


# Configuration


def test_a_configuration() -> None:
    assert parsed(RAW) == replace(CONF, state_dir="/var/lib/cni/cluster")
    assert list(VALIDATOR.iter_errors(RAW)) == []
    peer = {"address": "fe80::1", "as": 65000, "bfd": True, "ttlSecurity": False, "include": "/etc/bird/peer.conf"}
    peers = [peer, {"address": "unnumbered", "as": 65000}]
    whole = {**RAW, "carrier": "direct", "bgp": {"as": 1, "peers": peers, "file": "/a/b.conf", "socket": "/run/b"}}
    both = Peer("fe80::1", 65000, True, False, "/etc/bird/peer.conf"), Peer("unnumbered", 65000)
    assert parsed(whole).bgp == SpeakerConf(1, both, "/a/b.conf", "/run/b")
    assert list(VALIDATOR.iter_errors(whole)) == []


@pytest.mark.parametrize(("raw", "says"), [
    (None, "bgp.as is missing"),
    ({"as": 64512}, "bgp.peers: a list is empty"),
    ({"as": 0, "peers": []}, "bgp.as: 0 is not between"),
    ({"as": 4294967295, "peers": []}, "bgp.as: 4294967295 is not between"),
    ({"as": 1, "peers": [{"address": "fd00::1"}]}, "bgp.peers[0].as is missing"),
    ({"as": 1, "peers": [{"as": 1}]}, "bgp.peers[0].address is missing"),
    ({"as": 1, "peers": [{"address": "172.30.0.9", "as": 1}]}, 'bgp.peers[0].address: "172.30.0.9" is no IPv6 address'),
    ({"as": 1, "peers": [{"address": "::1", "as": 1}]}, '"::1" is no IPv6 address of a router'),
    ({"as": 1, "peers": [{"address": "ff02::1", "as": 1}]}, '"ff02::1" is no IPv6 address of a router'),
    ({"as": 1, "peers": [{"address": "fd00::1", "as": 1}, {"address": "fd00:0::1", "as": 2}]},
     'bgp.peers[1].address: "fd00::1" is that of bgp.peers[0]'),
    ({"as": 1, "peers": [{"address": "fd00::1", "as": 1, "include": '/a"; protocol'}]}, "bgp.peers[0].include: "),
    ({"as": 1, "peers": [{"address": "fd00::1", "as": 1}], "file": "/etc/*.conf"}, 'bgp.file: "/etc/*.conf" has chara'),
    ({"as": 1, "peers": [{"address": "fd00::1", "as": 1}], "socket": "/run/a b"}, "bgp.socket: "),
    ({"as": 1, "peers": [{"address": "fd00::1", "as": 1, "bdf": True}]}, 'did you mean "bfd"?'),
    ({"as": 1, "peers": [{"address": "fd00::1\n", "as": 1}]}, "bgp.peers[0].address: "),
    ({"as": 1, "peers": [{"address": "unnumberd", "as": 1}]}, 'or "unnumbered"'),
    ({"as": 1, "peers": [{"address": "unnumbered", "as": 1}] * 2}, "is that of bgp.peers[0]"),
])
def test_a_configuration_that_is_refused(raw: Any, says: str) -> None:
    with pytest.raises(CniError) as caught:
        parsed({**RAW, "bgp": raw})
    assert says in str(caught.value) and caught.value.details


# The file


def test_the_file() -> None:
    """Golden; written anew by ``python -m tests.unit.test_cluster_bgp``."""
    assert golden() == GOLDEN.read_text(encoding="utf-8")


def golden() -> str:
    tor = Peer("fe80::1", 65000, bfd=True, ttl_security=False, include="/etc/bird/peer.conf")
    return rendered(REFLECTOR, tor, Peer("unnumbered", 65001))


def test_a_small_block_and_one_family() -> None:
    pool = Pool("fd42:8e1f:6a00::/48", 122)
    text = rendered(conf=replace(CONF, pools=(pool,)), blocks=("fd42:8e1f:6a00::7:40/122",))
    assert "route fd42:8e1f:6a00::7:40/122 unreachable;" in text and "ipv4" not in text
    assert "import where net ~ [ fd42:8e1f:6a00::/48{122,122} ] && !(net ~ [ fd42:8e1f:6a00::7:40/122 ]);" in text


def test_a_pool_without_a_block_yet_learns_all_the_same() -> None:
    text = rendered(blocks=BLOCKS[:1])
    assert "import where net ~ [ 10.244.0.0/16{26,26} ];" in text and "10.244.178" not in text


def test_blocks_of_other_clusters_are_learnt() -> None:
    east = OtherCluster("east", "file:/east", (Pool("fd42:8e1f:6b00::/48", 64), Pool("10.245.0.0/16", 24)))
    text = bgp.render(CONF, SPEAKER, BLOCKS[:1], "eth0", east.pools)
    assert "import where net ~ [ 10.244.0.0/16{26,26}, 10.245.0.0/16{24,24} ];" in text
    assert "net ~ [ fd42:8e1f:6a00::/48{64,64}, fd42:8e1f:6b00::/48{64,64} ] && !(net ~ [ " in text


def test_the_tag_is_that_of_the_content() -> None:
    tags = {bgp.tag_of(text) for text in (rendered(), rendered(), rendered(blocks=BLOCKS[:1]), golden())}
    assert len(tags) == 3 and all(re.fullmatch("[0-9a-f]{16}", tag) for tag in tags)
    assert bgp.tag_of(bgp.IDLE) == ""


def identifier(pool: Pool, block: str) -> IPAddress:
    found = re.search("router id (.*);", rendered(conf=replace(CONF, pools=(pool,)), blocks=(block,)))
    assert found
    return IPAddress(found[1])


@pytest.mark.parametrize(("pool", "first", "other", "apart"), [
    (POOL6, "fd42:8e1f:6a00::/64", "fd42:8e1f:6a00:ffff::/64", 0xFFFF),
    (POOL4, "10.244.0.0/26", "10.244.0.64/26", 1),
    (Pool("fd42::/48", 122), "fd42::/122", "fd42::7:40/122", 0x1C01),
])
def test_the_identifier_of_a_node(pool: Pool, first: str, other: str, apart: int) -> None:
    """Nodes of another cluster, in the same place of their pool, have others."""
    assert int(identifier(pool, other)) - int(identifier(pool, first)) == apart
    assert identifier(Pool("fd43::/48", 64), "fd43::/64") != identifier(Pool("fd44::/48", 64), "fd44::/64")


@given(number=st.integers(0, (1 << 80 - 48) - 1))
def test_no_identifier_is_a_multicast_address_or_zero(number: int) -> None:
    """FRR takes none of them."""
    block = IPNetwork(((0xFD42 << 112) + (number << 48), 80), version=6)
    found = identifier(Pool("fd42::/48", 80), str(block))
    assert 0 < int(found) < int(IPAddress("224.0.0.0"))


@pytest.mark.parametrize("ifname", ['eth"0', "a;b", "{}", "a\nb"])
def test_an_interface_that_cannot_be_named(ifname: str) -> None:
    assert ifname not in rendered(ifname=ifname)
    for address in ("fe80::1", "unnumbered"):
        with pytest.raises(CniError, match="cannot be named in BIRD's configuration"):
            rendered(Peer(address, 64512), ifname=ifname)


@settings(max_examples=50)
@given(key=st.sampled_from([*BLOCKS, "fd42:8e1f:6a00:2cb::/64", "0.0.0.0/0"]),
       more=st.text('";{}\n/ 0', max_size=6), node=st.text('a";{}\n', max_size=4))
def test_nothing_of_the_store_is_in_the_file_but_blocks(key: str, more: str, node: str) -> None:
    """Other nodes write the store. What of it this node takes for its blocks are prefixes in canonical form."""
    claim = records.encode_claim(records.Claim("", node, A.id))
    own = membership.own_blocks(replace(A, name=node), CONF, records.read({f"blocks/{key}{more}": claim}))
    assert set(own) <= set(BLOCKS)


# What BIRD says

REPLY = (
    b"2002-Name       Proto      Table      State  Since         Info\n"
    b"1002-kernel1    Kernel     master4    up     21:37:44.292  \n"
    b"1002-kernel2    Kernel     master6    down   21:37:44.292  \n"
    b"1002-other      Static     master6    up     21:37:44.292  \n"
    b"1006-  Description:    cni-v6 00000000\n"
    b"+unasked\n"
    b"1002-cni_v6_blocks6 Static cni_v6_6   up     21:37:44.292  \n"
    b"1006-  Description:    cni-v6 0123abcd\n"
    b"   Channel ipv6\n     State:          UP\n \n"
    b"1002-cni_v6_peer1 BGP      ---        up     21:37:44.292  \n"
    b"1002-bfd1       BFD        ---        up     21:37:44.292  \n"
    b"1002-short\n"
    b"0000 \n"
)


def test_an_answer() -> None:
    reply = read_reply(REPLY)
    assert reply and reply.code == 0
    assert read_protocols(reply) == Running("0123abcd", frozenset({"master4"}), bfd=True)
    assert [read_reply(REPLY[:end]) for end in range(len(REPLY))] == [None] * len(REPLY)
    assert read_reply(b" before\n8003 No protocols match\n") == Reply(((8003, "No protocols match"),))


def test_protocols_of_ours_without_a_tag() -> None:
    reply = read_reply(b"1002-cni_v6_peer1 BGP --- up 21:37:44.292\n0000 \n")
    assert reply and read_protocols(reply) == Running("?")


def test_what_an_answer_says_cannot_hurt_a_terminal() -> None:
    reply = read_reply(b"0002-Reading\n8002 /etc/bird/x.conf:1:2 \x1b[2Junexpected \xff" + b"!" * 1000 + b"\n")
    assert reply and reply.code == 8002
    assert reply.words.startswith("/etc/bird/x.conf:1:2 \\x1b[2Junexpected") and len(reply.words) == 300


# The step


@pytest.fixture
def a() -> Place:
    return place("a", MemoryStore(), 1, CONF)


def test_a_node_announces_its_blocks(a: Place) -> None:
    """Routes to others' blocks are BIRD's."""
    bird = FakeBird()
    place("b", a.store, 2, CONF).agent(speaker=FakeBird()).step()
    agent = a.agent(speaker=bird)
    assert agent.step() == READY and a.said == []
    assert bird.written == ["replace", "reload"] and bird.file
    assert re.findall("route (.*) unreachable;", bird.file) == list(a.blocks())
    assert a.kernel.entries == set(map(Route, a.blocks()))
    assert a.disk.conflist and '"mtu": 1500' in a.disk.conflist
    assert agent.step() == READY and a.agent(speaker=bird).step() == READY
    assert bird.written == ["replace", "reload"]


def test_bird_is_away_and_back(a: Place) -> None:
    bird = FakeBird()
    bird.runs = False
    agent = a.agent(speaker=bird)
    assert agent.step() == Outcome(ready=True, complete=False) and bird.file is None
    [words] = a.said
    assert words.startswith("BIRD does not run: nothing listens at /run/bird/bird.ctl: start it")
    bird.start()
    assert agent.step() == READY and a.said[1:] == ["all is well again"]
    bird.runs = False
    assert not agent.step().complete
    bird.start()  # it reads the file by itself
    before = list(bird.written)
    assert agent.step() == READY and bird.written == before


def test_a_file_that_somebody_changes_is_written_again(a: Place) -> None:
    """BIRD is not told: it goes on with what it has read."""
    bird = FakeBird()
    agent = a.agent(speaker=bird)
    agent.step()
    right, bird.file = bird.file, GARBAGE
    assert agent.step() == READY and bird.file == right and bird.written[2:] == ["replace"]
    bird.file = GARBAGE
    with pytest.raises(CniError, match="goes on with the one before"):
        bird.reload()
    assert agent.step() == READY and bird.file == right


def test_what_bird_refuses(a: Place) -> None:
    """A file that it would not take is not written."""
    bird = FakeBird()
    peers = (replace(REFLECTOR, include=f"/etc/{GARBAGE}"),)
    a.conf = replace(CONF, bgp=replace(SPEAKER, peers=peers))
    assert a.agent(speaker=bird).step() == Outcome(ready=True, complete=False)
    assert bird.file is None and "BIRD refuses what the file would be" in a.said[0]
    a.conf = CONF
    bird.broken = "bird.conf:1:1 syntax error"
    agent = a.agent(speaker=bird)
    assert not agent.step().complete and a.said[1].endswith("goes on with the one before: bird.conf:1:1 syntax error")
    assert not agent.step().complete and bird.written == ["replace"]
    bird.broken = ""
    assert agent.step() == READY and bird.written == ["replace", "reload"]


def test_a_block_that_is_lost_is_not_announced_until_bird_takes_the_new_file(a: Place) -> None:
    bird = FakeBird()
    agent = a.agent(speaker=bird)
    agent.step()
    announced = bird.file
    assert announced
    bird.file = announced.replace("\troute ", "\troute fd42:8e1f:6a00:77::/64 unreachable;\n\troute ", 1)
    peers = (replace(REFLECTOR, include=f"/etc/{GARBAGE}"),)
    a.conf = replace(CONF, bgp=replace(SPEAKER, peers=peers))
    assert not a.agent(speaker=bird).step().complete and bird.file == bgp.IDLE
    a.conf = CONF
    assert a.agent(speaker=bird).step() == READY and bird.file == announced


def test_other_clusters_that_cannot_be_kept_out_or_overlap_are_not_learnt() -> None:
    """The routes would be BIRD's, and not the agent's."""
    spoilt = replace(OTHER, name="west", pools=(Pool("fd00:11::/32", 64),))
    conf = replace(CONF, clusters=(OTHER, spoilt))
    learnt = []
    for kernel in (NoNetfilter, FakeNode):
        bird, node = FakeBird(), place("a", MemoryStore(), 1, conf)
        node.kernel = kernel(node.underlay)
        node.agent(speaker=bird, other_stores={"east": Elsewhere({}), "west": Elsewhere({})}).step()
        learnt.append([cidr for cidr in (EAST6.cidr, EAST4.cidr, "fd00:11::/32") if cidr in (bird.file or "")])
    assert learnt == [[], [EAST6.cidr, EAST4.cidr]]


def test_what_is_the_operators(a: Place) -> None:
    bird = FakeBird()
    a.conf = replace(CONF, bgp=replace(SPEAKER, peers=(replace(REFLECTOR, bfd=True),)))
    bird.includes = False
    agent = a.agent(speaker=bird)
    assert not agent.step().complete and "BIRD does not read /var/lib/cni/bird/cni-v6.conf" in a.said[0]
    bird.includes, bird.bfd = True, False
    bird.kernels = {"master4"}
    assert not agent.step().complete
    assert "gives the kernel no routes of IPv6" in a.said[1] and "BIRD has no BFD" in a.said[2]
    bird.bfd, bird.kernels = True, {"master4", "master6"}
    assert agent.step() == READY


def test_a_reload_that_takes_its_time(a: Place) -> None:
    class Slow(FakeBird):
        def reload(self) -> bool:
            super().reload()
            return False

    assert a.agent(speaker=Slow()).step() == READY


def test_an_interface_that_bird_cannot_name(a: Place) -> None:
    a.conf = replace(CONF, bgp=replace(SPEAKER, peers=(Peer("fe80::1", 1),)))
    a.kernel.underlay = replace(a.underlay, ifname='eth"0')
    bird = FakeBird()
    assert a.agent(speaker=bird).step() == Outcome(ready=True, complete=False)
    assert bird.file is None and "cannot be named" in a.said[0]


def test_without_the_interface_to_the_others_the_file_stays(a: Place) -> None:
    bird = FakeBird()
    agent = a.agent(speaker=bird)
    agent.step()
    a.kernel.underlay, before = None, bird.file
    agent.step()
    assert bird.file == before


@pytest.mark.parametrize("runs", [True, False])
def test_a_node_that_is_removed_announces_nothing(a: Place, runs: bool) -> None:
    bird = FakeBird()
    agent = a.agent(speaker=bird)
    agent.step()
    bird.runs = runs
    a.store.commit(membership.removal("a", a.store.objects, records.read(a.store.objects)))
    assert agent.step() == Outcome(ready=False, complete=True, removed=True)
    assert bird.file == bgp.IDLE
    bird.start()
    assert bird.running() == Running("", frozenset({"master4", "master6"}), bfd=True)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("removed", [False, True])
def test_ended_anywhere_the_next_one_goes_on(removed: bool, after: bool) -> None:
    """What BIRD has read is at last what it must be: for a node that is removed nothing, before it comes back."""
    for number in range(1, 10):
        a, bird, last = place("a", MemoryStore(), 1, CONF), FakeBird(), [number]
        if removed:
            agent = a.agent(speaker=bird)
            agent.step()
            a.store.commit(membership.removal("a", a.store.objects, records.read(a.store.objects)))
            agent._speaker = Stepped(bird, last, after=after)
        else:
            agent = a.agent(speaker=Stepped(bird, last, after=after))
        with suppress(Killed):
            agent.step()
        if last[0] > 0:
            break
        assert removed or a.agent(speaker=bird).step() == READY
        a.conf = replace(CONF, carrier="direct" if removed else BGP)
        assert a.agent(speaker=bird).step() == READY
        running = bird.running()
        assert running and bird.file and running.tag == bgp.tag_of(bird.file)
        assert (bird.file == bgp.IDLE) is removed
    assert number == (3 if removed else 4), "each of the daemon's calls was interrupted"


@settings(max_examples=50)
@given(raw=st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2)
    | st.sampled_from(["", "unnumbered", "fd00::1", "FE80::1", "10.0.0.1", "/a", "/a b", "::ffff:1.2.3.4"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
        st.sampled_from(["address", "as", "bfd", "ttlSecurity", "include"]), inner,
    ),
), key=st.sampled_from(["as", "peers", "file", "socket"]))
def test_what_the_parser_takes_is_valid(raw: Any, key: str) -> None:
    changed = {**RAW, "bgp": {**RAW["bgp"], key: raw}}
    try:
        parsed(changed)
    except CniError:
        return
    assert list(VALIDATOR.iter_errors(changed)) == []


def test_another_carrier_announces_nothing(a: Place) -> None:
    bird = FakeBird()
    a.agent(speaker=bird).step()
    a.conf = replace(CONF, carrier="direct")
    agent = a.agent(speaker=bird)
    assert agent.step() == READY and bird.file == bgp.IDLE and bird.written[2:] == ["replace", "reload"]
    assert agent.step() == READY and len(bird.written) == 4
    fresh = FakeBird()
    assert a.agent(speaker=fresh).step() == READY and fresh.written == []


if __name__ == "__main__":
    GOLDEN.write_text(golden(), encoding="utf-8")
