"""What stands in the cache for the result of a decorated function: a value and its conditions.

A *tag* is a key that holds a random token; deleting that key invalidates every value that was
computed under the token. An *envelope* is a value together with the tags it depends on and the
tokens that were current before its computation began: it counts only while all of them still are.
A key that holds the envelope of a value so invalidated counts as missing, for every operation.

The layout is ``ENVELOPE``, a random nonce (16 bytes), the end of freshness and the end of a claim
to renew it (13 decimal digits each: milliseconds since the epoch, or zeros), the size of the list
of tags (4 bytes), for each tag the length of its key (2 bytes), the key and the token; then the
encoded value.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

#: Bytes of a key that holds no value: a lease, or a tag's token. No serializer's output and no
#: integer begins with this or with ``ENVELOPE``.
MARKER: Final = b"\x00L"
ENVELOPE: Final = b"\x00E"
#: How both begin, and nothing that is a value as it stands.
NO_VALUE: Final = b"\x00"

#: Where the parts of an envelope are; the scripts know these numbers too.
NONCE_END: Final = 18
FRESH_END: Final = 31
CLAIM_END: Final = 44
HEAD: Final = 48

#: What a tag's key holds: the marker and 16 random bytes.
TOKEN: Final = 18

#: How the keys of tags begin, after the namespace.
FUNCTION_TAG: Final = b"@function:"
TAG: Final = b"@tag:"

NEVER: Final = b"0" * 13
LATEST: Final = 10**13 - 1

_SIZE: Final = struct.Struct(">I")
_LENGTH: Final = struct.Struct(">H")

#: Returns what a key holds.
Lookup = Callable[[str], bytes | None]


class DamagedError(Exception):
    """Bytes that begin like an envelope and are none."""


class Entry:
    """The full key of one call's result and those of the tags it depends on."""

    __slots__ = ("key", "raw", "tags")

    def __init__(self, key: str, tags: tuple[str, ...], raw_tags: Sequence[bytes]) -> None:
        self.key = key
        self.tags = tags
        #: The key, then the tags, as Redis has them.
        self.raw = (key.encode("utf-8", "surrogatepass"), *raw_tags)

    def start(self, held: Sequence[bytes | None]) -> int:
        """Return where the encoded value begins, for what the key and the tags hold.

        0 when the key holds no envelope, or that of other tags or other tokens.
        """
        data = held[0]
        if data is None or not data.startswith(ENVELOPE):
            return 0
        at = HEAD
        for number in range(1, len(held)):
            key, token = self.raw[number], held[number]
            after = at + 2 + len(key)
            if (
                token is None
                or len(token) != TOKEN
                or not data.startswith(token, after)
                or not data.startswith(key, at + 2)
            ):
                return 0
            at = after + TOKEN
        return at if data.startswith(_SIZE.pack(at - HEAD), CLAIM_END) else 0

    def section(self, tokens: Sequence[bytes | None]) -> bytes | None:
        """Return the tags with these tokens as an envelope has them; None where one is missing."""
        parts: list[bytes] = []
        for key, token in zip(self.raw[1:], tokens, strict=True):
            if token is None or len(token) != TOKEN:
                return None
            parts += (_LENGTH.pack(len(key)), key, token)
        tags = b"".join(parts)
        return _SIZE.pack(len(tags)) + tags


def is_tag(key: bytes) -> bool:
    """Tell whether a key may be a tag's, by its name."""
    return FUNCTION_TAG in key or TAG in key


def new_token() -> bytes:
    """Return what to put in a tag's key."""
    return MARKER + secrets.token_bytes(TOKEN - len(MARKER))


def seal(section: bytes, payload: bytes, fresh_until: int) -> bytes:
    """Return the envelope of an encoded value; ``fresh_until`` 0: as long as it lives."""
    return b"".join(
        (ENVELOPE, secrets.token_bytes(16), digits(fresh_until), NEVER, section, payload)
    )


def digits(milliseconds: int) -> bytes:
    """Return a time as an envelope has it; the latest there is room for is in the year 2286."""
    return b"%013d" % min(milliseconds, LATEST)


def tags_of(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the full key and the token of each tag of an envelope.

    :raises DamagedError: it is none.
    """
    at, end = HEAD, payload_start(data)
    while at < end:
        if at + 2 > end:
            raise DamagedError
        (length,) = _LENGTH.unpack_from(data, at)
        after = at + 2 + length + TOKEN
        if after > end:
            raise DamagedError
        try:
            yield (
                data[at + 2 : after - TOKEN].decode("utf-8", "surrogatepass"),
                data[after - TOKEN : after],
            )
        except UnicodeDecodeError as error:
            raise DamagedError from error
        at = after


def payload_start(data: bytes) -> int:
    """Return where the encoded value of an envelope begins.

    :raises DamagedError: it is none.
    """
    if len(data) < HEAD:
        raise DamagedError
    (size,) = _SIZE.unpack_from(data, CLAIM_END)
    if HEAD + size > len(data):
        raise DamagedError
    return HEAD + int(size)


def living(data: bytes | None, read: Lookup) -> bytes | None:
    """Return the encoded value that the bytes of a key stand for.

    None when they are a marker, or an envelope of which ``read`` finds another token at a tag.
    Damaged envelopes are returned as they are; no codec reads them.
    """
    if data is None or data.startswith(MARKER):
        return None
    if not data.startswith(ENVELOPE):
        return data
    try:
        if any(read(tag) != token for tag, token in tags_of(data)):
            return None
        return data[payload_start(data) :]
    except DamagedError:
        return data


def with_payload(data: bytes, payload: bytes) -> bytes:
    """Return the bytes of a key with another encoded value under the same conditions."""
    if not data.startswith(ENVELOPE):
        return payload
    return data[: payload_start(data)] + payload


def named_tags(replies: Iterable[Any]) -> list[str]:
    """Return the tags that those of the replies name which are envelopes, each once."""
    tags: dict[str, None] = {}
    for data in replies:
        if isinstance(data, bytes) and data.startswith(ENVELOPE):
            try:
                tags.update((tag, None) for tag, _token in tags_of(data))
            except DamagedError:
                continue
    return list(tags)
