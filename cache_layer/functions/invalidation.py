"""Finds the results that a call of a mutating function makes stale, and deletes them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final
from uuid import UUID

from cache_layer.backends import Operation, ResilientCache
from cache_layer.exceptions import UnstableArgumentError, is_time_limit
from cache_layer.functions.arguments import Args, CallKeys, Kwargs, argument_text
from cache_layer.functions.templates import PLAIN, TagTemplates, Template, as_written
from cache_layer.functions.transactions import aon_commit, asettle, on_commit
from cache_layer.globs import escape_glob
from cache_layer.interface import resilient_cache, validate_namespace
from cache_layer.keyspace import tag_key

logger = logging.getLogger("cache_layer")

_GLOB: Final = re.compile(r"(?<!\\)(?:\\\\)*[*?\[]")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


def invalidate_tags(*tags: str, namespace: str = "") -> None:
    """Invalidate every result that has one of the tags, in one command.

    Inside ``transaction.atomic()`` they are invalidated at once and again after the commit. Results
    whose computation is under way are not stored.

    Args:
        tags: The tags, with their placeholders filled: ``"user:42"``, not ``"user:{user_id}"``.
        namespace: Their namespace.

    Raises:
        TypeError: A tag is not a string.
        ValueError: A tag is empty, or the namespace contains a colon or a glob character.
    """
    invalidation = _of_tags(tags, namespace)
    on_commit(invalidation)
    invalidation()


async def ainvalidate_tags(*tags: str, namespace: str = "") -> None:
    """See ``invalidate_tags()``."""
    invalidation = _of_tags(tags, namespace)
    await aon_commit(invalidation)
    await invalidation.awaited()


class InvalidationRule:
    """The pattern and the tags, with placeholders, that the calls of one function invalidate.

    Args:
        function: The mutating function.
        key_pattern: A pattern of keys; ``""`` is the whole namespace, unless there are tags.
        namespace: The namespace of keys and tags.
        tags: Tags.

    Raises:
        ValueError: There is neither pattern nor namespace nor tag, or a placeholder is no
            argument of the function.
    """

    def __init__(
        self, function: Callable[..., object], key_pattern: str, namespace: str, tags: Iterable[str]
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
        # The whole namespace, unless the caller gave only tags.
        self._pattern = (
            Template(function, self._keys.names, "pattern", key_pattern)
            if key_pattern or not self._tags
            else None
        )
        self._warned = False

    def of_call(self, args: Args, kwargs: Kwargs) -> Invalidation | None:
        """Return the invalidation of a call.

        None if an argument has no stable form (yet: an object may be about to be saved).
        """
        pattern = self._pattern
        try:
            varies = self._tags.vary or (pattern is not None and pattern.varies)
            arguments = self._keys.arguments(args, kwargs) if varies else {}
            patterns = []
            if pattern is not None:
                patterns = pattern.filled_in_all_forms(arguments, _forms)
            tags = (*self._tags.fixed, *self._tags.keys(arguments))
            return Invalidation(self.namespace, patterns, tags)
        except UnstableArgumentError:
            return None

    def after_call(self, args: Args, kwargs: Kwargs) -> Invalidation:
        """Return the invalidation after a call whose arguments had no stable form before it.

        If they still have none, the placeholders match any argument. No result has a tag of such an
        argument.
        """
        if (invalidation := self.of_call(args, kwargs)) is not None:
            return invalidation
        if not self._warned:
            self._warned = True
            logger.warning(
                "%s.%s has an argument without a stable form; its invalidations delete whatever "
                "any argument would.",
                self._function.__module__,
                self._function.__qualname__,
            )
        patterns = [self._pattern.filled(_Anything(), str)] if self._pattern else []
        return Invalidation(self.namespace, patterns, self._tags.fixed)


class Invalidation:
    """Deletions to be done now or later, in any thread or event loop.

    The backend is looked up at that time, in that thread.

    Args:
        namespace: The namespace of keys and patterns.
        patterns: Patterns of keys to delete; ``""`` is the whole namespace.
        keys: Keys to delete, of results and of tags.
    """

    def __init__(
        self, namespace: str, patterns: Iterable[str] = (), keys: Iterable[str] = ()
    ) -> None:
        self._namespace = namespace
        self._patterns = list(patterns)
        self._keys = list(keys)

    def __call__(self) -> int:
        """Delete the keys; return how many held a value."""
        backend = resilient_cache()
        return sum([backend.run(operation) for operation in self._operations(backend)])

    async def awaited(self) -> int:
        """See ``__call__()``."""
        backend = resilient_cache()
        return sum([await backend.arun(operation) for operation in self._operations(backend)])

    def after_call(self) -> None:
        """Delete when the open transactions have ended, or now if none is open."""
        if not on_commit(self):
            self()

    async def aafter_call(self) -> None:
        """See ``after_call()``; a cancellation meanwhile does not keep them from being done."""
        try:
            if not await aon_commit(self):
                await self.awaited()
        except asyncio.CancelledError:
            await self.aafter_interruption()
            raise

    async def aafter_interruption(self) -> None:
        """Delete now, and again once the thread of the ORM has ended the interrupted call.

        The caller raises its CancelledError afterwards; further cancellations do not shorten the
        wait.
        """
        task = asyncio.ensure_future(self._now_and_when_settled())
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(task)

    async def _now_and_when_settled(self) -> None:
        await self.awaited()
        await asettle(self)

    def _operations(self, backend: ResilientCache) -> Iterator[Operation[int]]:
        factory = backend.operations(self._namespace, computed=True)
        exact = self._keys.copy()
        for pattern in self._patterns:
            if not pattern:
                yield factory.clear()
            elif _GLOB.search(pattern):
                yield factory.delete_pattern(pattern)
            else:
                exact.append(_ESCAPED.sub(r"\1", pattern))
        if exact:
            # One command in place of a scan of all keys.
            yield factory.delete_many(exact)


def is_unknown_outcome(error: BaseException) -> bool:
    """Return whether a call that raised this error may have done its work, or may still do it.

    True if the call, or a call that it waited for, was cancelled, interrupted or stopped.
    """
    cause: BaseException | None = error
    while cause is not None:
        # A group ends what the first failure left running.
        if not isinstance(cause, Exception) or isinstance(cause, BaseExceptionGroup):
            return True
        if is_time_limit(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


class _Anything(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return "*"


def _forms(value: object) -> list[str]:
    """Return the forms that an argument may have in keys, each once.

    An id is a number or a UUID in one place and its text in another, and keys written by hand have
    arguments unquoted.
    """
    forms = [argument_text(value)]
    if isinstance(value, PLAIN):
        written = as_written(value)
        forms += [escape_glob(written), argument_text(written)]
        with contextlib.suppress(ValueError):
            if isinstance(value, str) and str(other := UUID(value)) == value:
                forms.append(argument_text(other))
    return list(dict.fromkeys(forms))


def _of_tags(tags: Iterable[str], namespace: str) -> Invalidation:
    return Invalidation(validate_namespace(namespace), keys=map(tag_key, tags))
