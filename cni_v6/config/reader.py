"""Read objects of the configuration off the table of keys: types, bounds, forms, defaults, unknown keys.

Types are as strict as Go's JSON: no 1 for true, no "1" for 1, no 1.0 for 1; null is the same as no key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import cast

from cni_v6.config.formats import FORMS, FormatError
from cni_v6.config.keys import Flag, Flags, Items, Key, Kind, Level, Named, Nested, Number, Text
from cni_v6.errors import INVALID_CONFIG, UNSUPPORTED_FIELD, CniError
from cni_v6.log import Log
from cni_v6.values import dataclass

_SHOWN = 80  # characters of a value in a message
_LONG_NAME = 8  # characters; two slips turn many a shorter word into another word
_RESERVED = "cni.dev/"  # SPEC.md, section 1: "Any keys starting with" it are the runtime's


@dataclass(frozen=True, slots=True)
class Section:
    """One object, read: every key of its level has a value of its kind, the default where it was absent.

    Absent without a default is None for a number, "" for a text, () for a list. ``path`` leads to it from the top.
    """

    path: str
    given: frozenset[str]
    values: Mapping[str, object]

    def at(self, name: str) -> str:
        """The path of one of its keys."""
        return join(self.path, name)

    def flag(self, name: str) -> bool:
        return cast(bool, self.values[name])

    def number(self, name: str) -> int | None:
        return cast("int | None", self.values[name])

    def text(self, name: str) -> str:
        return cast(str, self.values[name] or "")

    def texts(self, name: str) -> tuple[str, ...]:
        return cast("tuple[str, ...]", self.values[name] or ())

    def section(self, name: str) -> Section:
        return cast(Section, self.values[name])

    def sections(self, name: str) -> tuple[Section, ...]:
        return cast("tuple[Section, ...]", self.values[name] or ())

    def groups(self, name: str) -> tuple[tuple[Section, ...], ...]:
        """A list of lists of objects."""
        return cast("tuple[tuple[Section, ...], ...]", self.values[name] or ())

    def named(self, name: str) -> Mapping[str, tuple[str, ...]]:
        """The operator's own names, each with its texts."""
        return cast("Mapping[str, tuple[str, ...]]", self.values[name])

    def raw(self, name: str) -> Mapping[str, object]:
        """An object kept as it came."""
        return cast("Mapping[str, object]", self.values[name])


class Reader:
    """Reads the objects of one configuration."""

    def __init__(self, log: Log, strict: bool) -> None:
        self._log = log
        self._strict = strict

    def read(self, level: Level, raw: object, path: str) -> Section:
        """
        :raises CniError: INVALID_CONFIG or UNSUPPORTED_FIELD, naming the key by its path, the value, the remedy.
        """
        if not isinstance(raw, Mapping):
            raise wrong(path or "configuration", raw, "is not an object", "write {...}")
        if level.guarded:
            self._look_at_unknown(level, raw, path)
        found = {key.name: _find(level, raw, key.name) for key in level.keys}
        values = {key.name: self._value(key, found[key.name], join(path, key.name)) for key in level.keys}
        return Section(path, frozenset(name for name, value in found.items() if value is not None), values)

    def _value(self, key: Key, value: object, path: str) -> object:
        if _is_absent(key.kind, value):
            if key.required:
                raise CniError(INVALID_CONFIG, f"{path} is missing", f"write one, such as {json.dumps(key.example)}")
            return self._default(key, path)
        parsed = self._parse(key.kind, value, path)
        if key.refusal and _asks(parsed):
            raise CniError(UNSUPPORTED_FIELD, f"{path}: {show(value)} {key.refusal.reason}", key.refusal.remedy)
        return parsed

    def _default(self, key: Key, path: str) -> object:
        """An object without a default is one in which every key is absent."""
        if isinstance(key.kind, Nested) and key.default is None:
            return self.read(key.kind.level, {}, path)
        return key.default if _is_absent(key.kind, key.default) else self._parse(key.kind, key.default, path)

    def _parse(self, kind: Kind, value: object, path: str) -> object:
        match kind:
            case Flag():
                return _flag(value, path)
            case Number():
                return _number(kind, value, path)
            case Text():
                return _text(kind, value, path)
            case Items():
                return tuple(self._parse(kind.of, item, f"{path}[{at}]") for at, item in enumerate(_list(value, path)))
            case Flags():
                return self._flags(kind, value, path)
            case Named():
                return {name: _texts(kind.of, texts, named(path, name)) for name, texts in _object(value, path).items()}
            case Nested(later=False):
                return self.read(kind.level, value, path)
            case Nested():
                return _object(value, path)
        return value

    def _flags(self, kind: Flags, value: object, path: str) -> object:
        flags = _object(value, path)
        for name, flag in flags.items():
            if name not in kind.known:
                refuse_slip(name, kind.known, path)
            if flag is not None:
                _flag(flag, join(path, name))
        return flags

    def _look_at_unknown(self, level: Level, raw: Mapping[str, object], path: str) -> None:
        for name in raw:
            if name in level.names or name.startswith(_RESERVED):
                continue
            refuse_slip(name, level.names, path)
            if self._strict:
                raise CniError(INVALID_CONFIG, f"unknown key {show(name)}{_within(path)}", "strict is true: remove it")
            self._log.info(f"unknown key {show(name)}{_within(path)} passed on")


