"""Codecs for the standard library's types that msgpack does not know.

A scalar becomes bytes inside the message. A composite contains other values: it becomes a separate
record, and the message has a reference in its place.
"""

from __future__ import annotations

import re
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from django.urls import reverse_lazy
from django.utils.safestring import SafeString
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy, pgettext_lazy

#: Errors of building a value from bytes that do not fit the code. The codec does not handle other
#: errors, such as an exception raised by a signal handler.
MISFITS: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


class Refused(Exception):  # noqa: N818 - never leaves the codec, which turns it into a named error.
    """An object cannot be encoded; ``reason`` says why if its type does not explain it."""

    def __init__(self, value: object, reason: str = "") -> None:
        super().__init__(value)
        self.value = value
        self.reason = reason


#: Turns a value into its state, or a state into the value.
Convert = Callable[[Any], object]
#: A state as read from a message, with contents that nobody has checked.
State = list[Any]


class Scalar(NamedTuple):
    """The codec of a type whose values contain no others: from a value to bytes and back."""

    code: int
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], object]


class Composite(NamedTuple):
    """The codec of a type whose values contain others: from a value to a state and back.

    ``links_of`` and ``set_links`` are for parts that may refer back to the value: links are set
    when every value of the message has been built.
    """

    code: int
    state_of: Convert
    build: Convert
    links_of: Convert | None = None
    set_links: Callable[[Any, Any], None] | None = None


# A name of the tz database, without anything that leaves its directory.
_ZONE_NAME: Final = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")


def _text_to_bytes(text: str) -> bytes:
    # Lone surrogates included.
    return text.encode("utf-8", "surrogatepass")


def _text_from_bytes(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _encode_int(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _decode_int(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def _encode_clock(value: datetime | time) -> bytes:
    naive = value.replace(tzinfo=None, fold=0).isoformat()
    return _text_to_bytes(f"{value.fold}{naive}|{_zone_text(value.tzinfo)}")


def _decode_clock(cls: type[datetime | time]) -> Callable[[bytes], datetime | time]:
    def decode(data: bytes) -> datetime | time:
        moment, _, zone = _text_from_bytes(data).partition("|")
        naive = cls.fromisoformat(moment[1:])
        return naive.replace(tzinfo=_zone_from_text(zone), fold=int(moment[0]))

    return decode


def _zone_text(zone: tzinfo | None) -> str:
    if zone is None:
        return ""
    if type(zone) is ZoneInfo:
        if _ZONE_NAME.fullmatch(zone.key or ""):
            return f"Z{zone.key}"
        raise Refused(zone, "the zone has no name in the tz database")
    if type(zone) is timezone:
        # pickle's own arguments: the offset and, only where it was given, the name.
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return "|".join([f"F{_delta_text(offset)}", *name])
    raise Refused(zone)


def _zone_from_text(text: str) -> tzinfo | None:
    if not text:
        return None
    if text[0] == "Z" and _ZONE_NAME.fullmatch(text[1:]):
        return ZoneInfo(text[1:])
    if text[0] == "F":
        offset, named, name = text[1:].partition("|")
        delta = _delta_from_text(offset)
        return timezone(delta, name) if named else timezone(delta)
    raise ValueError("not a time zone")


def _delta_text(value: timedelta) -> str:
    return f"{value.days},{value.seconds},{value.microseconds}"


def _delta_from_text(text: str) -> timedelta:
    days, seconds, microseconds = text.split(",")
    return timedelta(int(days), int(seconds), int(microseconds))


SCALARS: Final[dict[type, Scalar]] = {
    int: Scalar(4, _encode_int, _decode_int),
    datetime: Scalar(5, _encode_clock, _decode_clock(datetime)),
    time: Scalar(6, _encode_clock, _decode_clock(time)),
    date: Scalar(
        7, lambda v: v.isoformat().encode(), lambda data: date.fromisoformat(data.decode())
    ),
    timedelta: Scalar(
        8, lambda v: _delta_text(v).encode(), lambda data: _delta_from_text(data.decode())
    ),
    Decimal: Scalar(9, lambda v: str(v).encode(), lambda data: Decimal(data.decode("ascii"))),
    UUID: Scalar(10, lambda v: v.bytes, lambda data: UUID(bytes=data)),
    # str() of a SafeString is itself; slicing gives the plain text.
    SafeString: Scalar(
        11, lambda v: _text_to_bytes(v[:]), lambda data: SafeString(_text_from_bytes(data))
    ),
    bytearray: Scalar(12, bytes, bytearray),
    memoryview: Scalar(13, lambda v: _flat(v).tobytes(), memoryview),
}


def _flat(view: memoryview) -> memoryview:
    if view.format != "B" or view.ndim != 1:
        raise Refused(view, "it is not a view of single bytes")
    return view


#: The allowed default factories of a ``defaultdict``, by name.
_FACTORIES: Final[dict[str, type]] = {
    cls.__name__: cls for cls in (bool, bytes, dict, float, frozenset, int, list, set, str, tuple)
}


def _defaultdict_state(value: defaultdict[object, object]) -> object:
    factory = value.default_factory
    name = getattr(factory, "__name__", "") if factory else ""
    if factory is not None and _FACTORIES.get(name) is not factory:
        raise Refused(value, "its default factory is not a built-in type")
    return [name, dict(value)]


def _build_defaultdict(state: State) -> defaultdict[object, object]:
    name, items = state
    return defaultdict(_FACTORIES[name] if name else None, items)


COMPOSITES: Final[dict[type, Composite]] = {
    tuple: Composite(1, list, tuple),
    set: Composite(2, list, set),
    frozenset: Composite(3, list, frozenset),
    OrderedDict: Composite(14, dict, OrderedDict),
    defaultdict: Composite(15, _defaultdict_state, _build_defaultdict),
}


#: The lazy functions of Django, by the module and name of the function that they call.
_LAZY: Final[dict[str, Callable[..., object]]] = {
    "django.utils.translation.gettext": gettext_lazy,
    "django.utils.translation.pgettext": pgettext_lazy,
    "django.utils.text._format_lazy": format_lazy,
    "django.urls.base.reverse": reverse_lazy,
}


def _lazy_state(value: Any) -> object:
    function, args, kwargs, *results = value.__reduce__()[1]
    name = f"{function.__module__}.{function.__qualname__}"
    if name not in _LAZY or results != [str]:
        raise Refused(value, "its function is not one of Django's")
    return [name, list(args), kwargs]


def _build_lazy(state: State) -> object:
    name, args, kwargs = state
    return _LAZY[name](*args, **kwargs)


#: Text that is translated, formatted or reversed when it is used: of a subclass of ``Promise``.
LAZY: Final = Composite(16, _lazy_state, _build_lazy)


def type_name(cls: type) -> str:
    """Return the import path of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"
