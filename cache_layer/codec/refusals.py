"""Builds the errors of values that cannot be stored, with the object at fault and its place."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, MappingView
from typing import Final

from django.db.models import QuerySet

from cache_layer.codec.types import Refused, type_name
from cache_layer.exceptions import UnsupportedValueError

_MOST_VISITED: Final = 100_000
_LISTABLE: Final = (Iterator, MappingView, QuerySet)


def unsupported(value: object, refused: Refused) -> UnsupportedValueError:
    """Return the error of an object in a value that cannot be stored exactly."""
    name = type_name(type(refused.value))
    path = _value_path(refused.value, value)
    place = f"at value{path}" if path else "as the value itself"
    reason = refused.reason
    if not reason and issubclass(type(refused.value), _LISTABLE):
        reason = "a list of its items can"
    reason = f" ({reason})" if reason else ""
    return UnsupportedValueError(
        f"{name}, {place}, cannot be stored exactly{reason}. Store something plainer, register "
        f"the type with cache_layer.codec.register, or opt for pickle with SERIALIZER: "
        f'"cache_layer.codec.SignedPickleSerializer".'
    )


def too_deep(value: object) -> UnsupportedValueError:
    """Return the error of a value that contains itself, or too many containers in each other."""
    return UnsupportedValueError(
        f"{type_name(type(value))}, as the value itself, cannot be stored: it contains itself or "
        "is nested too deeply (over 500 lists and dicts inside each other). Store something "
        "flatter."
    )


def _value_path(target: object, value: object) -> str:
    """Return the way from a value to an object inside it, such as ``['a'][3].b``.

    Empty if the object is the value itself; ``[…]`` if the object was made during encoding and so
    is not found in the value.
    """
    if target is value:
        return ""
    # Everything visited is held, so that no id is used twice.
    seen: dict[int, object] = {id(value): value}
    todo = [("", value)]
    while todo and len(seen) < _MOST_VISITED:
        path, current = todo.pop()
        for step, child in _children(current):
            if child is target:
                return path + step
            if id(child) not in seen:
                seen[id(child)] = child
                todo.append((path + step, child))
    return "[…]"


def _children(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield f"[{key!r}]", item
            yield f" (the key {key!r})", key
    elif isinstance(value, list | tuple):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, set | frozenset):
        yield from (("{…}", item) for item in value)
    elif isinstance(value, str | bytes | int | float | None):
        return
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield f".{field.name}", getattr(value, field.name, None)
    else:
        # Time zones, and the attributes of models, responses and registered classes.
        yield ".tzinfo", getattr(value, "tzinfo", None)
        yield from ((f".{name}", item) for name, item in getattr(value, "__dict__", {}).items())
