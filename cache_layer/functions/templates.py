"""Text with ``{argument}`` placeholders that are filled from the call of a function."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from string import Formatter
from typing import Any, Final
from uuid import UUID

from cache_layer.functions.arguments import argument_text

# What people write by hand has these as they are, not as ``argument_text`` writes them.
PLAIN: Final = (str, int, UUID, Decimal, date)


class Template:
    """A text and the names in its braces.

    :raises ValueError: it is not well formed, or a name is no argument of the function.
    """

    def __init__(
        self, function: Callable[..., Any], names: frozenset[str], kind: str, text: str
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

    def filled(self, arguments: Mapping[str, Any], form: Callable[[Any], str]) -> str:
        """Return the text for a call, with each argument in that form."""
        return "".join(
            [text if name is None else text + form(arguments[name]) for text, name in self._parts]
        )


def as_written(value: Any) -> str:
    """Return what stands for an argument where people write it by hand.

    :raises UnstableArgumentError: nothing does.
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
