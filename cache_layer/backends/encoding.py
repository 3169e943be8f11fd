"""Values to bytes and back: the serializer and the compressor of the alias.

A plain integer of at most 64 bits is stored as decimal text, which Redis's INCRBY works on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

from django.utils.module_loading import import_string

from cache_layer.exceptions import UnsupportedValueError

DEFAULT_SERIALIZER: Final = "cache_layer.codec.SafeSerializer"

_SMALLEST: Final = -(2**63)
_LARGEST: Final = 2**63 - 1

#: First bytes of numbers.
_MINUS: Final = ord("-")
_NINE: Final = ord("9")


class UnreadableValueError(Exception):
    """Bytes that this alias did not write, or that were damaged."""


class Codec:
    """Encodes the values of one alias."""

    def __init__(self, options: dict[str, Any]) -> None:
        serializer = options.get("SERIALIZER", DEFAULT_SERIALIZER)
        self._serializer: Any = import_string(serializer)(options=options)
        compressor = options.get("COMPRESSOR")
        self._compressor: Any = import_string(compressor)(options=options) if compressor else None
        self._load: Callable[[bytes], Any] = (
            self._serializer.loads if self._compressor is None else self._decompressed
        )

    def encode(self, key: str, value: Any) -> bytes:
        """Return the bytes of a value; ``key`` is named in errors.

        :raises UnsupportedValueError: the serializer cannot store this value exactly.
        """
        if type(value) is int and _SMALLEST <= value <= _LARGEST:
            return b"%d" % value
        try:
            data: bytes = self._serializer.dumps(value)
        except UnsupportedValueError as error:
            # The same class: a serializer may raise one that callers of its kind expect.
            raise type(error)(f"Key {key!r}: {error}") from error
        return data if self._compressor is None else self._compressor.compress(data)

    def decode(self, data: bytes) -> Any:
        """Return the value of bytes.

        :raises UnreadableValueError: they do not stand for a value.
        """
        try:
            if _MINUS <= data[0] <= _NINE and (
                data.isdigit() or (data[0] == _MINUS and data[1:].isdigit())
            ):
                return int(data)
            return self._load(data)
        # Serializers and compressors may raise anything on foreign bytes.
        except Exception as error:
            raise UnreadableValueError from error

    def _decompressed(self, data: bytes) -> Any:
        from django_redis.exceptions import CompressorError

        # Short values are stored as they are.
        with contextlib.suppress(CompressorError):
            data = self._compressor.decompress(data)
        return self._serializer.loads(data)
