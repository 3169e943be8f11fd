"""What one call of a mutating function makes stale, and how it is forgotten."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from cache_layer.backends import ResilientCache
from cache_layer.backends.operations.base import Operation
from cache_layer.exceptions import UnstableArgumentError
from cache_layer.functions.arguments import CallKeys, argument_text
from cache_layer.functions.tags import TagTemplates, tag_key
from cache_layer.functions.templates import PLAIN, Template, as_written
from cache_layer.functions.transactions import aon_commit, on_commit
from cache_layer.globs import escape_glob
from cache_layer.interface import resilient_cache, validate_namespace

logger = logging.getLogger("cache_layer")

_GLOB: Final = re.compile(r"(?<!\\)(?:\\\\)*[*?\[]")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


def invalidate_tags(*tags: str, namespace: str = "") -> None:
    """Forget every result that has one of the tags, however many there are, in one command.

    Inside ``transaction.atomic()`` they are forgotten at once and again after the commit.
    Results whose computation is under way are not stored.

    :raises TypeError: a tag is not a string.
    :raises ValueError: a tag is empty, or the namespace contains a colon or a glob character.
    """
    delete = _of_tags(tags, namespace)
    on_commit(delete)
    delete()


async def ainvalidate_tags(*tags: str, namespace: str = "") -> None:
    """See ``invalidate_tags()``."""
    delete = _of_tags(tags, namespace)
    await aon_commit(delete)
    await delete.awaited()


class Deletion:
    """Of keys; looks the backend up when it is done, in the thread that does it."""

    def __init__(self, namespace: str, keys: Iterable[str]) -> None:
        self._namespace = namespace
        self._keys = list(keys)

    def __call__(self) -> int:
        """Do it; return how many keys held a value."""
        backend = resilient_cache()
        return backend.run(self._operation(backend))

    async def awaited(self) -> int:
        """See ``__call__()``."""
        backend = resilient_cache()
        return await backend.arun(self._operation(backend))

    def _operation(self, backend: ResilientCache) -> Operation[int]:
        return backend.operations(self._namespace).delete_many(self._keys, None)


class InvalidationRule:
    """What the calls of one function make stale: a pattern and tags with placeholders.

    :raises ValueError: there is neither pattern nor namespace nor tag, or a placeholder is no
        argument of the function.
    """

    def __init__(
        self, function: Callable[..., Any], key_pattern: str, namespace: str, tags: Iterable[str]
    ) -> None:
        self.namespace = validate_namespace(namespace)
        self._function = function
        self._keys = CallKeys(function)
        self._tags = TagTemplates(function, self._keys, tags)
        if not key_pattern and not namespace and not self._tags:
            raise ValueError(
                "cache_invalidate without a key_pattern, a namespace or tags would delete "
                "everything. Give one of them; the pattern '*' deletes everything if you mean it."
            )
        # The whole namespace, unless only its tags are meant.
        self._pattern = (
            Template(function, self._keys.names, "pattern", key_pattern)
            if key_pattern or not self._tags
            else None
        )
        self._complained = False

    def of_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Invalidation | None:
        """Return what a call makes stale.

        None if an argument has no stable form (yet: an object may be about to be saved).
        """
        pattern = self._pattern
        try:
            varies = self._tags.vary or (pattern is not None and pattern.varies)
            arguments = self._keys.arguments(args, kwargs) if varies else {}
            patterns = []
            if pattern is not None:
                # Keys that people write by hand have arguments as they are.
                patterns = [
                    pattern.filled(arguments, argument_text),
                    pattern.filled(arguments, _glob_as_written),
                ]
            tags = (*self._tags.fixed, *self._tags.keys(arguments))
            return Invalidation(self.namespace, dict.fromkeys(patterns), tags)
        except UnstableArgumentError:
            return None

    def widened(self) -> Invalidation:
        """Return what a call makes stale whose arguments have no stable form.

        That is the pattern that any argument fits. No result has a tag of such an argument.
        """
        if not self._complained:
            self._complained = True
            logger.warning(
                "%s.%s has an argument without a stable form; its invalidations delete whatever "
                "any argument would.",
                self._function.__module__,
                self._function.__qualname__,
            )
        patterns = [self._pattern.filled(_Anything(), str)] if self._pattern else []
        return Invalidation(self.namespace, patterns, self._tags.fixed)


class Invalidation:
    """The deletions of one call, to be done later, in whatever thread or loop."""

    def __init__(self, namespace: str, patterns: Iterable[str], keys: Iterable[str]) -> None:
        self._namespace = namespace
        self._patterns = list(patterns)
        self._keys = list(keys)

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
        exact = self._keys.copy()
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


class _Anything(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return "*"


def _glob_as_written(value: Any) -> str:
    return escape_glob(as_written(value)) if isinstance(value, PLAIN) else argument_text(value)


def _of_tags(tags: Iterable[str], namespace: str) -> Deletion:
    return Deletion(validate_namespace(namespace), map(tag_key, tags))
