"""Several blocks a node: containers fill a small one, and end again; real agents, engines, containers and routes."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

import pytest
from netaddr import IPAddress, IPNetwork

from tests.bird import Bird
from tests.netns import cluster_bgp, networks, wire
from tests.netns.cluster import FAMILIES, POOL6, TEMPLATE, Cluster, Member, cluster, has_ways, reach
from tests.netns.networks import Pod
from tests.netns.test_cluster_report import await_report
from tests.sandbox import PLUGIN_PATH

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]

SMALL4 = "10.244.0.0/27"  # four blocks of five containers
POOLS = ({"cidr": POOL6, "block": 125}, {"cidr": SMALL4, "block": 29})
CTL = f"{PLUGIN_PATH[0]}/cni-v6ctl"
NUMBERS = count()  # of containers


def template(main: str = networks.BRIDGE) -> Mapping[str, Any]:
    """A released address may be used again at once, and so may a block that is given back."""
    [plugin] = TEMPLATE["plugins"]
    plugin = {**plugin, "type": main, "ipam": {"type": "cni-v6-ipam", "reuseAfter": "0s"}}
    if main != networks.BRIDGE:
        plugin = {key: value for key, value in plugin.items() if key not in networks.OF_A_BRIDGE}
    return {**TEMPLATE, "plugins": [plugin]}


@pytest.fixture(params=[
    pytest.param(("direct", networks.BRIDGE), id="direct, bridge"),
    pytest.param(("vxlan", networks.ROUTED), id="vxlan, routed"),
    pytest.param(("srv6", networks.BRIDGE), id="srv6, bridge"),
])
def three(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    carrier, main = request.param
    with cluster("a", "b", "c", template=template(main), pools=POOLS, carrier=carrier, giveBackAfter="1s") as made:
        made.start()
        yield made


@pytest.fixture
def alone() -> Iterator[Member]:
    """A node of a cluster without others."""
    with cluster("a", template=template(), pools=POOLS, giveBackAfter="1s") as made:
        made.start()
        yield made.members[0]


def of_family(member: Member, family: int) -> list[str]:
    """The blocks of a family that the node's network has."""
    return [block for block in member.blocks() if _family(block) == family]


def _family(text: str) -> int:
    return 6 if ":" in text else 4


def is_in(pod: Pod, block: str) -> bool:
    return IPAddress(pod.address(_family(block))) in IPNetwork(block)


def start(member: Member, number: int) -> list[Pod]:
    """Start containers, each by the configuration list that there is then."""
    made = []
    for _ in range(number):
        made.append(Pod(member.node, member.config(), f"pod{next(NUMBERS)}"))
        made[-1].add()
    return made


def await_blocks(member: Member, family: int, number: int) -> None:
    """Wait until the node's network has so many blocks of a family."""
    place = FAMILIES[::-1].index(family)
    member.await_config(lambda config: len(config["ipam"]["ranges"][place]) == number)


def grow(member: Member) -> list[Pod]:
    """Start containers until the node has two blocks of each family, and containers in all of them."""
    made = start(member, 4 - len(member.node.containers))
    await_blocks(member, 4, 2)
    made += start(member, 1)
    await_blocks(member, 6, 2)
    made += start(member, 3)
    assert all(any(is_in(pod, block) for pod in made) for block in member.blocks())
    return made


def end(pods: Sequence[Pod]) -> None:
    for pod in pods:
        pod.delete()


def await_ways(made: Cluster) -> None:
    """Wait until each node has a route to each block of the others."""
    for member in made.members:
        blocks = [block for other in made.members if other is not member for block in other.blocks()]
        wire.await_state(member.node.path, partial(has_ways, member, blocks), f"routes of {member.name} to {blocks}")


def own_addresses(member: Member, block: str) -> list[str]:
    """The node's own addresses in a block."""
    links = member.node.ip_json(f"-{_family(block)}", "address", "show")
    found = [entry["local"] for link in links for entry in link["addr_info"]]
    return [address for address in found if IPAddress(address) in IPNetwork(block)]


