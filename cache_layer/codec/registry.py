"""Further types that a project teaches the codec: enums, dataclasses, and whatever it likes."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar, overload

from django.db.models import Model
from django.http.response import HttpResponseBase

from cache_layer.codec.types import KINDS, Kind, Pack, Refused, Unpack
from cache_layer.exceptions import CodecError

T = TypeVar("T")

REGISTERED_CODE: Final = 20


class _Entry(NamedTuple):
    cls: type
    name: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


_BY_TYPE: Final[dict[type, _Entry]] = {}
_BY_NAME: Final[dict[str, _Entry]] = {}


@overload
def register(cls: type[T], *, name: str = "") -> type[T]: ...
@overload
def register(
    cls: type[T], *, name: str = "", encode: Callable[[T], Any], decode: Callable[[Any], T]
) -> type[T]: ...
@overload
def register(*, name: str) -> Callable[[type[T]], type[T]]: ...
def register(
    cls: type[Any] | None = None,
    *,
    name: str = "",
    encode: Callable[[Any], Any] | None = None,
    decode: Callable[[Any], Any] | None = None,
) -> Any:
    """Let the codec store instances of exactly this class; usable as a decorator.

    Enums and dataclasses need nothing more. For any other class, ``encode`` turns an instance
    into a value the codec knows and ``decode`` turns that back; ``decode`` sees bytes from the
    store, so it must not do anything it would not do for a stranger.

    ``name`` stands for the class in the store (its import path otherwise): keep it when the
    class moves, change it when the meaning of its state changes.

    Raises ``ValueError`` for a name that another class has, a class that the codec knows itself
    and a nameless local class, and ``TypeError`` for a class that needs ``encode`` and ``decode``.
    """
    if cls is None:
        return lambda decorated: register(decorated, name=name)
    if cls in KINDS or issubclass(cls, (Model, HttpResponseBase)) or cls.__module__ == "builtins":
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


def type_name(cls: type) -> str:
    """Return the import path of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def registered_kind(cls: type) -> Kind | None:
    """Return the kind of a registered class."""
    return REGISTERED if cls in _BY_TYPE else None


def _encode(value: Any, pack: Pack) -> bytes:
    entry = _BY_TYPE[type(value)]
    try:
        state = entry.encode(value)
    except Refused:
        raise
    except Exception as error:
        raise Refused(value, f"its encode raised {error!r}") from error
    return pack([entry.name, state])


def _decode(data: bytes, unpack: Unpack) -> Any:
    name, state = unpack(data)
    entry = _BY_NAME.get(name)
    if entry is None:
        raise CodecError(f"no class is registered as {name!r}")
    return entry.decode(state)


REGISTERED: Final = Kind(REGISTERED_CODE, _encode, _decode)


def _ready_made(cls: type[Any]) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    if issubclass(cls, enum.Flag):
        # Combinations of flags have no name of their own.
        return (lambda member: int(member.value)), (lambda value: cls(value))
    if issubclass(cls, enum.Enum):
        return (lambda member: member.name), (lambda name: cls.__members__[name])
    if dataclasses.is_dataclass(cls):
        return _dataclass_codec(cls)
    raise TypeError(
        f"{type_name(cls)} is neither an enum nor a dataclass: register it with encode= and "
        "decode=."
    )


def _dataclass_codec(cls: type[Any]) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    names = [field.name for field in dataclasses.fields(cls)]
    try:
        object.__new__(cls)
    except TypeError as error:
        # It is abstract, or is a dict, an exception or the like, whose state is not in its fields.
        raise TypeError(
            f"{type_name(cls)} is more than its fields: register it with encode= and decode=."
        ) from error

    def encode(value: Any) -> dict[str, Any]:
        try:
            return {name: getattr(value, name) for name in names}
        except AttributeError as error:
            raise Refused(value, f"its field {error.name!r} was never set") from error

    def decode(state: dict[str, Any]) -> Any:
        if state.keys() != set(names):
            raise CodecError(f"the fields of {type_name(cls)} have changed")
        # Neither __init__ nor __post_init__: the state is complete, also where init=False or
        # InitVar would get in the way.
        value = object.__new__(cls)
        for name, item in state.items():
            object.__setattr__(value, name, item)
        return value

    return encode, decode
