"""Fills ``{argument}`` placeholders in patterns and tags from the call of a function."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from string import Formatter
from typing import Any, Final
from uuid import UUID

from cache_layer.functions.arguments import CallKeys, argument_text
from cache_layer.keyspace import tag_key

#: Largest number of texts made from one pattern; beyond it, arguments become ``*``.
_MAX_FORMS: Final = 32

# Patterns written by hand have values of these types unquoted, unlike ``argument_text``.
PLAIN: Final = (str, int, UUID, Decimal, date)


class Template:
    """A text and the names in its braces.

    Args:
        function: The function whose arguments fill the placeholders.
        names: The names of its parameters.
        kind: What errors call the text: ``"pattern"`` or ``"tag"``.
        text: The text; ``{{`` and ``}}`` are literal braces.

    Raises:
        ValueError: The text is not well formed, or a name is no argument of the function.
    """

    def __init__(
        self, function: Callable[..., object], names: frozenset[str], kind: str, text: str
    ) -> None:
        self._parts = list(_parse(kind, text))
        for _text, name in self._parts:
            if name is not None and name not in names:
                raise ValueError(
                    f"The {kind} {text!r} has {{{name}}}, which is not an argument of "
                    f"{function.__qualname__}. Write {{{{ and }}}} for braces that are meant as "
                    "such."
                )
        self.varies = any(name is not None for _text, name in self._parts)

    def filled(self, arguments: Mapping[str, object], form: Callable[[Any], str]) -> str:
        """Return the text for a call, with each argument in the given form."""
        return "".join(
            [text if name is None else text + form(arguments[name]) for text, name in self._parts]
        )

    def filled_in_all_forms(
        self, arguments: Mapping[str, object], forms: Callable[[Any], list[str]]
    ) -> list[str]:
        """Return the texts for a call, with each argument in each of its forms.

        Where these would be too many, arguments with several forms become ``*``.
        """
        choices = [
            [text] if name is None else [text + form for form in forms(arguments[name])]
            for text, name in self._parts
        ]
        if math.prod(map(len, choices)) > _MAX_FORMS:
            choices = [
                made if len(made) == 1 else [text + "*"]
                for made, (text, _name) in zip(choices, self._parts, strict=True)
            ]
        return ["".join(each) for each in itertools.product(*choices)]


class TagTemplates:
    """The ``tags=`` of a decorator, with ``{argument}`` placeholders.

    Raises:
        TypeError: The tags are not a list of strings.
        ValueError: A tag is empty or not well formed, or names no argument of the function.
    """

    def __init__(
        self, function: Callable[..., object], keys: CallKeys, tags: Iterable[str]
    ) -> None:
        if isinstance(tags, str):
            raise TypeError(f"tags is a list of strings: write [{tags!r}].")
        tags = list(tags)
        for tag in tags:
            tag_key(tag)
        made = [Template(function, keys.names, "tag", tag) for tag in tags]
        #: The keys of the tags that are the same for every call.
        self.fixed: Final = tuple(tag_key(each.filled({}, str)) for each in made if not each.varies)
        self._varying = [each for each in made if each.varies]
        self.vary: Final = bool(self._varying)

    def __bool__(self) -> bool:
        return bool(self.fixed or self._varying)

    def keys(self, arguments: Mapping[str, object]) -> tuple[str, ...]:
        """Return the keys of the tags that contain arguments, for a call.

        Raises:
            UnstableArgumentError: An argument has no stable form.
        """
        # Quoted as in a key, where the arguments make the tag empty.
        filled = [each.filled(arguments, as_written) or "''" for each in self._varying]
        return tuple(map(tag_key, filled))


def as_written(value: object) -> str:
    """Return the text of an argument as it is written by hand in patterns and tags.

    Raises:
        UnstableArgumentError: The argument has no stable form.
    """
    if isinstance(value, PLAIN):
        # Python refuses to write integers of thousands of digits.
        with contextlib.suppress(ValueError):
            return str(value)
    return argument_text(value)


def _parse(kind: str, written: str) -> Iterator[tuple[str, str | None]]:
    try:
        parts = list(Formatter().parse(written))
    except ValueError as error:
        raise ValueError(f"The {kind} {written!r} is not well formed: {error}.") from None
    for text, name, specification, conversion in parts:
        if specification or conversion or name == "":
            raise ValueError(
                f"The {kind} {written!r} may have names of arguments in braces, nothing else."
            )
        yield text, name
