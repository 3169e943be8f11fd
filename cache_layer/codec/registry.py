"""Registers a project's own types with the codec: enums, dataclasses and other classes."""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any, Final, NamedTuple, TypeVar, overload

from django.apps import apps
from django.db.models import Choices, Model
from django.http import HttpResponse

from cache_layer.codec.responses import is_known_response, response_codec
from cache_layer.codec.types import (
    COMPOSITES,
    MISFITS,
    SCALARS,
    Composite,
    Convert,
    Refused,
    State,
    type_name,
)
from cache_layer.exceptions import CodecError

T = TypeVar("T")


class _Entry(NamedTuple):
    cls: type
    name: str
    encode: Convert
    decode: Convert


_BY_TYPE: Final[dict[type, _Entry]] = {}
_BY_NAME: Final[dict[str, _Entry]] = {}


@overload
def register(cls: type[T], *, name: str = "") -> type[T]: ...
@overload
def register(
    cls: type[T], *, name: str = "", encode: Callable[[T], object], decode: Callable[[Any], T]
) -> type[T]: ...
@overload
def register(*, name: str) -> Callable[[type[T]], type[T]]: ...
def register(
    cls: type[object] | None = None,
    *,
    name: str = "",
    encode: Convert | None = None,
    decode: Convert | None = None,
) -> Any:
    """Let the codec store instances of exactly this class; usable as a decorator.

    Enums, dataclasses, named tuples and responses need nothing more. The enums of choices in the
    modules of installed models are registered already.

    Args:
        cls: The class.
        name: The name of the class in stored bytes, its import path by default. Keep it when the
            class moves, change it when the meaning of its state changes.
        encode: Turns an instance into a value that the codec knows; for all other classes.
        decode: Turns that value back into an instance.

    Returns:
        The class.

    Raises:
        ValueError: Another class has the name, the codec knows the class itself, or the class is
            local to a function and has no name.
        TypeError: The class needs ``encode`` and ``decode``.
    """
    if cls is None:
        return lambda decorated: register(decorated, name=name)
    if (
        cls in SCALARS
        or cls in COMPOSITES
        or issubclass(cls, Model)
        or cls.__module__ == "builtins"
        or is_known_response(cls)
    ):
        raise ValueError(f"{type_name(cls)} cannot be registered: the codec decides about it.")
    if not name and "<locals>" in cls.__qualname__:
        raise ValueError(f"{type_name(cls)} is local to a function: give it a name= to go by.")
    if encode is None and decode is None:
        encode, decode = _ready_made(cls)
    if encode is None or decode is None:
        raise TypeError(f"{type_name(cls)} needs both encode= and decode=.")
    entry = _Entry(cls, name or type_name(cls), encode, decode)
    other = _BY_NAME.get(entry.name)
    # The same path twice is a reloaded module.
    if other and type_name(other.cls) != type_name(cls):
        raise ValueError(f"{entry.name!r} already stands for {type_name(other.cls)}.")
    _BY_TYPE[cls] = _BY_NAME[entry.name] = entry
    return cls


def is_registered(cls: type) -> bool:
    """Tell whether a class is registered."""
    return cls in _BY_TYPE


def is_known(cls: type) -> bool:
    """Tell whether a class is registered, or is one that Django puts into values."""
    _register_known("psycopg.types.range" in sys.modules)
    return cls in _BY_TYPE


@cache
def _register_known(with_ranges: bool) -> None:
    """Register choices that stand in a model or in the module of one, CSP constants and ranges."""
    found: list[object] = []
    for model in apps.get_models():
        found += [*vars(sys.modules[model.__module__]).values(), *vars(model).values()]
    for cls in found:
        if isinstance(cls, type) and issubclass(cls, Choices) and cls.__members__:
            _register_once(cls)
    with suppress(ImportError):
        _register_once(import_module("django.utils.csp").CSP)
    if with_ranges:
        Range = import_module("psycopg.types.range").Range  # noqa: N806
        register(
            Range,
            encode=lambda v: None if v.isempty else [v.lower, v.upper, v.bounds],
            decode=lambda state: Range(empty=True) if state is None else Range(*state),
        )


def _register_once(cls: type) -> None:
    if cls not in _BY_TYPE and type_name(cls) not in _BY_NAME and "<locals>" not in type_name(cls):
        register(cls)


def _state_of(value: object) -> object:
    entry = _BY_TYPE[type(value)]
    try:
        return [entry.name, entry.encode(value)]
    except Refused:
        raise
    except MISFITS as error:
        raise Refused(value, f"its encode raised {error!r}") from error


def _build(state: State) -> object:
    name, inner = state
    entry = _BY_NAME.get(name)
    if entry is None:
        _register_known("psycopg.types.range" in sys.modules)
        entry = _BY_NAME.get(name)
    if entry is None:
        raise CodecError(f"no class is registered as {name!r}")
    return entry.decode(inner)


REGISTERED: Final = Composite(20, _state_of, _build)


def _ready_made(cls: type[object]) -> tuple[Convert, Convert]:
    if issubclass(cls, enum.Flag):
        # Combinations of flags have no names.
        return (lambda member: int(member.value)), (lambda value: cls(value))
    if issubclass(cls, enum.Enum):
        return (lambda member: member.name), (lambda name: cls.__members__[name])
    if issubclass(cls, tuple) and hasattr(cls, "_make"):
        return list, cls._make
    if issubclass(cls, HttpResponse):
        return response_codec(cls)
    if dataclasses.is_dataclass(cls):
        return _dataclass_codec(cls)
    raise TypeError(
        f"{type_name(cls)} is neither an enum, a dataclass nor a named tuple: register it with "
        "encode= and decode=."
    )


def _dataclass_codec(cls: type[Any]) -> tuple[Convert, Convert]:
    names = [field.name for field in dataclasses.fields(cls)]
    try:
        object.__new__(cls)
    except TypeError as error:
        # It is abstract, or is a dict, an exception or the like, whose state is not in its fields.
        raise TypeError(
            f"{type_name(cls)} is more than its fields: register it with encode= and decode=."
        ) from error

    def encode(value: object) -> dict[str, object]:
        try:
            return {name: getattr(value, name) for name in names}
        except AttributeError as error:
            raise Refused(value, f"its field {error.name!r} was never set") from error

    def decode(state: dict[str, object]) -> object:
        if state.keys() != set(names):
            raise CodecError(f"the fields of {type_name(cls)} have changed")
        # Neither __init__ nor __post_init__: the state is complete, also where init=False or
        # InitVar would get in the way.
        value = object.__new__(cls)
        for name, item in state.items():
            object.__setattr__(value, name, item)
        return value

    return encode, decode
