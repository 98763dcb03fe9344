"""The fake kernel's firewall: our tables and their elements in dictionaries."""

from __future__ import annotations

from dataclasses import replace

from cni_v6.errors import FIREWALL_MISSING, CniError
from cni_v6.firewall import ruleset, shape
from cni_v6.firewall.elements import without_others
from cni_v6.firewall.sets import Element
from cni_v6.firewall.shape import Table
from cni_v6.kernel import ops
from cni_v6.kernel.facts import ForwardChain
from cni_v6.kernel.netfilter import keys, messages

Place = tuple[str, str, tuple[bytes, bytes]]  # family, set, key


class FakeFirewall:
    """It begins without tables.

    ``mark``: of the loaded rules, "" for none. ``tables``: their shape. ``flushed``: the ``FlushFlows`` operations so
    far. ``is_routed``: whether there is the route of ``ops.RouteLoopback``. ``nft``: why nft cannot load rules.
    ``others``: forward chains of others.
    """

    def __init__(self) -> None:
        self.mark = ""
        self.is_routed = False
        self.nft = ""
        self.others: tuple[ForwardChain, ...] = ()
        self.tables: tuple[Table, ...] = ()
        self.flushed: list[ops.FlushFlows] = []
        self._held: dict[Place, Element] = {}

    def elements(self) -> tuple[Element, ...]:
        """All elements of all sets."""
        return tuple(self._held.values())

    def load(self, elements: tuple[Element, ...]) -> None:
        before = self.mark, self._held, self.tables
        self.mark, self._held = ruleset.mark(), {}
        self.tables = tuple(map(shape.expected, shape.FAMILIES))
        try:
            self.add(elements)
        except CniError:
            self.mark, self._held, self.tables = before
            raise
        self.route_loopback()

    def route_loopback(self) -> None:
        self.is_routed = True

    def unload(self) -> None:
        self.mark, self._held, self.tables, self.is_routed = "", {}, (), False

    def add(self, elements: tuple[Element, ...]) -> None:
        if not self.mark:
            raise CniError(FIREWALL_MISSING, "the node's firewall tables are gone", "run: cni-v6ctl reload")
        held = dict(self._held)
        for element in elements:
            there = held.setdefault(_place(element), element)
            if there.data != element.data:
                raise messages.clash(element, there)
            if keys.set_of(element).intervals and any(keys.overlaps(element, other) for other in held.values()):
                raise messages.clash(element, None)
        self._held = held

    def remove(self, elements: tuple[Element, ...]) -> None:
        held = [(element, self._held.get(_place(element))) for element in elements]
        others = [element for element, there in held if there and there.data != element.data]
        for element in without_others(elements, others):
            there = self._held.get(_place(element))
            if there and there.data == element.data:
                del self._held[_place(element)]

    def there(self, elements: tuple[Element, ...]) -> tuple[Element, ...]:
        found = [(element, self._held.get(_place(element))) for element in elements]
        return tuple(replace(asked, data=held.data, comment=held.comment) for asked, held in found if held)


def _place(element: Element) -> Place:
    return element.family, element.set, keys.key(element)
