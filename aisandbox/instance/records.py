"""Frozen dataclasses as JSON, written and read with the same types on both sides. Standard library only."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints


class RecordError(ValueError):
    """The value does not have the type; the message names the field and says why."""


def decode(kind: Any, value: Any, name: str = "") -> Any:
    """The value that JSON holds as an instance of a type: a dataclass, a tuple, a scalar, or one of several.

    Raises:
        RecordError: it is none.
    """
    if is_dataclass(kind):
        return _record(kind, value, name)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        if value not in arguments:
            raise RecordError(f"`{name}` must be one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        return _items(arguments, value, name)
    if arguments:  # X | None
        return None if value is None else decode(arguments[0], value, name)
    if not isinstance(value, (int, float) if kind is float else kind) or (isinstance(value, bool) and kind is not bool):
        raise RecordError(f"`{name}` must be of type {kind.__name__}")
    return value


def _items(kinds: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise RecordError(f"`{name}` must be a list")
    if kinds[-1] is ...:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise RecordError(f"`{name}` must have {len(kinds)} items")
    return tuple(decode(kind, item, name) for kind, item in zip(kinds, value, strict=True))


def _record(kind: Any, value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise RecordError(f"{f'`{name}`' if name else 'it'} is not an object")
    if unknown := value.keys() - {field.name for field in fields(kind)}:
        raise RecordError(f"`{min(unknown)}` is not known")
    for field in fields(kind):
        if field.name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise RecordError(f"`{field.name}` is missing")
    hints = _hints(kind)
    return kind(**{key: decode(hints[key], entry, key) for key, entry in value.items()})


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
