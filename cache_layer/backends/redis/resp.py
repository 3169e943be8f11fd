"""Parses Redis's replies and packs commands, with hiredis.

An error reply is returned as redis-py's exception for it, also inside lists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hiredis import PushNotification, Reader, pack_command
from redis.connection import DefaultParser
from redis.exceptions import InvalidResponse

from cache_layer.backends.operations.base import Command

#: The result of ``Reader.gets`` while a reply is incomplete.
NOTHING: Final[Any] = object()

#: The type of a message that Redis sends without a command.
Push: Final = PushNotification

#: Returns the bytes of a command of bytes, str and numbers.
pack: Final[Callable[[Command], bytes]] = pack_command


def make_reader() -> Reader:
    """Return a reader for the replies of one connection.

    Its ``gets`` raises ``InvalidResponse`` if the bytes are not Redis's protocol.
    """
    return Reader(protocolError=InvalidResponse, replyError=_as_error, notEnoughData=NOTHING)


def _as_error(text: str) -> Exception:
    error: Exception = DefaultParser.parse_error(text)  # type: ignore[no-untyped-call]
    return error
