"""The bytes under a key: an encoded value, an envelope around one, or a marker.

A plain integer of at most 64 bits is decimal text, which Redis's INCRBY works on; the serializer
and the compressor of the alias encode other values.

A *marker* is no value: it is a lease, or the token of a tag. A *tag* is a key that holds a random
token; deleting that key invalidates every value that was computed under the token. An *envelope*
is a value with the tags it depends on and the tokens that were current before its computation
began: it is valid only while all these tokens are current. For every operation, a key that holds an
outdated envelope is missing.

The layout of an envelope is ``ENVELOPE``, a random nonce (16 bytes), the end of freshness and the
end of a claim to refresh it (13 decimal digits each: milliseconds since the epoch, or zeros), the
size of the list of tags (4 bytes), for each tag the length of its key (2 bytes), the key and the
token; then the encoded value.
"""

from __future__ import annotations

import pickle
import secrets
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Final

from django.utils.module_loading import import_string

from cache_layer.aliases import Value
from cache_layer.backends.compression import TooLargeError, decompressor
from cache_layer.conf import settings
from cache_layer.exceptions import UnsupportedValueError
from cache_layer.keyspace import FUNCTION_TAG, TAG

DEFAULT_SERIALIZER: Final = "cache_layer.codec.SafeSerializer"

_SMALLEST: Final = -(2**63)
_LARGEST: Final = 2**63 - 1

#: First bytes of numbers.
_MINUS: Final = ord("-")
_NINE: Final = ord("9")

#: The first bytes of markers and envelopes. No serializer's output and no integer begins with NUL.
MARKER: Final = b"\x00L"
ENVELOPE: Final = b"\x00E"
NO_VALUE: Final = b"\x00"

#: Where the parts of an envelope end; the Lua scripts know these numbers too.
NONCE_END: Final = 18
FRESH_END: Final = 31
CLAIM_END: Final = 44
HEAD: Final = 48

#: Length of the token under a tag's key, in bytes: the marker and 16 random bytes.
TOKEN: Final = 18

NEVER: Final = b"0" * 13
_LATEST: Final = 10**13 - 1

_SIZE: Final = struct.Struct(">I")
_LENGTH: Final = struct.Struct(">H")
_TAG_KEYS: Final = (FUNCTION_TAG.encode(), TAG.encode())

#: Returns the bytes that a key holds.
Lookup = Callable[[str], bytes | None]


#: Errors of serializers on values that they cannot write, and on bytes that they did not write.
#: Other errors have other causes: Celery's SoftTimeLimitExceeded, for example, comes from a signal
#: handler.
_UNREADABLE: Final = (
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.PickleError,
    TooLargeError,
)


class UnreadableValueError(Exception):
    """The bytes were not written by this alias, or are damaged."""


class DamagedEnvelopeError(Exception):
    """The bytes begin like an envelope but are not one."""