def unreachable(member: Member) -> set[str]:
    """The blocks of the node by its routes."""
    return {route.split()[1] for route in member.routes() if route.startswith("unreachable")}


def ctl(member: Member, *arguments: str) -> list[dict[str, Any]]:
    """What ``cni-v6ctl`` says, an object a line."""
    said = member.node.run(CTL, *arguments, "--json", env=member.node.environment).stdout
    return [json.loads(line) for line in said.splitlines()]


def started(member: Member) -> str:
    """When the node's engine was started."""
    said: str = member.node.run(CTL, "metrics", env=member.node.environment).stdout
    return said.partition("\ncni_v6_engine_start_time_seconds ")[2].partition("\n")[0]


def shown(member: Member, name: str) -> dict[str, Any]:
    found = {document["node"]: document for document in ctl(member, "nodes", "--cluster", member.cluster.store)}
    return dict(found[name])


def test_a_block_runs_full_and_goes_to_another_node(three: Cluster) -> None:
    """Containers of all blocks talk. What one node gives back, another one has, and is reached there."""
    a, b, c = three.members
    six, four = a.blocks()
    first = start(a, 1)[0]
    assert (engine := started(a))
    pods = [first, *start(a, 3)]
    await_blocks(a, 4, 2)
    pods += start(a, 1)
    await_blocks(a, 6, 2)
    pods += start(a, 3)
    assert of_family(a, 6)[0] == six and of_family(a, 4)[0] == four
    assert started(a) == engine and first.check().ok() is None
    some = [next(pod for pod in pods if is_in(pod, block)) for block in a.blocks()]
    await_ways(three)
    reach([*dict.fromkeys(some), b.pod, c.pod])
    assert set(a.blocks()) <= unreachable(a) and set(shown(a, "a")["blocks"]) == set(a.blocks())
    if a.config()["type"] == networks.BRIDGE:
        assert all(own_addresses(a, block) for block in a.blocks())

    # The pool of IPv4 is exhausted now. b has one block of it, which runs full.
    its = [b.pod, *start(b, 3)]
    b.says(f"fewer than 2 addresses of pool {SMALL4} are left on this node, and the pool has no free block of /29")
    its += start(b, 1)
    assert "10.244.0." in Pod(b.node, b.config(), "more").call("ADD").error(101)
    reach([its[-1], some[0]])

    # The first blocks of a get empty. b takes that of IPv4, and a container of a finds it there.
    left = [pod for pod in pods if not is_in(pod, six) and not is_in(pod, four)][-1:]
    end([pod for pod in pods if pod not in left])
    b.await_config(lambda config: {"subnet": four} in config["ipam"]["ranges"][1])
    assert four not in a.blocks() and not own_addresses(a, four) and not own_addresses(a, six)
    its += start(b, 2)
    assert is_in(its[-1], four) and left[-1].check().ok() is None
    await_ways(three)
    reach([its[-1], left[-1], c.pod])
    end([*left, *its])
    assert [len(of_family(member, 6)) for member in (a, c)] == [1, 1]


def leaves(member: Member, block: str) -> Any:
    """Wait until a block has left the configuration list; the list before that."""
    before = member.config()
    assert block in member.blocks()
    member.await_config(lambda config: {"subnet": block} not in [*config["ipam"]["ranges"][0],
                                                                 *config["ipam"]["ranges"][1]])
    return before


def test_a_runtime_that_has_read_the_list_before(alone: Member) -> None:
    """What it starts then has an address of a block that has left the list: the block stays the node's."""
    pods = grow(alone)
    second = of_family(alone, 4)[1]
    end(pods)
    before = leaves(alone, second)
    late = Pod(alone.node, before, "late")
    late.add({**before, "args": {"cni": {"ips": [str(IPNetwork(second)[3])]}}})
    await_blocks(alone, 4, 2)
    assert second in alone.blocks() and second in unreachable(alone)
    assert late.ping(late.gateway(4)) and late.check().ok() is None
    end([late])
    alone.cluster.await_objects(lambda objects: f"blocks/{second}" not in objects)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["ended", "killed"])
