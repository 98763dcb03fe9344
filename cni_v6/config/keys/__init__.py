"""The keys of the configuration as a table: name, kind of value, default, meaning, what the reference plugin does.

The parser (``fields``), the JSON Schema and the reference documentation (``schema``) are all read off this table.
The reference plugins are ``bridge`` and ``host-local`` of containernetworking/plugins, v1.9.1 where not said otherwise.
"""

from __future__ import annotations

from dataclasses import field

from cni_v6.values import dataclass


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""


@dataclass(frozen=True, slots=True)
class Number:
    """An integer, bounds inclusive. ``words``: strings that may stand for one, and the number each is read as."""

    low: int
    high: int
    words: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """A string of a form that ``forms`` knows. ``blank``: "" is the same as no key, as it is to the reference."""

    form: str
    blank: bool = True


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    of: Kind


@dataclass(frozen=True, slots=True)
class Nested:
    """An object with keys of its own. ``later``: kept as it came, since what it must hold depends on other keys."""

    level: Level
    later: bool = False


@dataclass(frozen=True, slots=True)
class Flags:
    """An object of booleans; ``known``: the usual names, for suggestions."""

    known: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """An object with names of the operator's own, each with a text of one form, or a list of them."""

    of: Text


@dataclass(frozen=True, slots=True)
class Anything:
    """Whatever it is: the runtime's, the specification's, or another plugin's."""


Kind = Flag | Number | Text | Items | Nested | Flags | Named | Anything


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a key of the reference is refused (UNSUPPORTED_FIELD) when it asks for something, and what to do instead."""

    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Key:
    """One key. ``default`` is what its absence (or null) means; ``example`` and ``default`` are JSON values."""

    name: str
    kind: Kind
    meaning: str
    reference: str
    default: object = None
    example: object = None
    required: bool = False
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Level:
    """The keys one object may have.

    :param where: how a path to it begins, for the documentation; "" is the configuration itself.
    :param guarded: unknown keys are looked at: slips refused, the rest logged, or refused where ``strict``.
    :param fold: names match in any case: containerd writes ``runtimeConfig`` with Go's own field names (``Servers``,
        ``RangeStart``), counting on Go's matching.
    :param one_of: keys of which there must be one.
    """

    name: str
    where: str
    keys: tuple[Key, ...]
    guarded: bool = True
    fold: bool = False
    one_of: tuple[str, ...] = ()
    names: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", frozenset(key.name for key in self.keys))
