"""The default serializer: exact, and unable to run what a payload names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cache_layer.codec import messages
from cache_layer.codec.types import Refused, type_name
from cache_layer.codec.value_path import value_path
from cache_layer.exceptions import CodecError, UnsupportedValueError

#: How msgpack writes text of 32 to 255 bytes, and of up to 64 KB.
_STR8: Final = 0xD9
_STR16: Final = 0xDA
_STR8_START: Final = 32
_STR16_START: Final = 1 << 8
_STR16_END: Final = 1 << 16


class SafeSerializer:
    """Stores values so that what comes back equals what was stored, and has its type.

    Plain data, the standard library's value types, Django's responses, instances of installed
    models, and what was registered. Decoding looks names up in tables of this process and never
    imports or calls anything that a payload names. The interface is that of django-redis's
    serializers.

    Args:
        options: The ``OPTIONS`` of the ``CACHES`` entry, of which none is used.
    """

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        pass

    def dumps(self, value: object) -> bytes:
        """Return the bytes that stand for a value.

        Raises:
            UnsupportedValueError: The value could not be given back exactly. The message says
                which object in it is the reason, and where it is.
        """
        if type(value) is str and len(value) < _STR16_END and (text := _text(value)):
            return text
        try:
            message = messages.write(value)
            if len(message) > messages.MAX_ITEMS:
                messages.read(message)
        except Refused as refused:
            raise _unsupported(value, refused) from refused.__cause__
        except (messages.TooDeepError, RecursionError):
            raise _too_deep(value) from None
        except (RuntimeError, ValueError, OverflowError) as error:
            # It is larger than the format can say, or another thread changes it meanwhile.
            raise UnsupportedValueError(
                f"{type_name(type(value))}, as the value itself, cannot be stored: {error}"
            ) from error
        return message

    def loads(self, data: bytes) -> Any:
        """Return the value that the bytes stand for.

        Raises:
            CodecError: ``dumps`` did not write the bytes, or a class has changed since.
        """
        try:
            # Text, as long as most of it is: msgpack takes twice as long for it.
            kind = data[1]
            if data[0] == messages.PLAIN[0]:
                if kind == _STR8 and len(data) == data[2] + 3:
                    return data[3:].decode()
                if kind == _STR16 and len(data) == (data[2] << 8 | data[3]) + 4:
                    return data[4:].decode()
        except (IndexError, UnicodeDecodeError):
            # Msgpack knows lone surrogates, and what is wrong with all others.
            pass
        try:
            return messages.read(data)
        except CodecError:
            raise
        except messages.ERRORS as error:
            raise CodecError(f"the bytes are corrupt: {error!r}") from error


def _text(value: str) -> bytes | None:
    """Return the message of a text of usual length, which takes msgpack several times as long."""
    try:
        data = value.encode()
    except UnicodeEncodeError:
        # Msgpack knows lone surrogates.
        return None
    size = len(data)
    if _STR8_START <= size < _STR16_START:
        return b"\x01\xd9%c%b" % (size, data)
    if _STR16_START <= size < _STR16_END:
        return b"\x01\xda%c%c%b" % (size >> 8, size & 0xFF, data)
    return None


def _unsupported(value: object, refused: Refused) -> UnsupportedValueError:
    name = type_name(type(refused.value))
    path = value_path(refused.value, value)
    place = f"at value{path}" if path else "as the value itself"
    reason = f" ({refused.reason})" if refused.reason else ""
    return UnsupportedValueError(
        f"{name}, {place}, cannot be stored exactly{reason}. Store something plainer, register "
        f"the type with cache_layer.codec.register, or opt for pickle with SERIALIZER: "
        f'"cache_layer.codec.SignedPickleSerializer".'
    )


def _too_deep(value: object) -> UnsupportedValueError:
    return UnsupportedValueError(
        f"{type_name(type(value))}, as the value itself, cannot be stored: it contains itself or "
        "is nested too deeply (over 500 lists and dicts inside each other). Store something "
        "flatter."
    )
