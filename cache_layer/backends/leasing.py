# ruff: noqa: ASYNC109 - Django's cache API calls a value's time to live its timeout
"""Leases of the backend: storing what was computed only while nothing invalidated it."""

from __future__ import annotations

import asyncio
import inspect
from abc import abstractmethod
from collections.abc import Coroutine
from typing import Any, TypeVar

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from cache_layer.backends.context import Lease
from cache_layer.backends.operations.base import Operation
from cache_layer.backends.operations.factory import Operations

T = TypeVar("T")


class Leasing:
    """The part of ``ResilientCache`` that hands leases out, and ``get_or_set``."""

    @abstractmethod
    def operations(self, namespace: str = "") -> Operations:
        """See ``ResilientCache.operations``."""

    @abstractmethod
    def run(self, operation: Operation[T]) -> T:
        """See ``ResilientCache.run``."""

    @abstractmethod
    def arun(self, operation: Operation[T]) -> Coroutine[Any, Any, T]:
        """See ``ResilientCache.arun``."""

    def get_or_set(
        self,
        key: Any,
        default: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        namespace: str = "",
    ) -> Any:
        """Return the value of a key, storing the default first where there is none.

        A callable default is called for it. When the key is invalidated meanwhile, what it
        returned is returned and not stored.
        """
        found = self.get_or_lease(key, version=version, namespace=namespace)
        if not isinstance(found, Lease):
            return found
        try:
            value = default() if callable(default) else default
            self.fill(key, value, found, timeout, version=version, namespace=namespace)
        except BaseException:
            if found.owner:
                self.release(key, found, version=version, namespace=namespace)
            raise
        return value

    async def aget_or_set(
        self,
        key: Any,
        default: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        namespace: str = "",
    ) -> Any:
        """See ``get_or_set()``; what the default returns is awaited if it can be."""
        found = await self.aget_or_lease(key, version=version, namespace=namespace)
        if not isinstance(found, Lease):
            return found
        try:
            value = default() if callable(default) else default
            if inspect.isawaitable(value):
                value = await value
            await self.afill(key, value, found, timeout, version=version, namespace=namespace)
        except BaseException:
            if found.owner:
                await self.arelease(key, found, version=version, namespace=namespace)
            raise
        return value

    def get_or_lease(
        self, key: Any, *, version: int | None = None, namespace: str = ""
    ) -> Any | Lease:
        """Return the value of a key, or the right to store one: a ``Lease``.

        Whoever misses before a value is stored shares the lease; ``owner`` is True for the first.
        Any deletion of the key ends it. ``namespace`` is put before the key and counted under.
        """
        return self.run(self.operations(namespace).get_or_lease(key, version))

    async def aget_or_lease(
        self, key: Any, *, version: int | None = None, namespace: str = ""
    ) -> Any | Lease:
        """See ``get_or_lease()``; a caller that is cancelled meanwhile leaves no lease behind."""
        operations = self.operations(namespace)
        operation = operations.get_or_lease(key, version)
        try:
            return await self.arun(operation)
        except asyncio.CancelledError:
            if operation.claimed is not None:
                await self.arun(operations.release(key, operation.claimed, version))
            raise

    def fill(
        self,
        key: Any,
        value: Any,
        lease: Lease,
        timeout: Any = DEFAULT_TIMEOUT,
        *,
        version: int | None = None,
        namespace: str = "",
    ) -> bool:
        """Store a value if nothing ended the lease; return whether it is stored.

        :raises UnsupportedValueError: the serializer cannot store it exactly.
        """
        return self.run(self.operations(namespace).fill(key, value, lease, timeout, version))

    async def afill(
        self,
        key: Any,
        value: Any,
        lease: Lease,
        timeout: Any = DEFAULT_TIMEOUT,
        *,
        version: int | None = None,
        namespace: str = "",
    ) -> bool:
        """See ``fill()``."""
        operation = self.operations(namespace).fill(key, value, lease, timeout, version)
        return await self.arun(operation)

    def release(
        self, key: Any, lease: Lease, *, version: int | None = None, namespace: str = ""
    ) -> bool:
        """Give a lease back without storing anything; return whether it was still held."""
        return self.run(self.operations(namespace).release(key, lease, version))

    async def arelease(
        self, key: Any, lease: Lease, *, version: int | None = None, namespace: str = ""
    ) -> bool:
        """See ``release()``."""
        return await self.arun(self.operations(namespace).release(key, lease, version))
