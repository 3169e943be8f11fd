"""The keys that one call of a mutating function makes stale."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from string import Formatter
from typing import Any, Final
from uuid import UUID

from cache_layer.backends import ResilientCache
from cache_layer.backends.operations.base import Operation
from cache_layer.exceptions import UnstableArgumentError
from cache_layer.globs import escape_glob
from cache_layer.interface import resilient_cache, validate_namespace
from cache_layer.keys import CallKeys, argument_text

logger = logging.getLogger("cache_layer")

_GLOB: Final = re.compile(r"(?<!\\)(?:\\\\)*[*?\[]")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
# Keys that people write by hand have these as they are, not as ``argument_text`` writes them.
_PLAIN: Final = (str, int, UUID, Decimal, date)


class Pattern:
    """A pattern with ``{argument}`` placeholders, for one function."""

    def __init__(self, function: Callable[..., Any], key_pattern: str, namespace: str) -> None:
        if not key_pattern and not namespace:
            raise ValueError(
                "cache_invalidate without a key_pattern and without a namespace would delete "
                "everything. Give one of them; the pattern '*' deletes everything if you mean it."
            )
        self.namespace = validate_namespace(namespace)
        self._function = function
        self._keys = CallKeys(function)
        self._parts = [self._checked(part, key_pattern) for part in _parse(key_pattern)]
        self._varies = any(name is not None for _text, name in self._parts)
        self._complained = False

    def filled(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str] | None:
        """Return the patterns for a call.

        None if an argument has no stable form (yet: an object may be about to be saved).
        """
        if not self._varies:
            return ["".join(text for text, _name in self._parts)]
        arguments = self._keys.arguments(args, kwargs)
        as_in_keys, as_written = "", ""
        for text, name in self._parts:
            as_in_keys += text
            as_written += text
            if name is not None:
                value = arguments[name]
                try:
                    encoded = argument_text(value)
                except UnstableArgumentError:
                    return None
                as_in_keys += encoded
                as_written += escape_glob(str(value)) if isinstance(value, _PLAIN) else encoded
        return list(dict.fromkeys([as_in_keys, as_written]))

    def widened(self) -> list[str]:
        """Return the pattern that any argument fits, for a call whose arguments fit none."""
        if not self._complained:
            self._complained = True
            logger.warning(
                "%s.%s has an argument without a stable form; its invalidations delete whatever "
                "any argument would.",
                self._function.__module__,
                self._function.__qualname__,
            )
        return ["".join(text if name is None else f"{text}*" for text, name in self._parts)]

    def _checked(self, part: tuple[str, str | None], key_pattern: str) -> tuple[str, str | None]:
        if part[1] is not None and part[1] not in self._keys.names:
            raise ValueError(
                f"The pattern {key_pattern!r} has {{{part[1]}}}, which is not an argument of "
                f"{self._function.__qualname__}. Write {{{{ and }}}} for braces that are meant "
                "as such."
            )
        return part


class Invalidation:
    """The deletions of one call, to be done later, in whatever thread or loop."""

    def __init__(self, namespace: str, patterns: list[str]) -> None:
        self._namespace = namespace
        self._patterns = patterns

    def __call__(self) -> None:
        """Do them."""
        backend = resilient_cache()
        for operation in self._operations(backend):
            backend.run(operation)

    async def awaited(self) -> None:
        """See ``__call__()``."""
        backend = resilient_cache()
        for operation in self._operations(backend):
            await backend.arun(operation)

    def _operations(self, backend: ResilientCache) -> Iterator[Operation[Any]]:
        make = backend.operations(self._namespace)
        exact = []
        for pattern in self._patterns:
            if not pattern:
                yield make.clear()
            elif _GLOB.search(pattern):
                yield make.delete_pattern(pattern, None)
            else:
                exact.append(_ESCAPED.sub(r"\1", pattern))
        if exact:
            # One command instead of a walk through all keys.
            yield make.delete_many(exact, None)


def _parse(key_pattern: str) -> Iterator[tuple[str, str | None]]:
    try:
        parts = list(Formatter().parse(key_pattern))
    except ValueError as error:
        raise ValueError(f"The pattern {key_pattern!r} is not well formed: {error}.") from None
    for text, name, specification, conversion in parts:
        if specification or conversion or name == "":
            raise ValueError(
                f"The pattern {key_pattern!r} may have names of arguments in braces, nothing else."
            )
        yield text, name
