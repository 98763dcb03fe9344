"""``dataclass`` for frozen values with slots, as that of Python's library, which compiles six functions for each class.

A call without an engine imports a hundred such classes, and half of the time of its imports went into that. Here
nothing is compiled before the first value of a class is made, and then its ``__init__`` alone. It sets fields by the
descriptors of their slots, which takes half as long as ``object.__setattr__``.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, FrozenInstanceError, fields
from operator import attrgetter, ge, gt, le, lt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass as dataclass
else:
    from dataclasses import dataclass as _dataclass

    def dataclass(*, frozen, slots, order=False):
        """As of Python's library; ``frozen`` and ``slots`` are true."""
        assert frozen and slots

        def made(described):
            # Annotations are text (PEP 563), and Python's library searches each of them for ClassVar, InitVar and
            # KW_ONLY, which no value has. A type need not be searched.
            described.__annotations__ = dict.fromkeys(vars(described).get("__annotations__", ()), object)
            return _finish(_dataclass(init=False, repr=False, eq=False, slots=True)(described), order)

        return made


ORDERS = {"__lt__": lt, "__le__": le, "__gt__": gt, "__ge__": ge}


def _finish(made: Any, order: bool) -> Any:
    """Add what a value does, to a class with its slots."""
    key = _key(*(field.name for field in fields(made) if field.compare))

    def __init__(self: Any, *args: object, **words: object) -> None:
        made.__init__ = _init(made)
        made.__init__(self, *args, **words)

    def __eq__(self: Any, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return bool(key(self) == key(other))

    def __hash__(self: Any) -> int:
        return hash(key(self))

    own = vars(made)
    for function in (__init__, __eq__, __hash__, __repr__, __setattr__, __delattr__, __getstate__, __setstate__):
        if own.get(function.__name__) is None or function is __init__:  # Python sets __hash__ beside __eq__
            setattr(made, function.__name__, function)
    for name in ORDERS if order else ():
        setattr(made, name, _comparison(key, name))
    return made


def _key(*names: str) -> Callable[[Any], Any]:
    return attrgetter(*names) if names else lambda _: ()


def _comparison(key: Callable[[Any], Any], name: str) -> Callable[[Any, object], Any]:
    def compare(self: Any, other: object) -> Any:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return ORDERS[name](key(self), key(other))

    return compare


def __repr__(self: Any) -> str:
    words = (f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if field.repr)
    return f"{type(self).__qualname__}({', '.join(words)})"


def __setattr__(self: Any, name: str, value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def __delattr__(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def __getstate__(self: Any) -> list[object]:
    return [getattr(self, field.name) for field in fields(self)]


def __setstate__(self: Any, state: list[object]) -> None:
    for field, value in zip(fields(self), state):
        object.__setattr__(self, field.name, value)


def _init(made: Any) -> Any:
    """The ``__init__`` of a class: a parameter for each field, with its default value."""
    known: dict[str, object] = {}
    parameters, lines = ["self_"], []  # no field has this name
    for field in fields(made):
        name = field.name
        factory = field.default_factory is not MISSING
        known[f"set_{name}"] = next(vars(parent)[name] for parent in made.__mro__ if name in vars(parent)).__set__
        known[f"default_{name}"] = field.default_factory if factory else field.default
        lines.append(f"set_{name}(self_, {_value(field)})")
        if field.init:
            optional = factory or field.default is not MISSING
            parameters.append(f"{name}=default_{name}" if optional else name)
    if hasattr(made, "__post_init__"):
        lines.append("self_.__post_init__()")
    body = "\n    ".join(lines or ["pass"])
    exec(f"def __init__({', '.join(parameters)}):\n    {body}", known)  # as Python's library does: of names alone
    return known["__init__"]


def _value(field: Field[Any]) -> str:
    """The expression for what a field is set to."""
    name = field.name
    if field.default_factory is MISSING:
        return name if field.init else f"default_{name}"
    return f"default_{name}() if {name} is default_{name} else {name}" if field.init else f"default_{name}()"
