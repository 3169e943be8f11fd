"""The standard library's types that msgpack does not know, each under its extension code.

A kind turns a value into bytes and back. ``pack`` and ``unpack`` are the codec itself, one level
deeper, for kinds that contain other values.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from django.utils.safestring import SafeString

Pack = Callable[[Any], bytes]
Unpack = Callable[[bytes], Any]


class Refused(Exception):  # noqa: N818 - never leaves the codec, which turns it into a named error.
    """This very object cannot be encoded; ``reason`` says why if its type alone does not."""

    def __init__(self, value: object, reason: str = "") -> None:
        super().__init__(value)
        self.value = value
        self.reason = reason


class Kind(NamedTuple):
    """How values of one exact type (or family of types) are written under a code."""

    code: int
    encode: Callable[[Any, Pack], bytes]
    decode: Callable[[bytes, Unpack], Any]


# A name of the tz database; nothing that could lead out of its directory.
_ZONE_NAME: Final = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")


def text_to_bytes(text: str) -> bytes:
    """Encode any str, lone surrogates included."""
    return text.encode("utf-8", "surrogatepass")


def text_from_bytes(data: bytes) -> str:
    """Undo ``text_to_bytes``."""
    return data.decode("utf-8", "surrogatepass")


def _encode_int(value: int, pack: Pack) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _decode_int(data: bytes, unpack: Unpack) -> int:
    return int.from_bytes(data, "big", signed=True)


def _encode_clock(value: datetime | time, pack: Pack) -> bytes:
    naive = value.replace(tzinfo=None, fold=0).isoformat()
    return text_to_bytes(f"{value.fold}{naive}|{_zone_text(value.tzinfo)}")


def _decode_clock(cls: type[datetime | time]) -> Callable[[bytes, Unpack], Any]:
    def decode(data: bytes, unpack: Unpack) -> Any:
        moment, _, zone = text_from_bytes(data).partition("|")
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


KINDS: Final[dict[type, Kind]] = {
    tuple: Kind(1, lambda v, pack: pack(list(v)), lambda data, unpack: tuple(unpack(data))),
    set: Kind(2, lambda v, pack: pack(list(v)), lambda data, unpack: set(unpack(data))),
    frozenset: Kind(3, lambda v, pack: pack(list(v)), lambda data, unpack: frozenset(unpack(data))),
    int: Kind(4, _encode_int, _decode_int),
    datetime: Kind(5, _encode_clock, _decode_clock(datetime)),
    time: Kind(6, _encode_clock, _decode_clock(time)),
    date: Kind(
        7,
        lambda v, pack: v.isoformat().encode(),
        lambda data, unpack: date.fromisoformat(data.decode()),
    ),
    timedelta: Kind(
        8,
        lambda v, pack: _delta_text(v).encode(),
        lambda data, unpack: _delta_from_text(data.decode()),
    ),
    Decimal: Kind(
        9, lambda v, pack: str(v).encode(), lambda data, unpack: Decimal(data.decode("ascii"))
    ),
    UUID: Kind(10, lambda v, pack: v.bytes, lambda data, unpack: UUID(bytes=data)),
    SafeString: Kind(
        11,
        # str() of a SafeString is itself; slicing gives the plain text.
        lambda v, pack: text_to_bytes(v[:]),
        lambda data, unpack: SafeString(text_from_bytes(data)),
    ),
    bytearray: Kind(12, lambda v, pack: bytes(v), lambda data, unpack: bytearray(data)),
}
