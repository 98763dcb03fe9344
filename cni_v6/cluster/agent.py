"""The agent's one step: look at the store and the kernel, make both as they must be, say what is in the way.

It runs at the start, whenever the store, the kernel or the leases have news, after a failure, and when a block is due.
A second step that finds nothing changed writes nothing. It may end anywhere, as when killed: the next one goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from cni_v6.cluster import bgp, conflist, membership, others, records, routes
from cni_v6.cluster.blocks import is_free
from cni_v6.cluster.capacity import Leases
from cni_v6.cluster.complaints import Complaints
from cni_v6.cluster.config import AgentConf
from cni_v6.cluster.conflist import Document
from cni_v6.cluster.facts import Facts, NodeKernel, Passage, Underlay, Vacate
from cni_v6.cluster.holdings import Holdings
from cni_v6.cluster.keys import WIREGUARD
from cni_v6.cluster.membership import Member
from cni_v6.cluster.original import Original, Unwritten
from cni_v6.cluster.records import Cluster, Objects
from cni_v6.cluster.routes import Wanted
from cni_v6.cluster.state import Disk, State
from cni_v6.cluster.store import ClusterStore, OtherClusterStore, Registered
from cni_v6.errors import INVALID_CONFIG, NODE_CONFLICT, TRY_AGAIN, CniError

MOST_REFUSALS = 20  # of the kernel that are said one by one
TRIES = 50  # of a claim: each time another node was faster


@dataclass(frozen=True, slots=True)
class Outcome:
    """``ready``: containers can be started. ``complete``: nothing failed that may succeed later without a change.

    ``removed``: an operator has removed the node; it is over. ``again``: the seconds after which there is something to
    do although nothing tells of it; None: never.
    """

    ready: bool
    complete: bool
    removed: bool = False
    again: float | None = None


class Agent:
    """
    :param other_stores: those of the other clusters, by their names.
    :param make_id: makes the id of a node that has none yet.
    :param say: takes a line for the operator.
    :param boot: of the machine: a copy of it has another one.
    :param speaker: for a configuration with ``bgp``.
    :param leases: of the network; None if nobody counts them: then the node has one block of each pool.
    :param now: seconds of a clock that never goes back.
    """

    def __init__(
        self, conf: AgentConf, name: str, template: Document, *, store: ClusterStore, kernel: NodeKernel, disk: Disk,
        make_id: Callable[[], str], say: Callable[[str], None], speaker: bgp.Speaker | None = None,
        other_stores: Mapping[str, OtherClusterStore] | None = None, boot: str = "", leases: Leases | None = None,
        now: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._conf = conf
        self._template = template
        self._store = store
        self._other_stores = other_stores or {}
        self._kernel = kernel
        self._disk = disk
        self._speaker = speaker
        self._say = say
        self.complaints = Complaints(say)
        self.reached = False  # the store could be read then
        self._joined = False  # the store has been reached since the start
        self._claimed = False  # what the node needs of it, in the last step
        self._make_id = make_id
        self._boot = boot
        self._original = Original(boot, disk, conf.state_dir, say)
        self._registered: Registered | None = None  # as it was at last
        self._absent = False  # the store's engine knows nodes, and not this one
        self._reader, self._ways = records.Reader(), routes.Ways()
        self._holdings = Holdings(conf, template, leases, now)
        self._known: tuple[Member, Cluster, tuple[str, ...]] | None = None
        disk.set_ready(False)
        self._state = disk.load() or State(Member(name, make_id()))
        if self._state.member.name != name:
            raise CniError(
                INVALID_CONFIG, f'--node: "{name}", but {conf.state_dir} is of node {self._state.member.name}',
                "start the agent with that name; for a copy of another node's disk, remove the folder",
            )
        disk.save(self._state)  # before the id is in the store

    @property
    def member(self) -> Member:
        return self._state.member

    def known(self) -> tuple[Member, Cluster, tuple[str, ...]] | None:
        """The node, the cluster and the node's blocks as of the last step; None for a node that is no member."""
        return self._known

    def step(self) -> Outcome:
        """
        :raises CniError: NODE_CONFLICT or INVALID_CONFIG, if the node cannot be a member as it is configured.
        """
        facts = self._kernel.observe()
        gate = others.gate(self._conf)
        shut = list(self._shut(facts, gate))  # first: a store that is away takes its time
        if not shut:
            facts = replace(facts, gate=tuple(map(str, gate)))
        complaints = [*routes.complaints(self._conf, facts)]
        facts, refused = self._encrypt(facts)
        failures = [*self._holdings.count(), *refused, *self._look(facts)]
        complaints += self._look_at_others()
        failures += [*self._save(), *self._give_back()]
        cluster, own = self._own()
        network = self._holdings.network(own)
        self._known = (self.member, cluster, own) if own else None
        if self._joined and membership.is_removed(self.member, cluster):
            self._say(f"node {self.member.name} was removed from the cluster: the agent ends")
            return self._withdraw(facts)
        if self._absent:
            complaints.append(f"Kubernetes has no node {self.member.name}: the agent waits for it")
        if self._registered:
            complaints += membership.awaited(self.member, self._conf, cluster, self._registered)
        wanted = self._wanted(cluster, facts.underlay, to_others=not shut)
        complaints += self._holdings.complaints(own, cluster, joined=self._claimed)
        failures += [*shut, *self._reach(facts, wanted)]
        ways = [] if shut else others.usable(self._conf, cluster, facts.underlay)
        failures += bgp.announce(self._speaker, self._conf, own, facts.underlay, ways)
        ready = False
        try:
            ready = self._write_conflist(network, facts.underlay) and not shut
            self._disk.set_ready(ready)
        except CniError as error:
            failures.append(str(error))
        self.complaints.tell([*complaints, *failures, *cluster.complaints, *wanted.complaints])
        return Outcome(ready, complete=not failures, again=self._holdings.wait(own))

    def _own(self) -> tuple[Cluster, tuple[str, ...]]:
        """The cluster, and the node's blocks."""
        cluster = self._reader.read(self._state.objects)
        return cluster, membership.own_blocks(self.member, self._conf, cluster)

    def _shut(self, facts: Facts, gate: tuple[Passage, ...]) -> Iterable[str]:
        """Let in of other clusters who may; yields what the kernel refuses. Then there are no ways to them at all."""
        yield from map(str, self._kernel.apply(routes.gate_difference(facts, gate)))

    def _wanted(self, cluster: Cluster, underlay: Underlay | None, *, to_others: bool) -> Wanted:
        found = routes.wanted(self.member, self._conf, cluster, underlay, self._ways)
        if not to_others:
            return found
        known = {name: records.read(objects) for name, objects in self._state.others.items()}
        return others.with_others(found, self.member, self._conf, cluster, underlay, known)

    def _encrypt(self, facts: Facts) -> tuple[Facts, list[str]]:
        """Make the interface whose public key others must know, for a node that has none; what the kernel refuses."""
        if self._conf.carrier != WIREGUARD or facts.public_key:
            return facts, []
        wanted = routes.wanted(self.member, self._conf, self._reader.read(self._state.objects), facts.underlay)
        refused = self._kernel.apply(routes.device_difference(facts, wanted))
        return self._kernel.observe(), [*map(str, refused)]

    def _reach(self, facts: Facts, wanted: Wanted) -> Iterable[str]:
        """Make the kernel as it must be; yields what it refuses."""
        device = list(routes.device_difference(facts, wanted))
        if device:
            yield from map(str, self._kernel.apply(device))
            facts = self._kernel.observe()  # with an interface go its routes
        refused = self._kernel.apply(routes.difference(facts, wanted))
        yield from map(str, refused[:MOST_REFUSALS])
        if refused[MOST_REFUSALS:]:  # another cluster's store decides how many there are
            yield f"the kernel refuses {len(refused) - MOST_REFUSALS} more"

    def _look(self, facts: Facts) -> Iterable[str]:
        """Read the store, and make the node a member; yields what is in the way."""
        objects: Objects = {}
        self._claimed = False
        try:
            objects = self._store.read()
            registered = self._register(objects)
            refusal = None if self._joined else self._original.known(self._state, self._reader.read(objects))
            if refusal:
                raise refusal
            # A link that is down has lost its IPv6 addresses.
            has_key = facts.public_key or self._conf.carrier != WIREGUARD
            if facts.underlay and facts.underlay.up and registered and has_key:
                try:
                    objects = self._join(objects, facts.underlay, registered, facts.public_key)
                    self._joined = self._claimed = True
                except Unwritten as error:
                    yield ("the node, which may be a copy of another one, is no member before the disk has taken down "
                           f"whose record it replaces: {error}")
            cluster = self._reader.read(objects)
        except CniError as error:
            if error.code == NODE_CONFLICT:  # its blocks, if it had any, went with its name
                if not self._state.rival:
                    self._state = replace(self._state, objects=objects)
                self._withdraw(facts)
                for words in self._save():  # nor may a start without the store have them
                    self._say(words)
            if error.code in (NODE_CONFLICT, INVALID_CONFIG):
                raise
            self.reached = False
            yield f"the cluster's store cannot be used, so the node goes on with what it knows: {error}"
            return
        self.reached = True
        lost = self._lost(cluster)
        if lost:
            yield "the cluster's store has lost blocks of this node: it keeps them, and cannot claim them again now"
        self._state = replace(self._state, objects={**objects, **lost} if lost else objects)
        unheard = self._store.unheard()
        if unheard is not None:
            yield f"changes of the cluster's store are not heard, so it is read again and again: {unheard}"

    def _lost(self, cluster: Cluster) -> Objects:
        """The claims of this node that are nobody's in the store, where it could not make them again in this step."""
        found = cluster.nodes.get(self.member.name)
        if self._claimed or self._absent or (found and (found.removed or found.id != self.member.id)):
            return {}
        keys = (records.BLOCKS + block for block in self._own()[1] if is_free(block, cluster.taken))
        return {key: self._state.objects[key] for key in keys}

    def _look_at_others(self) -> Iterable[str]:
        """Read the stores of other clusters; what is in the way."""
        known, complaints = others.looked_at(self._other_stores, self._state.others)
        self._state = replace(self._state, others=known)
        return complaints

    def _save(self) -> Iterable[str]:
        try:
            self._disk.save(self._state)
        except CniError as error:
            yield f"a start without the cluster's store would not know what it is now: {error}"

    def _give_back(self) -> Iterable[str]:
        """Let other nodes have the blocks that are due; yields what is in the way."""
        if not (self.reached and self._joined):
            return
        try:
            for prefix in self._holdings.due(self._own()[1]):
                yield from map(str, refused := self._kernel.apply([Vacate(prefix)]))
                if not refused:
                    before = self._state
                    change, objects = membership.release(prefix, before.objects)
                    without = replace(before, objects=objects)
                    self._disk.save(without)  # first: a start without the store must not take it for the node's
                    self._state = without
                    if not self._store.commit([change]):
                        self._state = before
                        raise CniError(TRY_AGAIN, f"block {prefix} has changed in the cluster's store meanwhile")
        except CniError as error:
            yield f"a block that the node can do without is not given back yet: {error}"

    def _register(self, objects: Objects) -> Registered | None:
        """Be the node that the store's engine knows by this name.

        A Node of Kubernetes that is deleted, and made again or not, is this node no more: what it had is not its own.
        """
        self._registered = self._store.registered(self.member.name, self.member.id)
        self._absent = self._registered is None
        ours = self._registered.id if self._registered else self.member.id
        if self._absent and membership.own_blocks(self.member, self._conf, self._reader.read(objects)):
            ours = self._make_id()
        if ours != self.member.id:
            self._state = replace(self._state, member=Member(self.member.name, ours))
        return self._registered

    def _join(self, objects: Objects, underlay: Underlay, registered: Registered, public_key: str) -> Objects:
        """Change the store until the node is a member as it must be; the objects after that."""
        kept = membership.own_blocks(self.member, self._conf, self._reader.read(self._state.objects))
        for _ in range(TRIES):
            cluster = self._reader.read(objects)
            if self._joined and membership.is_removed(self.member, cluster):
                return objects
            self._state, refusal = self._original.looked(self._state, cluster, joined=self._joined)
            if refusal:
                raise refusal
            found = membership.changes(
                self.member, self._conf, objects, cluster, underlay=underlay, kept=kept, registered=registered,
                boot=self._boot, public_key=public_key, used=self._holdings.used, withheld=self._holdings.withheld,
            )
            if not found:
                return objects
            if self._store.commit(found):
                self._original.replaced()
            objects = self._store.read()
        raise CniError(TRY_AGAIN, f"other nodes were faster {TRIES} times", "the agent tries again")

    def _write_conflist(self, blocks: tuple[str, ...], underlay: Underlay | None) -> bool:
        """Whether there is a configuration list: only with a block of every pool."""
        written = self._disk.read_conflist()
        if underlay is None and conflist.has_all(self._conf, blocks):
            return written is not None  # the MTU is not known now
        text = conflist.wanted(self._conf, self._template, blocks, underlay) if underlay else None
        if text != written:
            self._disk.write_conflist(text)
        self._holdings.written()
        return text is not None

    def _withdraw(self, facts: Facts) -> Outcome:
        """This node is no member any more: its blocks are others'."""
        self._disk.set_ready(False)
        self._disk.write_conflist(None)
        failures = [*self._reach(facts, Wanted(frozenset())), *self._shut(facts, ()),
                    *bgp.announce(self._speaker, self._conf, (), facts.underlay, ())]
        self.complaints.tell(failures)
        return Outcome(ready=False, complete=not failures, removed=True)