def join(path: str, name: str) -> str:
    """The path of a key of the object at ``path``."""
    return f"{path}.{name}" if path else name


def named(path: str, name: str) -> str:
    """The path of one of the operator's own names in the object at ``path``."""
    return f"{path}[{show(name)}]"


def wrong(path: str, value: object, reason: str, remedy: str) -> CniError:
    """INVALID_CONFIG for one value, in the form all of them have."""
    return CniError(INVALID_CONFIG, f"{path}: {show(value)} {reason}", remedy)


def show(value: object) -> str:
    """A value for a message, as JSON, never long and never able to break the line."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and abs(value) >= 2**64:
        return "a number of more than 64 bits"  # Python refuses to print the largest
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def check_form(form: str, value: str, path: str, *, error: Callable[[str, object, str, str], CniError] = wrong) -> str:
    """The canonical text of a string of one form.

    :raises CniError: as ``error`` makes it.
    """
    try:
        return FORMS[form].parse(value)
    except FormatError as unfit:
        raise error(path, value, str(unfit), unfit.remedy or FORMS[form].remedy) from None


def refuse_slip(name: str, known: frozenset[str] | tuple[str, ...], path: str) -> None:
    """
    :raises CniError: INVALID_CONFIG when the key is one slip away from a known one, or two from a long one. A slip is
        one character too many, too few, another, or two swapped. Letter case does not count.
    """
    for most, names in ((1, sorted(known)), (2, sorted(other for other in known if len(other) >= _LONG_NAME))):
        for other in names:
            if _is_slip(name.lower(), other.lower(), most):
                message = f"unknown key {show(name)}{_within(path)}, did you mean {show(other)}?"
                raise CniError(INVALID_CONFIG, message, f"write {show(other)}, or remove it")


def _is_slip(a: str, b: str, most: int) -> bool:
    """Whether ``a`` is ``b`` but for so many slips."""
    start = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        start += 1
    a, b = a[start:], b[start:]
    if not most or a == b:
        return a == b
    return (
        _is_slip(a[1:], b[1:], most - 1)  # another character
        or _is_slip(a[1:], b, most - 1) or _is_slip(a, b[1:], most - 1)  # one too many, one too few
        or (a[:2] == b[1::-1] and _is_slip(a[2:], b[2:], most - 1))  # two swapped
    )


def _asks(parsed: object) -> bool:
    """Whether a value asks for something: an object in which nothing is written, or only 0, does not."""
    if isinstance(parsed, Section):
        return any(_asks(parsed.values[name]) for name in parsed.given)
    return bool(parsed)


def _is_absent(kind: Kind, value: object) -> bool:
    return value is None or (value == "" and isinstance(kind, Text) and kind.blank)


def _find(level: Level, raw: Mapping[str, object], name: str) -> object:
    if name in raw or not level.fold:
        return raw.get(name)
    return next((value for key, value in raw.items() if key.lower() == name.lower()), None)


def _within(path: str) -> str:
    return f" in {path}" if path else ""


def _flag(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise wrong(path, value, "is not a boolean", "write true or false, without quotes")
    return value


def _number(kind: Number, value: object, path: str) -> int:
    for word, meant in kind.words:
        if value == word:
            return meant
    if isinstance(value, bool) or not isinstance(value, int):
        words = "".join(f', or "{word}"' for word, _ in kind.words)
        remedy = f"write a number from {kind.low} to {kind.high}, without quotes{words}"
        raise wrong(path, value, "is not an integer", remedy)
    if not kind.low <= value <= kind.high:
        raise wrong(path, value, f"is not between {kind.low} and {kind.high}", "write a number within")
    return value


def _text(kind: Text, value: object, path: str) -> str:
    if not isinstance(value, str):
        raise wrong(path, value, "is not a string", "write it in quotes")
    return check_form(kind.form, value, path)


def _texts(kind: Text, value: object, path: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        return (_text(kind, value, path),)
    return tuple(_text(kind, entry, f"{path}[{at}]") for at, entry in enumerate(value))


def _list(value: object, path: str) -> list[object]:
    if not isinstance(value, list):
        raise wrong(path, value, "is not a list", "write [...]")
    return value


def _object(value: object, path: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise wrong(path, value, "is not an object", "write {...}")
    return value
