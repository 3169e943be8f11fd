"""The default serializer: msgpack with extension types for everything msgpack does not tell apart.

Plain data (None, bool, int, float, str, bytes, list, dict) is packed and unpacked by msgpack
alone; only other types reach the hooks here. Decoding looks names up in tables of this process
and never imports or calls anything that a payload names.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]
from django.db.models import Model
from django.http.response import HttpResponseBase

from cache_layer.codec.django_models import MODEL
from cache_layer.codec.locate import path_to
from cache_layer.codec.registry import REGISTERED, registered_kind, type_name
from cache_layer.codec.responses import RESPONSE
from cache_layer.codec.types import KINDS, Kind, Refused
from cache_layer.exceptions import CodecError, UnsupportedValueError

#: First byte of everything written here. Never a digit, a minus or the NUL of a lease.
VERSION: Final = b"\x01"
#: How deep values other than list and dict may nest. Each level costs 40 KB of stack to decode.
MAX_DEPTH: Final = 40
# msgpack itself allows 511 lists in each other. That many on each level would overflow the stack,
# so below this level a walk in Python sees to it that there are fewer.
_TRUSTED_DEPTH: Final = 3
_NESTED_LISTS: Final = 32

_DECODERS: Final = {
    kind.code: kind.decode for kind in (*KINDS.values(), REGISTERED, MODEL, RESPONSE)
}
#: How msgpack writes text of 32 to 255 bytes, and of up to 64 KB.
_STR8: Final = 0xD9
_STR16: Final = 0xDA
_BUFFER: Final = 4096
_KEPT_BUFFER: Final = 1 << 20


class SafeSerializer:
    """Exact and safe; see the package. The interface is that of django-redis's serializers.

    ``dumps`` raises ``UnsupportedValueError`` for a value it could not give back exactly,
    ``loads`` raises ``CodecError`` for bytes that ``dumps`` did not write.
    """

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        pass

    def dumps(self, value: Any) -> bytes:
        """Return the bytes that stand for a value."""
        try:
            return VERSION + _LEVELS[0].pack(value)
        except Refused as refused:
            raise _unsupported(value, refused) from refused.__cause__
        except RecursionError:
            raise _too_deep(value) from None
        except (RuntimeError, ValueError, OverflowError) as error:
            # It is larger than the format can say, or another thread changes it meanwhile.
            raise UnsupportedValueError(
                f"{type_name(type(value))}, as the value itself, cannot be stored: {error}"
            ) from error

    def loads(self, data: bytes) -> Any:
        """Return the value that the bytes stand for."""
        try:
            # Text, as long as most of it is: msgpack takes twice as long for it.
            kind = data[1]
            if data[0] == VERSION[0]:
                if kind == _STR8 and len(data) == data[2] + 3:
                    return data[3:].decode()
                if kind == _STR16 and len(data) == (data[2] << 8 | data[3]) + 4:
                    return data[4:].decode()
        except (IndexError, UnicodeDecodeError):
            # Msgpack knows lone surrogates, and what is wrong with all others.
            pass
        if data[:1] != VERSION:
            raise CodecError("the bytes were not written by this serializer")
        try:
            return _unpack(data[1:])
        except Exception as error:
            raise CodecError(f"the bytes are corrupt: {error!r}") from error


class _TooDeepError(RecursionError):
    pass


class _Level:
    """One depth of nesting of values that are not plain.

    Packers are not reentrant, and a decoder's or a garbage collector's code may come back here in
    the middle of one, so they are borrowed from a list whose pop and append are atomic.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._packers: list[msgpack.Packer] = []
        self.unpack = partial(
            msgpack.unpackb,
            ext_hook=self._decode,
            strict_map_key=False,
            unicode_errors="surrogatepass",
        )

    def pack(self, value: Any) -> bytes:
        if self._depth > _TRUSTED_DEPTH:
            _check_nesting(value, _NESTED_LISTS)
        try:
            packer = self._packers.pop()
        except IndexError:
            packer = self._packer()
        try:
            packed: bytes = packer.pack(value)
        except UnicodeEncodeError:
            packer = self._packer(unicode_errors="surrogatepass")
            packed = packer.pack(value)
        except ValueError as error:
            if "recursion limit" in str(error):
                raise _TooDeepError from None
            raise
        if _may_hold_bytearray(value, packed):
            marked = _mark_bytearrays(value)
            if marked is not value:
                packed = packer.pack(marked)
        if len(packed) < _KEPT_BUFFER:
            self._packers.append(packer)
        return packed

    def _packer(self, **options: Any) -> msgpack.Packer:
        return msgpack.Packer(default=self._encode, strict_types=True, buf_size=_BUFFER, **options)

    def _encode(self, value: Any) -> msgpack.ExtType:
        kind = kind_of(type(value))
        if kind is None:
            raise Refused(value)
        if self._depth == MAX_DEPTH:
            raise _TooDeepError
        return msgpack.ExtType(kind.code, kind.encode(value, _LEVELS[self._depth + 1].pack))

    def _decode(self, code: int, data: bytes) -> Any:
        if self._depth == MAX_DEPTH:
            raise _TooDeepError
        return _DECODERS[code](data, _LEVELS[self._depth + 1].unpack)