class Codec:
    """Encodes the values of one alias with the serializer and the compressor of its OPTIONS."""

    def __init__(self, options: dict[str, Any]) -> None:
        serializer = options.get("SERIALIZER", DEFAULT_SERIALIZER)
        self._serializer: Any = import_string(serializer)(options=options)
        self._name = serializer
        #: Serializers have exceptions of their own, too.
        self._packages = {"django_redis", "msgpack", serializer.partition(".")[0]}
        compressor = options.get("COMPRESSOR")
        self._compress: Callable[[bytes], bytes] | None = None
        self._load: Callable[[bytes], object] = self._serializer.loads
        if compressor:
            made = import_string(compressor)(options=options)
            self._packages.add(compressor.partition(".")[0])
            self._compress = made.compress
            self._decompress = decompressor(made)
            self._load = self._decompressed

    def encode(self, key: str, value: object) -> bytes:
        """Return the bytes of a value; ``key`` is named in errors.

        Raises:
            UnsupportedValueError: The serializer cannot store this value exactly, or the value is
                larger than allowed.
        """
        if type(value) is int and _SMALLEST <= value <= _LARGEST:
            return b"%d" % value
        try:
            data: bytes = self._serializer.dumps(value)
        except UnsupportedValueError as error:
            # The same class: callers of a serializer may expect its own subclass.
            raise type(error)(f"Key {key!r}: {error}") from error
        except Exception as error:
            if not self._is_about_the_value(error):
                raise
            raise UnsupportedValueError(
                f"Key {key!r}: {self._name} cannot store the value "
                f"({type(error).__name__}: {error})."
            ) from error
        if data[:1].isdigit() and data.isdigit():
            # Such bytes are read as a number. A serializer that writes them does not tell an
            # integer from a subclass either.
            if not isinstance(value, int):
                raise UnsupportedValueError(
                    f"Key {key!r}: the serializer writes {type(value).__name__} as it writes "
                    "numbers."
                )
            return b"%d" % value
        if self._compress is not None:
            if len(data) > settings.MAX_DECODED_BYTES:
                raise _too_large(key, data, "MAX_DECODED_BYTES", settings.MAX_DECODED_BYTES)
            data = self._compress(data)
        if len(data) > settings.MAX_VALUE_BYTES:
            raise _too_large(key, data, "MAX_VALUE_BYTES", settings.MAX_VALUE_BYTES)
        return data

    def decode(self, data: bytes) -> Value:
        """Return the value of bytes.

        Raises:
            UnreadableValueError: This alias did not write the bytes, or they are damaged.
        """
        try:
            if _MINUS <= data[0] <= _NINE and (
                data.isdigit() or (data[0] == _MINUS and data[1:].isdigit())
            ):
                return int(data)
            if len(data) > settings.MAX_VALUE_BYTES:
                raise TooLargeError
            return self._load(data)
        except Exception as error:
            if self._is_about_the_value(error):
                raise UnreadableValueError from error
            raise

    def as_items(self, encoded: list[bytes]) -> list[bytes] | list[str]:
        """Return encoded values as items of a list that the serializer can store."""
        return encoded if self._takes_bytes else [data.decode("latin-1") for data in encoded]

    def from_item(self, item: bytes | str) -> bytes:
        """Return the encoded value of an item of such a list.

        Raises:
            UnreadableValueError: It is none.
        """
        if isinstance(item, bytes):
            return item
        try:
            return item.encode("latin-1")
        except (AttributeError, UnicodeEncodeError) as error:
            raise UnreadableValueError from error

    @cached_property
    def _takes_bytes(self) -> bool:
        """Whether the serializer stores bytes; JSON does not."""
        try:
            return bool(self._serializer.loads(self._serializer.dumps([b"\xff"])) == [b"\xff"])
        except Exception as error:
            if self._is_about_the_value(error):
                return False
            raise

    def _is_about_the_value(self, error: Exception) -> bool:
        package = type(error).__module__.partition(".")[0]
        return isinstance(error, _UNREADABLE) or package in self._packages

    def _decompressed(self, data: bytes) -> object:
        return self._serializer.loads(self._decompress(data, settings.MAX_DECODED_BYTES))


def _too_large(key: str, data: bytes, name: str, limit: int) -> UnsupportedValueError:
    return UnsupportedValueError(
        f"Key {key!r}: the encoded value has {len(data):,} bytes, and CACHE_LAYER_{name} is "
        f"{limit:,}. Store less, or raise the setting."
    )


class ResultKey:
    """The full key of one cached result and those of the tags it depends on.

    Args:
        key: The full key of the result.
        tags: The full keys of its tags; a result without tags is stored without an envelope.
        raw_tags: The same, as Redis has them.
    """

    __slots__ = ("key", "raw", "tags")

    def __init__(
        self, key: str, tags: tuple[str, ...] = (), raw_tags: Sequence[bytes] = ()
    ) -> None:
        self.key = key
        self.tags = tags
        #: The key, then the tags, as Redis has them.
        self.raw = (key.encode("utf-8", "surrogatepass"), *raw_tags)

    def value_start(self, held: Sequence[bytes | None]) -> int:
        """Return the index at which the encoded value begins in the bytes of the key.

        ``held`` has the bytes of the key and of its tags. The index is -1 if the key holds nothing,
        a marker, or an envelope of other tags or other tokens.
        """
        data = held[0]
        if data is None:
            return -1
        if len(held) == 1:
            return -1 if data.startswith((MARKER, ENVELOPE)) else 0
        if not data.startswith(ENVELOPE):
            return -1
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
                return -1
            at = after + TOKEN
        return at if data.startswith(_SIZE.pack(at - HEAD), CLAIM_END) else -1

    def tag_section(self, tokens: Sequence[bytes]) -> bytes:
        """Return the list of the tags with these tokens, in the form of an envelope."""
        parts: list[bytes] = []
        for key, token in zip(self.raw[1:], tokens, strict=True):
            parts += (_LENGTH.pack(len(key)), key, token)
        tags = b"".join(parts)
        return _SIZE.pack(len(tags)) + tags