def test_an_agent_is_replaced_while_a_block_leaves(alone: Member, number: int) -> None:
    """The next one begins to wait anew; nothing is left of the block in the end.

    That the network had its gateway is remembered until the next ADD.
    """
    before = start(alone, 1)
    with alone.node.unchanged(r"store pods/attachments/\.memo"):
        pods = grow(alone)
        blocks = alone.blocks()
        end(pods)
        for pod in pods:
            alone.node.remove_container(pod.name)
        leaves(alone, blocks[3])
        alone.stop(number)
        alone.start()
        alone.cluster.await_objects(lambda objects: len(alone.blocks_in_store()) == 2)
        wire.await_state(alone.node.path, lambda: len(unreachable(alone)) == 2, "the routes of two blocks")
        assert not any(own_addresses(alone, block) for block in blocks[1::2])
        assert alone.blocks() == blocks[::2]
    assert before[0].check().ok() is None
    start(alone, 1)
    memo = json.loads(alone.node.file(f"{networks.STORE}/pods/attachments/.memo").read_text())
    assert memo["draining"] == [] and len(memo["live"]) == 2


def test_the_store_is_away_while_a_block_runs_full(alone: Member) -> None:
    """The containers go on, and new ones are started as long as there are addresses."""
    pods = start(alone, 3)
    store = alone.cluster.folder / "store/cluster.json"
    content = store.read_text()
    store.write_text("garbage")
    try:
        pods += start(alone, 1)
        alone.says(f"fewer than 2 addresses of pool {SMALL4} are left on this node, and it can claim no other block")
        pods += start(alone, 1)
        assert pods[0].ping(pods[4].address(4)) and len(of_family(alone, 4)) == 1
    finally:
        store.write_text(content)
    await_blocks(alone, 4, 2)
    pods += start(alone, 1)
    assert is_in(pods[-1], of_family(alone, 4)[1]) and pods[0].ping(pods[-1].address(4))


def test_what_doctor_and_metrics_say(alone: Member) -> None:
    """Of a node with several blocks; a full one among them is no trouble."""
    pods = grow(alone)
    config = alone.config()
    alone.stop()
    alone.start(reportEvery="1s")
    assert alone.config() == config
    found = await_report(alone.cluster, lambda found: len(found["a"]["leased"]) == 4)
    leased = {block: known["leases"] for block, known in found["a"]["leased"].items()}
    assert leased == {block: sum(is_in(pod, block) for pod in pods) for block in alone.blocks()}
    said = alone.node.run(CTL, "doctor", "--json", check=False, env=alone.node.environment).stdout
    assert [finding["level"] for finding in json.loads(said) if finding["check"] in ("agent", "block")] == ["green"]
    numbers = alone.node.run(CTL, "metrics", env=alone.node.environment).stdout
    assert all(f'cni_v6_block_leases{{block="{block}"}} {leased[block]}' in numbers for block in alone.blocks())


def test_bird_announces_further_blocks() -> None:
    """And withdraws those that are given back; the sessions stay."""
    with cluster_bgp.nodes(("a", "b"), pools=POOLS, template=template(), giveBackAfter="1s") as (made, birds):
        others = {**cluster_bgp.SLOWLY, "{64,64}": "{125,125}", "{26,26}": "{29,29}"}
        with cluster_bgp.router(made, "route-reflector.conf", "fd00:11::fe/64", others):
            a, b = made.members
            for member in (a, b):
                cluster_bgp.start(member, birds[member.name], cluster_bgp.REFLECTOR)
            cluster_bgp.await_routes(b, [a])
            since = session(birds["a"])
            pods = grow(a)
            cluster_bgp.await_routes(b, [a])
            assert len(a.blocks()) == 4
            some = [next(pod for pod in pods if is_in(pod, block)) for block in a.blocks()]
            reach([*dict.fromkeys(some), b.pod])
            end(pods)
            made.await_objects(lambda objects: len(a.blocks_in_store()) == 2)
            cluster_bgp.await_routes(b, [a])
            assert session(birds["a"]) == since


def session(bird: Bird) -> str:
    """Since when the session is there."""
    [line] = [line for line in bird.ask("show protocols").splitlines() if "cni_v6_peer1" in line]
    return line