_LEVELS: Final = [_Level(depth) for depth in range(MAX_DEPTH + 1)]
_unpack: Final = _LEVELS[0].unpack


def kind_of(cls: type) -> Kind | None:
    """Return how values of exactly this class are written; None if they are not."""
    kind = KINDS.get(cls) or registered_kind(cls)
    if kind is None and issubclass(cls, Model):
        return MODEL
    if kind is None and issubclass(cls, HttpResponseBase):
        return RESPONSE
    return kind


def _check_nesting(value: Any, allowed: int) -> None:
    items = value if type(value) is list else value.values() if type(value) is dict else ()
    if items and not allowed:
        raise _TooDeepError
    for item in items:
        _check_nesting(item, allowed - 1)


def _may_hold_bytearray(value: Any, packed: bytes) -> bool:
    # msgpack writes bytearray (and memoryview) as bytes without asking, whatever its options.
    # Their three markers also occur inside numbers and text, so a second, strict look follows
    # the cheap one; all of this is C, unlike a walk through the value.
    if not (b"\xc4" in packed or b"\xc5" in packed or b"\xc6" in packed):
        return False
    if type(value) in (str, bytes):
        return False
    if b"\xc4\x00" in packed:
        return True
    try:
        msgpack.unpackb(packed, max_bin_len=0, raw=True, strict_map_key=False)
    except ValueError:
        return True
    return False


def _mark_bytearrays(value: Any) -> Any:
    """Return the value with each bytearray replaced, or itself if it has none."""
    cls = type(value)
    if cls is bytearray:
        return msgpack.ExtType(KINDS[bytearray].code, bytes(value))
    if cls is memoryview:
        raise Refused(value)
    if cls is list:
        items = [_mark_bytearrays(item) for item in value]
        return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
    if cls is dict:
        marked = {key: _mark_bytearrays(item) for key, item in value.items()}
        if any(memoryview is type(key) for key in value):
            raise Refused(next(key for key in value if type(key) is memoryview))
        return marked if any(marked[key] is not item for key, item in value.items()) else value
    return value


def _unsupported(value: Any, refused: Refused) -> UnsupportedValueError:
    name = type_name(type(refused.value))
    path = path_to(refused.value, value)
    place = f"at value{path}" if path else "as the value itself"
    reason = f" ({refused.reason})" if refused.reason else ""
    return UnsupportedValueError(
        f"{name}, {place}, cannot be stored exactly{reason}. Store something plainer, teach the "
        f"codec this type with cache_layer.codec.register, or opt for pickle with SERIALIZER: "
        f'"cache_layer.codec.SignedPickleSerializer".'
    )


def _too_deep(value: Any) -> UnsupportedValueError:
    return UnsupportedValueError(
        f"{type_name(type(value))}, as the value itself, cannot be stored: it contains itself or "
        f"is nested too deeply (over 500 lists and dicts, or over {MAX_DEPTH} other values "
        "inside each other). Store something flatter."
    )