def is_tag(key: bytes) -> bool:
    """Return whether a key may be the key of a tag, by its name."""
    return any(start in key for start in _TAG_KEYS)


def new_token() -> bytes:
    """Return a random token for a tag's key."""
    return MARKER + secrets.token_bytes(TOKEN - len(MARKER))


def seal(tag_section: bytes, payload: bytes, fresh_until: int) -> bytes:
    """Return the envelope of an encoded value.

    Args:
        tag_section: The result of ``ResultKey.tag_section``.
        payload: The encoded value.
        fresh_until: End of freshness in milliseconds since the epoch; 0 for the end of its life.
    """
    return b"".join(
        (ENVELOPE, secrets.token_bytes(16), digits(fresh_until), NEVER, tag_section, payload)
    )


def digits(milliseconds: int) -> bytes:
    """Return a time in the 13 digits of an envelope, which end in the year 2286."""
    return b"%013d" % min(milliseconds, _LATEST)


def tags_of(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the full key and the token of each tag of an envelope.

    Raises:
        DamagedEnvelopeError: The bytes are no envelope.
    """
    at, end = HEAD, payload_start(data)
    while at < end:
        if at + 2 > end:
            raise DamagedEnvelopeError
        (length,) = _LENGTH.unpack_from(data, at)
        after = at + 2 + length + TOKEN
        if after > end:
            raise DamagedEnvelopeError
        try:
            yield (
                data[at + 2 : after - TOKEN].decode("utf-8", "surrogatepass"),
                data[after - TOKEN : after],
            )
        except UnicodeDecodeError as error:
            raise DamagedEnvelopeError from error
        at = after


def payload_start(data: bytes) -> int:
    """Return where the encoded value of an envelope begins.

    Raises:
        DamagedEnvelopeError: The bytes are no envelope.
    """
    if len(data) < HEAD:
        raise DamagedEnvelopeError
    (size,) = _SIZE.unpack_from(data, CLAIM_END)
    if HEAD + size > len(data):
        raise DamagedEnvelopeError
    return HEAD + int(size)


def living(data: bytes | None, read: Lookup) -> bytes | None:
    """Return the encoded value in the bytes of a key.

    None if the bytes are a marker, or an envelope with a tag whose token has changed; ``read``
    returns the bytes of a tag. Damaged envelopes are returned unchanged; no codec reads them.
    """
    if data is None or data.startswith(MARKER):
        return None
    if not data.startswith(ENVELOPE):
        return data
    try:
        if any(read(tag) != token for tag, token in tags_of(data)):
            return None
        return data[payload_start(data) :]
    except DamagedEnvelopeError:
        return data


def with_payload(data: bytes, payload: bytes) -> bytes:
    """Return the bytes of a key with another encoded value in the same envelope, if any."""
    if not data.startswith(ENVELOPE):
        return payload
    return data[: payload_start(data)] + payload


def named_tags(replies: Iterable[object]) -> list[str]:
    """Return the keys of the tags in the envelopes among replies, each once."""
    tags: dict[str, None] = {}
    for data in replies:
        if isinstance(data, bytes) and data.startswith(ENVELOPE):
            try:
                tags.update((tag, None) for tag, _token in tags_of(data))
            except DamagedEnvelopeError:
                continue
    return list(tags)
