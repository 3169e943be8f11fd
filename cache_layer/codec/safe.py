"""The default serializer: msgpack, with a signature if the value contains composites.

Plain data (None, bool, int, float, str, bytes, list, dict) and scalars are one msgpack object.
Composites are records before that object, each with a number, and references stand in their
place. Nothing recurses: a record is complete before those that refer to it are read, and an
object that occurs twice is written once.

Only records can build objects with behaviour, so a signature with ``SECRET_KEY`` covers them: bytes
from Redis can only build objects that this project stored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import Final

import msgpack  # type: ignore[import-untyped]
from django.db.models import Model
from django.http.response import HttpResponseBase
from django.utils.functional import Promise

from cache_layer.aliases import Value
from cache_layer.codec import limits, signing
from cache_layer.codec.django_models import MODEL
from cache_layer.codec.limits import TooDeepError, counted, items_in
from cache_layer.codec.refusals import too_deep, unsupported
from cache_layer.codec.registry import REGISTERED, is_known, is_registered
from cache_layer.codec.responses import RESPONSE
from cache_layer.codec.types import (
    COMPOSITES,
    LAZY,
    MISFITS,
    SCALARS,
    Composite,
    Convert,
    Refused,
    type_name,
)
from cache_layer.exceptions import CodecError, UnsupportedValueError

#: First byte of a message without records, and of one with them. Never a digit or a minus, which
#: begin a number, nor the NUL of a lease.
PLAIN: Final = b"\x01"
SIGNED: Final = b"\x03"

_SALT: Final = "cache_layer.codec.SafeSerializer"
_HEADER: Final = 1 + signing.SIZE
_REFERENCE: Final = 0
_BY_CODE: Final = {
    each.code: each for each in (*COMPOSITES.values(), LAZY, REGISTERED, MODEL, RESPONSE)
}
_SCALAR_OF: Final = {scalar.code: scalar.decode for scalar in SCALARS.values()}
#: The first bytes of byte strings and extensions in msgpack.
_MARKERS: Final = bytes([*range(0xC4, 0xCA), *range(0xD4, 0xD9)])
#: Values that the strict test cannot see: empty bytes, and three forms of msgpack's timestamps.
_UNSEEN: Final = (b"\xc4\x00", b"\xd6\xff", b"\xd7\xff", b"\xc7\x0c\xff")
#: How msgpack writes text of 32 to 255 bytes, and of up to 64 KB.
_STR8: Final = 0xD9
_STR16: Final = 0xDA
_STR8_START: Final = 32
_STR16_START: Final = 1 << 8
_STR16_END: Final = 1 << 16
_BUFFER: Final = 4096
_KEPT_BUFFER: Final = 1 << 20
_READING: Final = {"strict_map_key": False, "unicode_errors": "surrogatepass"}


#: Errors of reading bytes that are corrupt or foreign, or whose class has changed.
ERRORS: Final = (*MISFITS, msgpack.UnpackException)


class SafeSerializer:
    """Stores values exactly: a value that is read equals the stored one and has its type.

    It takes plain data, the standard library's value types, Django's responses, instances of
    installed models, and instances of registered classes. Decoding looks names up in tables of this
    process and never imports or calls anything that a payload names. The interface is that of
    django-redis's serializers.

    Args:
        options: The ``OPTIONS`` of the ``CACHES`` entry; none of them is used.
    """

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
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
            return _write(value)
        except Refused as refused:
            raise unsupported(value, refused) from refused.__cause__
        except (TooDeepError, RecursionError):
            raise too_deep(value) from None
        except (RuntimeError, ValueError, OverflowError) as error:
            # The value is too large for the format, or another thread is changing it.
            raise UnsupportedValueError(
                f"{type_name(type(value))}, as the value itself, cannot be stored: {error}"
            ) from error

    def loads(self, data: bytes) -> Value:
        """Return the value that the bytes stand for.

        Raises:
            CodecError: ``dumps`` did not write the bytes, or a class has changed since.
        """
        try:
            # A text of usual length: msgpack would take twice as long.
            kind = data[1]
            if data[0] == PLAIN[0]:
                if kind == _STR8 and len(data) == data[2] + 3:
                    return data[3:].decode()
                if kind == _STR16 and len(data) == (data[2] << 8 | data[3]) + 4:
                    return data[4:].decode()
        except (IndexError, UnicodeDecodeError):
            # Msgpack reads lone surrogates, and raises the right error for other bytes.
            pass
        try:
            return _read(data)
        except CodecError:
            raise
        except ERRORS as error:
            raise CodecError(f"the bytes are corrupt: {error!r}") from error


def _text(value: str) -> bytes | None:
    """Return the message of a text of usual length, several times faster than msgpack."""
    try:
        data = value.encode()
    except UnicodeEncodeError:
        # Msgpack writes lone surrogates.
        return None
    size = len(data)
    if _STR8_START <= size < _STR16_START:
        return b"\x01\xd9%c%b" % (size, data)
    if _STR16_START <= size < _STR16_END:
        return b"\x01\xda%c%c%b" % (size >> 8, size & 0xFF, data)
    return None


def _write(value: object) -> bytes:
    try:
        writer = _idle.pop()
    except IndexError:
        writer = _Writer()
    try:
        message = writer.write(value)
    except UnicodeEncodeError:
        # Few values have lone surrogates; those take a slower way.
        return _Writer(unicode_errors="surrogatepass").write(value)
    if len(message) < _KEPT_BUFFER:
        _idle.append(writer)
    return message


def _read(message: bytes) -> object:
    kind = message[:1]
    if kind == PLAIN:
        return _unpack(message[1:], **counted(len(message)))
    if kind != SIGNED:
        raise CodecError("the bytes were not written by this serializer")
    body = message[_HEADER:]
    if not signing.is_signed(body, message[1:_HEADER], _SALT):
        raise CodecError("the bytes do not carry this project's signature")
    return _read_records(body)


def _composite_of(cls: type) -> Composite | None:
    if cls in COMPOSITES:
        return COMPOSITES[cls]
    if is_registered(cls):
        return REGISTERED
    for base, family in ((Model, MODEL), (HttpResponseBase, RESPONSE), (Promise, LAZY)):
        if issubclass(cls, base):
            return family
    return REGISTERED if is_known(cls) else None


class _Writer:
    """Writes one message at a time.

    Packers are not reentrant, and code of a registered class or of the garbage collector may call
    the serializer during packing. So idle writers are kept in a list, whose pop and append are
    atomic.
    """

    def __init__(self, **options: str) -> None:
        self._packer = msgpack.Packer(
            default=self._default, strict_types=True, buf_size=_BUFFER, **options
        )
        self._reset()

    def _reset(self) -> None:
        #: The composites of the message, in the order of their numbers. Holding them here keeps
        #: their ids from being used again.
        self._values: list[tuple[object, Composite]] = []
        self._numbers: dict[int, int] = {}
        #: The numbers that the record being written refers to.
        self._references: list[int] = []
        self._extensions = 0
        #: How many values the message may still have.
        self._left = 0

    def write(self, value: object) -> bytes:
        """Return the message of a value."""
        body = self._body(value)
        if self._holds_others(value, body):
            self._reset()
            body = self._body(value, exact=_exact)
        signed = bool(self._values)
        if self._extensions:
            self._reset()
        return SIGNED + signing.sign(body, _SALT) + body if signed else PLAIN + body

    def _body(self, value: object, exact: Convert | None = None) -> bytes:
        # The list that counts the records has two values.
        self._left = limits.MAX_ITEMS - 3

        def pack(state: object) -> bytes:
            # A list that occurs twice is written twice. Lists of such lists would take memory
            # without end, so the values are counted before they are written.
            self._left -= items_in(state, self._left)
            packed: bytes = self._packer.pack(exact(state) if exact else state)
            return packed

        try:
            root = pack(value)
            return self._with_records(root, pack) if self._values else root
        except ValueError as error:
            if "recursion limit" in str(error):
                raise TooDeepError from None
            raise

    def _with_records(self, root: bytes, pack: Callable[[object], bytes]) -> bytes:
        states: list[bytes] = []
        links: list[bytes] = []
        needs: dict[int, list[int]] = {}
        ordered = True
        # The list grows while it is read: a state may contain further composites.
        for number, (value, composite) in enumerate(self._values):
            self._references = []
            states.append(pack([composite.code, number, composite.state_of(value)]))
            if self._references:
                needs[number] = self._references
                ordered = ordered and min(self._references) > number
            linked = composite.links_of(value) if composite.links_of else None
            if linked is not None:
                self._references = []
                links.append(pack([composite.code, number, linked]))
        order: Iterable[int] = reversed(range(len(states)))
        if not ordered:
            try:
                graph = {number: needs.get(number, ()) for number in range(len(states))}
                order = list(TopologicalSorter(graph).static_order())
            except CycleError:
                raise TooDeepError from None
        counts = self._packer.pack([len(states), len(links)])
        return b"".join([counts, *(states[number] for number in order), *links, root])

    def _default(self, value: object) -> msgpack.ExtType:
        cls = type(value)
        self._extensions += 1
        scalar = SCALARS.get(cls)
        if scalar is not None:
            return msgpack.ExtType(scalar.code, scalar.encode(value))
        number = self._numbers.get(id(value))
        if number is None:
            composite = _composite_of(cls)
            if composite is None:
                raise Refused(value)
            number = self._numbers[id(value)] = len(self._values)
            self._values.append((value, composite))
        self._references.append(number)
        return msgpack.ExtType(_REFERENCE, number.to_bytes(4, "big"))

    def _holds_others(self, value: object, body: bytes) -> bool:
        """Tell whether a body may hold values that msgpack wrote without calling ``_default``.

        msgpack writes bytearray and memoryview as bytes, and its own two types as extensions. Their
        markers also occur inside numbers and text, so a strict test follows the cheap one; both run
        in C, unlike a walk through the value.
        """
        if type(value) in (str, bytes) or len(body.translate(None, _MARKERS)) == len(body):
            return False
        if any(marker in body for marker in _UNSEEN):
            return True
        found: deque[bytes] = deque()
        unpacker = msgpack.Unpacker(
            # To count the extensions: a deque takes them in C, wherever they are in the value.
            ext_hook=found.insert,
            max_bin_len=0,
            max_buffer_size=len(body),
            raw=True,
            strict_map_key=False,
            timestamp=0,
        )
        unpacker.feed(body)
        try:
            for _ in unpacker:
                pass
        except ValueError:
            return True
        return len(found) != self._extensions


def _exact(value: Value) -> Value:
    """Return the value with each bytearray and memoryview replaced, or itself if it has none.

    Raises:
        Refused: The value contains a type of msgpack itself.
    """
    cls = type(value)
    if cls in (bytearray, memoryview):
        return msgpack.ExtType(SCALARS[cls].code, SCALARS[cls].encode(value))
    if cls in (msgpack.ExtType, msgpack.Timestamp):
        raise Refused(value)
    if cls is list:
        items = [_exact(item) for item in value]
        return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
    if cls is dict:
        exact = {_exact(key): _exact(item) for key, item in value.items()}
        same = all(a is b and exact[a] is value[b] for a, b in zip(exact, value, strict=True))
        return value if same else exact
    return value


def _read_records(body: bytes) -> object:
    built: dict[int, object] = {}

    def resolve(code: int, data: bytes) -> object:
        if code == _REFERENCE:
            return built[int.from_bytes(data, "big")]
        return _scalar(code, data)

    unpacker = msgpack.Unpacker(
        ext_hook=resolve, max_buffer_size=len(body), **_READING, **counted(len(body))
    )
    unpacker.feed(body)
    records, links = unpacker.unpack()
    for _ in range(records):
        code, number, state = unpacker.unpack()
        built[number] = _BY_CODE[code].build(state)
    for _ in range(links):
        code, number, linked = unpacker.unpack()
        set_links = _BY_CODE[code].set_links
        if set_links is not None:
            set_links(built[number], linked)
    value: object = unpacker.unpack()
    return value


def _scalar(code: int, data: bytes) -> object:
    return _SCALAR_OF[code](data)


_idle: Final[list[_Writer]] = []
_unpack: Final = partial(msgpack.unpackb, ext_hook=_scalar, **_READING)
