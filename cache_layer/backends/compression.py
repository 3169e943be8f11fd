"""Decompresses up to a largest size, because two megabytes may expand to gigabytes."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Final, Protocol

from django.utils.module_loading import import_string


class TooLargeError(Exception):
    """The decompressed value is larger than allowed, or incomplete."""


class Compressor(Protocol):
    """A class that django-redis's option ``COMPRESSOR`` names."""

    def compress(self, value: bytes) -> bytes:
        """Return the compressed bytes, or short bytes unchanged."""

    def decompress(self, value: bytes) -> bytes:
        """Return the bytes that ``compress`` compressed."""


class _Stepwise(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _pyzstd() -> _Stepwise:
    made: _Stepwise = import_module("pyzstd").ZstdDecompressor()
    return made


def _lz4() -> _Stepwise:
    made: _Stepwise = import_module("lz4.frame").LZ4FrameDecompressor()
    return made


#: For each of django-redis's compressors, the way to decompress a part only.
_STEPWISE: Final[dict[str, Callable[[], _Stepwise]]] = {
    "django_redis.compressors.gzip.GzipCompressor": lambda: zlib.decompressobj(wbits=31),
    "django_redis.compressors.lz4.Lz4Compressor": _lz4,
    "django_redis.compressors.lzma.LzmaCompressor": lzma.LZMADecompressor,
    "django_redis.compressors.zlib.ZlibCompressor": zlib.decompressobj,
    "django_redis.compressors.zstd.ZStdCompressor": _pyzstd,
}


def decompressor(compressor: Compressor) -> Callable[[bytes, int], bytes]:
    """Return a function that decompresses bytes up to a largest size.

    The function returns bytes that are not compressed unchanged. With a compressor of django-redis
    it raises ``TooLargeError`` before it takes the memory; the result of a project's own compressor
    is measured afterwards.
    """
    cls = type(compressor)
    for base in cls.__mro__:
        name = f"{base.__module__}.{base.__qualname__}"
        if name in _STEPWISE and getattr(cls, "decompress", None) is vars(base)["decompress"]:
            return _by_steps(_STEPWISE[name])
    refused = import_string("django_redis.exceptions.CompressorError")

    def decompress(data: bytes, largest: int) -> bytes:
        try:
            result = compressor.decompress(data)
        except refused:
            return data
        if len(result) > largest:
            raise TooLargeError
        return result

    return decompress


def _by_steps(make: Callable[[], _Stepwise]) -> Callable[[bytes, int], bytes]:
    errors: tuple[type[Exception], ...] = (lzma.LZMAError, zlib.error, EOFError, RuntimeError)
    if make is _pyzstd:
        errors = (*errors, import_module("pyzstd").ZstdError)

    def decompress(data: bytes, largest: int) -> bytes:
        steps = make()
        try:
            result = steps.decompress(data, largest + 1)
        except errors:
            return data
        if not result and not steps.eof:
            # Not even a header: LZMA's decompressor does not refuse a few bytes, it waits for more.
            return data
        if len(result) > largest or not steps.eof:
            raise TooLargeError
        return result

    return decompress
