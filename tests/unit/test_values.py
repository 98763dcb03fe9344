"""Our ``dataclass`` does what that of Python's library does, for frozen values with slots."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import FrozenInstanceError, field, fields, replace
from typing import Any

import pytest

from cni_v6.values import dataclass


@dataclass(frozen=True, slots=True)
class Ours:
    """A value."""

    name: str
    size: int = 3
    parts: list[int] = field(default_factory=list)
    doubled: int = field(init=False, default=0)
    known: dict[str, int] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "doubled", 2 * self.size)


@dataclasses.dataclass(frozen=True, slots=True)
class Theirs:
    """A value."""

    name: str
    size: int = 3
    parts: list[int] = field(default_factory=list)
    doubled: int = field(init=False, default=0)
    known: dict[str, int] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "doubled", 2 * self.size)


@dataclass(frozen=True, slots=True, order=True)
class Pair:
    """Two words, in order."""

    first: str
    second: str = ""


@dataclass(frozen=True, slots=True)
class Nothing:
    """No fields."""


@dataclass(frozen=True, slots=True)
class Worded:
    """Has words of its own."""

    name: str

    def __repr__(self) -> str:
        return f"<{self.name}>"


@pytest.mark.parametrize("made", [
    lambda kind: kind("a"), lambda kind: kind("a", 4), lambda kind: kind("a", parts=[1]), lambda kind: kind(name="a"),
    lambda kind: replace(kind("a", 4, [2]), size=5),
])
def test_made_in_every_way(made: Any) -> None:
    ours, theirs = made(Ours), made(Theirs)
    of_ours, of_theirs = ([getattr(value, each.name) for each in fields(value)] for value in (ours, theirs))
    assert of_ours == of_theirs
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
    assert ours == made(Ours) and ours != Ours("b") and ours != theirs


@pytest.mark.parametrize("made", [lambda kind: kind(), lambda kind: kind("a", 1, [], 2), lambda kind: kind("a", no=1)])
def test_what_no_parameter_takes_is_refused(made: Any) -> None:
    for kind in (Ours, Theirs, Ours):
        with pytest.raises(TypeError):
            made(kind)


def test_frozen() -> None:
    value = Ours("a")
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'size'"):
        value.size = 4  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'size'"):
        del value.size
    with pytest.raises(FrozenInstanceError):
        value.other = 4  # type: ignore[attr-defined]
    assert not hasattr(value, "__dict__")


def test_a_default_list_is_each_values_own() -> None:
    first, second = Ours("a"), Ours("a")
    first.parts.append(1)
    assert second.parts == [] and first != second


def test_keys_and_order() -> None:
    assert {Pair("a"): 1, Pair("a", "b"): 2}[Pair("a", "b")] == 2
    assert sorted([Pair("b"), Pair("a", "c"), Pair("a", "b")]) == [Pair("a", "b"), Pair("a", "c"), Pair("b")]
    assert Pair("a") < Pair("b") <= Pair("b") and Pair("b") >= Pair("b") > Pair("a")
    with pytest.raises(TypeError):
        Pair("a") < Nothing()  # type: ignore[operator]
    assert Pair.__eq__(Pair("a"), "a") is NotImplemented
    with pytest.raises(TypeError, match="unhashable"):
        hash(Ours("a"))


def test_without_fields() -> None:
    assert Nothing() == Nothing() and len({Nothing(), Nothing()}) == 1 and repr(Nothing()) == "Nothing()"
    assert Nothing.__eq__(Nothing(), Pair("a")) is NotImplemented


def test_what_a_class_says_itself_is_kept() -> None:
    assert repr(Worded("a")) == "<a>" and Worded("a") == Worded("a")


def test_copied_whole() -> None:
    value = Ours("a", 4, [1])
    for other in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert other == value and other is not value
    assert copy.deepcopy(value).parts is not value.parts


def test_taken_apart() -> None:
    match Pair("a", "b"):
        case Pair(first, second):
            assert (first, second) == ("a", "b")
        case _:
            raise AssertionError
