"""Bytes to Redis's replies and commands to bytes: hiredis where it is installed, Python elsewhere.

An error reply is the exception that redis-py makes of it, as a value, also inside of lists.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final, Protocol

from redis.connection import DefaultParser
from redis.exceptions import InvalidResponse

hiredis: Any
try:
    import hiredis
except ImportError:
    hiredis = None

#: What ``Reader.gets`` returns when the bytes of a reply are not all there yet.
NOTHING: Final[Any] = object()

_AGGREGATES: Final = frozenset(b"*~>%")


class Reader(Protocol):
    """Takes bytes as they arrive, gives replies."""

    def feed(self, data: bytes) -> None:
        """Take more bytes."""

    def gets(self) -> Any:
        """Return the next reply, or ``NOTHING``.

        :raises InvalidResponse: the bytes are not Redis's protocol.
        """


class Push(list[Any]):
    """What Redis says without having been asked."""


def make_reader() -> Reader:
    """Return a reader for one connection."""
    if hiredis is None:
        return PythonReader()
    reader: Reader = hiredis.Reader(
        protocolError=InvalidResponse, replyError=as_error, notEnoughData=NOTHING
    )
    return reader


def is_push(reply: Any) -> bool:
    """Tell whether a reply answers no command."""
    return type(reply) in _PUSHES


class PythonReader:
    """What ``hiredis.Reader`` does, in Python."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._replies = self._parse()

    def feed(self, data: bytes) -> None:
        """See ``Reader.feed``."""
        self._buffer += data

    def gets(self) -> Any:
        """See ``Reader.gets``."""
        try:
            return next(self._replies)
        except (ValueError, IndexError) as error:
            raise InvalidResponse(f"Protocol Error: {error}") from error

    def _parse(self) -> Generator[Any]:
        while True:
            yield (yield from self._reply())

    def _reply(self) -> Generator[Any, None, Any]:
        line = yield from self._take(None)
        kind, text = line[0], line[1:]
        if kind in _AGGREGATES:
            return (yield from self._aggregate(kind, int(text)))
        if kind in b"$=":
            size = int(text)
            if size < 0:
                return None
            data = (yield from self._take(size + 2))[:size]
            # A verbatim string begins with its format.
            return data[4:] if kind == ord("=") else data
        make = _SIMPLE.get(kind)
        if make is None:
            raise InvalidResponse(f"Protocol Error: {line!r}")
        return make(text)

    def _aggregate(self, kind: int, size: int) -> Generator[Any, None, Any]:
        if size < 0:
            return None
        items: list[Any] = []
        while len(items) < (size * 2 if kind == ord("%") else size):
            items += ((yield from self._reply()),)
        if kind == ord("%"):
            return dict(zip(items[::2], items[1::2], strict=True))
        return Push(items) if kind == ord(">") else items

    def _take(self, size: int | None) -> Generator[Any, None, bytes]:
        """Return so many bytes, or a line without its end."""
        buffer = self._buffer
        if size is None:
            searched = 0
            while (end := buffer.find(b"\r\n", searched)) < 0:
                searched = max(0, len(buffer) - 1)
                yield NOTHING
            size, taken = end + 2, end
        else:
            while len(buffer) < size:
                yield NOTHING
            taken = size
        data = bytes(buffer[:taken])
        del buffer[:size]
        return data


def as_error(text: str) -> Exception:
    """Return the exception that redis-py makes of an error reply."""
    error: Exception = DefaultParser.parse_error(text)  # type: ignore[no-untyped-call]
    return error


_SIMPLE: Final[dict[int, Callable[[bytes], Any]]] = {
    ord("+"): bytes,
    ord("-"): lambda text: as_error(text.decode("utf-8", "replace")),
    ord(":"): int,
    ord("("): int,
    ord(","): float,
    ord("#"): lambda text: text == b"t",
    ord("_"): lambda text: None,
}

_PUSHES: Final = frozenset({Push, getattr(hiredis, "PushNotification", Push)})


def pack_in_python(command: tuple[Any, ...]) -> bytes:
    """See ``pack``."""
    pieces = [b"*%d\r\n" % len(command)]
    for part in command:
        data = part if type(part) is bytes else str(part).encode()
        pieces += (b"$%d\r\n" % len(data), data, b"\r\n")
    return b"".join(pieces)


#: Returns the bytes of a command of bytes, str and numbers.
pack: Callable[[tuple[Any, ...]], bytes] = (
    pack_in_python if hiredis is None else hiredis.pack_command
)
