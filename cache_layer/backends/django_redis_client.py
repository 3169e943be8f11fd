"""django-redis's client for one backend, and calls of it through the cache's circuit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

from django.core.cache.backends.base import BaseCache
from django_redis.exceptions import ConnectionInterrupted
from django_redis.util import CacheKey

from cache_layer.backends.alias import CacheAlias
from cache_layer.backends.redis.routed import AsyncRoutedRedis, Replies, RoutedRedis, Unanswered

T = TypeVar("T")
#: A client of django-redis, which has no types.
DjangoRedisClient = Any


class BoundClient:
    """The ``CLIENT_CLASS`` of an alias, with the prefix and the version of one backend.

    ``raw`` is the ``cache.client`` of django-redis: it shares the alias's connections of redis-py,
    and raises redis-py's exceptions.
    """

    def __init__(self, backend: CacheAlias, shared: DjangoRedisClient) -> None:
        self.shared = shared
        self._backend = backend
        self.raw = self._copy()
        redis = shared.get_client(write=True)
        self._sync = RoutedRedis(redis, backend, backend.run)
        self.asynchronous = AsyncRoutedRedis(redis, backend)
        self.routed = self._over(self._sync)

    def call(self, method: Callable[[DjangoRedisClient], T]) -> T:
        """Call a method of the client; return its result."""
        try:
            return method(self.routed)
        except ConnectionInterrupted as interrupted:
            raise interrupted.__cause__ or interrupted from None

    async def acall(self, method: Callable[[DjangoRedisClient], T]) -> T:
        """Call a method of the client, awaited; return its result.

        The methods are plain functions from arguments to commands and from replies to a result:
        they run until they need a reply, and again once it is known.
        """
        known: list[object] = []
        while True:
            redis = copy.copy(self._sync)
            redis._send = Replies(known)
            try:
                return method(self._over(redis))
            except Unanswered as question:
                command = question.command
            except ConnectionInterrupted as interrupted:
                raise interrupted.__cause__ or interrupted from None
            known.append(await self._backend.arun(command))

    def _over(self, redis: RoutedRedis) -> DjangoRedisClient:
        client = self._copy()
        client.get_client = lambda *_args, **_kwargs: redis
        return client

    def _copy(self) -> DjangoRedisClient:
        client = copy.copy(self.shared)
        client._backend = self._backend
        client._options = dict(client._options)
        if type(self._backend).make_key is not BaseCache.make_key:
            # The project's own class decides, as for all other keys of the cache.
            client.make_key = self._make_key
        return client

    def _make_key(
        self, key: object, version: int | None = None, prefix: str | None = None
    ) -> CacheKey:
        if isinstance(key, CacheKey):
            return key
        if prefix is None:
            return CacheKey(self._backend.make_key(key, version=version))
        return CacheKey(self._backend.key_func(key, prefix, version or self._backend.version))
