# ruff: noqa: ASYNC109 - Django's cache API calls a value's time to live its timeout
"""``get_or_set``, which stores a computed value unless the key was invalidated meanwhile."""

from __future__ import annotations

import asyncio
import inspect

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from cache_layer.aliases import Value
from cache_layer.backends.alias import CacheAlias
from cache_layer.backends.encoding import ResultKey
from cache_layer.backends.operations.inputs import ExpirationPolicy, Key, Timeout
from cache_layer.backends.operations.leases import Lease
from cache_layer.backends.operations.results import MISSING, ReadResult, StaleValue


class GetOrSet(CacheAlias):
    """The part of ``ResilientCache`` that computes missing values."""

    def get_or_set(
        self,
        key: Key,
        default: Value,
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        namespace: str = "",
    ) -> Value:
        """Return the value of a key; if the key is missing, store and return the default.

        A callable default is called. If the key is invalidated during that call, its result is
        returned but not stored. Concurrent callers each call the default; one of their results is
        stored.

        Args:
            key: The key.
            default: The value, or a function that returns it.
            timeout: Seconds to live; None never expires.
            version: The version of the key; None for that of the alias.
            namespace: The text before the key and a colon; metrics are counted under it.

        Raises:
            UnsupportedValueError: The serializer cannot store the default exactly.
        """
        factory = self.operations(namespace)
        result = ResultKey(factory.key(key, version))
        read = ReadResult(factory.context, result, 0)
        found = self.run(read)
        if found is not MISSING:
            return found
        results = factory.results(ExpirationPolicy(timeout))
        found = self.run(results.claim(result, read.unreadable))
        if not isinstance(found, Lease):
            return found.value if isinstance(found, StaleValue) else found
        try:
            value = default() if callable(default) else default
            self.run(results.fill(result, value, found))
        except BaseException:
            if found.owner:
                self.run(results.release(result, found))
            raise
        return value

    async def aget_or_set(
        self,
        key: Key,
        default: Value,
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        namespace: str = "",
    ) -> Value:
        """See ``get_or_set()``; the result of the default is awaited if it is awaitable."""
        factory = self.operations(namespace)
        result = ResultKey(factory.key(key, version))
        read = ReadResult(factory.context, result, 0)
        found = await self.arun(read)
        if found is not MISSING:
            return found
        results = factory.results(ExpirationPolicy(timeout))
        claim = results.claim(result, read.unreadable)
        try:
            found = await self.arun(claim)
        except asyncio.CancelledError:
            if claim.claimed is not None:
                await self.arun(results.release(result, claim.claimed))
            raise
        if not isinstance(found, Lease):
            return found.value if isinstance(found, StaleValue) else found
        try:
            value = default() if callable(default) else default
            if inspect.isawaitable(value):
                value = await value
            await self.arun(results.fill(result, value, found))
        except BaseException:
            if found.owner:
                await self.arun(results.release(result, found))
            raise
        return value
