"""Makes the key of a call: equal for calls with equal arguments, different for all others.

An argument becomes text without colons, glob characters, spaces or control characters. Text that
reads as itself stays readable (``42``, ``bob``, ``True``); text that reads as another value is
quoted (``'42'``); other types carry their name (``Decimal'1.5'``); a long or nested argument is
replaced by a digest (``#KAt5…``).
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from types import ModuleType
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS
from django.db.models import Model
from django.utils.safestring import SafeString

from cache_layer.exceptions import UnstableArgumentError
from cache_layer.keyspace import digest

Args = tuple[object, ...]
Kwargs = dict[str, object]

#: An argument longer than this (a UUID's text) is digested. Each has a digest of its own, so that a
#: pattern made from one argument finds every key with it.
LONGEST_ARGUMENT: Final = 42

_READABLE: Final = re.compile(r"[A-Za-z0-9_./@+~-]+")
_NUMBER: Final = re.compile(r"[+-]?[0-9.]")
_CONSTANTS: Final = frozenset({"None", "True", "False", "nan", "inf", "-inf"})
_MISSING: Final = inspect.Parameter.empty


class CallKeys:
    """Makes the keys of the calls of one function. It reads the signature once.

    Args:
        function: The function.
        prefix: The text before the function's name; ``""`` for its module.
        include_args: Whether each call has a key of its own.
    """

    def __init__(
        self, function: Callable[..., object], prefix: str = "", *, include_args: bool = True
    ) -> None:
        name = function.__qualname__
        if prefix:
            name = name.rpartition("<locals>.")[2]
        self.stem: Final = f"{prefix or function.__module__}:{name}:"
        self._include_args = include_args
        self._signature = _signature(function)
        # A bound method: the results of two objects differ.
        owner = getattr(inspect.unwrap(function), "__self__", None)
        self._owner = () if owner is None or isinstance(owner, ModuleType) else (owner,)
        parameters = self._signature.parameters.values()
        self._simple = all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
        self._names = [p.name for p in parameters]
        self._defaults = [p.default for p in parameters]

    @property
    def names(self) -> frozenset[str]:
        """The names of the parameters."""
        return frozenset(self._names)

    def key(self, args: Args, kwargs: Mapping[str, object]) -> str:
        """Return the key of a call.

        Raises:
            TypeError: The function does not take these arguments.
            UnstableArgumentError: An argument has no stable form; it is a TypeError, too.
        """
        if not self._include_args:
            return self.stem + ":".join(map(argument_text, self._owner))
        values = self._values(args, kwargs)
        if self._owner:
            values = (*self._owner, *values)
        return self.stem + ":".join([argument_text(value) for value in values])

    @property
    def tag(self) -> str:
        """The tag that every result of the function has."""
        return f"@function:{self.stem[:-1]}"

    def arguments(self, args: Args, kwargs: Mapping[str, object]) -> dict[str, object]:
        """Return every argument of a call by name, defaults included."""
        return dict(zip(self._names, self._values(args, kwargs), strict=True))

    def _values(self, args: Args, kwargs: Mapping[str, object]) -> Iterable[object]:
        if self._simple:
            count = len(args)
            if not kwargs and count == len(self._names):
                return args
            names = self._names[count:]
            values = [
                kwargs.get(name, default)
                for name, default in zip(names, self._defaults[count:], strict=True)
            ]
            # The signature handles all other calls, for its error messages.
            if (
                count <= len(self._names)
                and kwargs.keys() <= set(names)
                and not any(value is _MISSING for value in values)
            ):
                return (*args, *values)
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments.values()


def _signature(function: Callable[..., object]) -> inspect.Signature:
    """Return the signature of the function, or of the function that it wraps.

    A decorator may change the parameters of its function. One with ``*args, **kwargs`` passes its
    arguments on, so the wrapped function has the signature.
    """
    if not inspect.isfunction(function):
        return inspect.signature(function)
    own = inspect.signature(function, follow_wrapped=False)
    kinds = {parameter.kind for parameter in own.parameters.values()}
    passes_on = kinds == {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    return inspect.signature(function) if passes_on else own


def argument_text(value: object) -> str:
    """Return the text that stands for an argument in a key.

    Raises:
        UnstableArgumentError: The argument has no stable form.
    """
    try:
        text = _text(value)
    except RecursionError:
        raise UnstableArgumentError(
            "the argument contains itself or is nested too deeply"
        ) from None
    if len(text) > LONGEST_ARGUMENT or type(value) in _NESTED:
        return digest(text)
    return text


def _text(value: object) -> str:
    make = _TEXTS.get(type(value))
    return make(value) if make else _text_of_family(value)


def _quoted(text: str) -> str:
    return quote(text, safe="/@+~", errors="surrogatepass")


def _str_text(value: str) -> str:
    if not _READABLE.fullmatch(value):
        return _quoted(value) or "''"
    if value in _CONSTANTS:
        return f"'{value}'"
    if _NUMBER.match(value):
        try:
            float(value)
        except ValueError:
            return value
        return f"'{value}'"
    return value


def _int_text(value: int) -> str:
    # Beyond this, decimal text is slow to make and then refused.
    return str(value) if -(1 << 256) < value < 1 << 256 else f"int'{value:x}'"


def _clock_text(value: datetime | time) -> str:
    zone = value.tzinfo
    if zone is not None and type(zone) is not timezone and getattr(zone, "key", None) is None:
        raise _unstable(zone)
    moment = f"{value.isoformat()}/{value.fold}/{zone!r}"
    return f"{type(value).__name__}'{_quoted(moment)}'"


def _items_text(items: Iterable[object]) -> str:
    return ",".join([_text(item) for item in items])


def _sorted_text(items: Iterable[object]) -> str:
    return ",".join(sorted([_text(item) for item in items]))


def _dict_text(value: Mapping[Any, object]) -> str:
    return ",".join(sorted([f"{_text(key)}={_text(item)}" for key, item in value.items()]))


def _class_name(cls: type) -> str:
    return _quoted(f"{cls.__module__}.{cls.__qualname__}")


def _text_of_family(value: Any) -> str:
    # isinstance, not the exact type: lazy objects stand for what they wrap.
    if isinstance(value, Model):
        if value.pk is None or value._state.adding:
            raise UnstableArgumentError(f"{value._meta.label} object that was never saved")
        database = value._state.db
        place = "" if database in (None, DEFAULT_DB_ALIAS) else f"@{_quoted(database)}"
        return f"{value._meta.label_lower}{place}'{_text(value.pk)}'"
    if isinstance(value, enum.Enum):
        # A combination of flags without a name has only its value.
        member: str | None = value.name
        return f"{_class_name(type(value))}'{_quoted(member or str(value.value))}'"
    if isinstance(value, type):
        return f"class'{_class_name(value)}'"
    if dataclasses.is_dataclass(value):
        try:
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        except AttributeError as error:
            # A field without a default that was not set yet.
            raise UnstableArgumentError(f"{_class_name(type(value))} object: {error}") from None
        return f"{_class_name(type(value))}'{_dict_text(fields)}'"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return f"{_class_name(type(value))}'{_items_text(value)}'"
    raise _unstable(value)


def _unstable(value: object) -> UnstableArgumentError:
    return UnstableArgumentError(
        f"{type(value).__module__}.{type(value).__qualname__} object. Plain values, dataclasses, "
        "enums, named tuples and saved model instances have one."
    )


_NESTED: Final = frozenset({tuple, list, dict, set, frozenset})

_TEXTS: Final[dict[type, Callable[[Any], str]]] = {
    str: _str_text,
    int: _int_text,
    bool: str,
    type(None): str,
    float: repr,
    bytes: lambda value: f"bytes'{quote(value, safe='')}'",
    SafeString: lambda value: f"safe'{_quoted(value[:])}'",
    Decimal: lambda value: f"Decimal'{value}'",
    UUID: lambda value: f"UUID'{value}'",
    date: lambda value: f"date'{value}'",
    datetime: _clock_text,
    time: _clock_text,
    timedelta: lambda value: f"timedelta'{value.days}/{value.seconds}/{value.microseconds}'",
    tuple: lambda value: f"({_items_text(value)})",
    list: lambda value: f"<{_items_text(value)}>",
    dict: lambda value: f"{{{_dict_text(value)}}}",
    set: lambda value: f"set({_sorted_text(value)})",
    frozenset: lambda value: f"frozenset({_sorted_text(value)})",
}
