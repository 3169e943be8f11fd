"""Redis's hashes, sets and sorted sets, with the methods of django-redis."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from operator import methodcaller
from typing import TYPE_CHECKING

from cache_layer.aliases import Function, Value
from cache_layer.backends.alias import CacheAlias

if TYPE_CHECKING:
    from cache_layer.backends.django_redis_client import BoundClient, DjangoRedisClient

Method = Function
AwaitedMethod = Callable[..., Awaitable[Value]]


def twins(name: str) -> tuple[Method, AwaitedMethod]:
    """Return a method of a backend that calls django-redis's method, and its awaited twin."""

    def call(self: DataStructures, *args: object, **kwargs: object) -> Value:
        return self.bound_client.call(methodcaller(name, *args, **kwargs))

    async def acall(self: DataStructures, *args: object, **kwargs: object) -> Value:
        return await self.bound_client.acall(methodcaller(name, *args, **kwargs))

    for function, called, doc in (
        (call, name, f"Do what ``{name}()`` of django-redis does; see there."),
        (acall, f"a{name}", f"See ``{name}()``."),
    ):
        function.__name__ = called
        function.__qualname__ = f"DataStructures.{called}"
        function.__doc__ = doc
    return call, acall


class DataStructures(CacheAlias):
    """The part of ``ResilientCache`` that only Redis can do.

    Arguments, results, keys and values are those of django-redis, with its prefix, version and
    serializer. The methods bypass memory and the near cache. While Redis cannot be used, each of
    them raises ``CacheUnavailableError``.
    """

    @property
    @abstractmethod
    def bound_client(self) -> BoundClient:
        """django-redis's client of this backend."""

    hset, ahset = twins("hset")
    hdel, ahdel = twins("hdel")
    hlen, ahlen = twins("hlen")
    hkeys, ahkeys = twins("hkeys")
    hexists, ahexists = twins("hexists")

    sadd, asadd = twins("sadd")
    scard, ascard = twins("scard")
    sdiff, asdiff = twins("sdiff")
    sdiffstore, asdiffstore = twins("sdiffstore")
    sinter, asinter = twins("sinter")
    sinterstore, asinterstore = twins("sinterstore")
    sismember, asismember = twins("sismember")
    smembers, asmembers = twins("smembers")
    smismember, asmismember = twins("smismember")
    smove, asmove = twins("smove")
    spop, aspop = twins("spop")
    srandmember, asrandmember = twins("srandmember")
    srem, asrem = twins("srem")
    sscan, asscan = twins("sscan")
    sunion, asunion = twins("sunion")
    sunionstore, asunionstore = twins("sunionstore")

    zadd, azadd = twins("zadd")
    zcard, azcard = twins("zcard")
    zcount, azcount = twins("zcount")
    zincrby, azincrby = twins("zincrby")
    zpopmax, azpopmax = twins("zpopmax")
    zpopmin, azpopmin = twins("zpopmin")
    zrange, azrange = twins("zrange")
    zrangebyscore, azrangebyscore = twins("zrangebyscore")
    zrank, azrank = twins("zrank")
    zrem, azrem = twins("zrem")
    zremrangebyscore, azremrangebyscore = twins("zremrangebyscore")
    zrevrange, azrevrange = twins("zrevrange")
    zrevrangebyscore, azrevrangebyscore = twins("zrevrangebyscore")
    zscore, azscore = twins("zscore")

    def hget(
        self, key: str, field: str, default: object = None, version: int | None = None
    ) -> Value:
        """Return the value of a field of a hash, or the default."""
        return self.bound_client.call(_hget(key, field, default, version))

    async def ahget(
        self, key: str, field: str, default: object = None, version: int | None = None
    ) -> Value:
        """See ``hget()``."""
        return await self.bound_client.acall(_hget(key, field, default, version))

    def hgetall(self, key: str, version: int | None = None) -> dict[str, Value]:
        """Return all fields of a hash with their values; a missing hash has none."""
        fields: dict[str, object] = self.bound_client.call(_hgetall(key, version))
        return fields

    async def ahgetall(self, key: str, version: int | None = None) -> dict[str, Value]:
        """See ``hgetall()``."""
        fields: dict[str, object] = await self.bound_client.acall(_hgetall(key, version))
        return fields

    def sscan_iter(
        self, key: str, match: str | None = None, count: int = 10, version: int | None = None
    ) -> Iterator[Value]:
        """Iterate over the members of a set, about ``count`` of them in a round trip.

        Raises:
            ValueError: ``match`` is given, and the alias compresses its values.
        """
        members: Iterator[object] = self.bound_client.routed.sscan_iter(key, match, count, version)
        return members

    async def asscan_iter(
        self, key: str, match: str | None = None, count: int = 10, version: int | None = None
    ) -> AsyncIterator[Value]:
        """See ``sscan_iter()``."""
        bound = self.bound_client
        client = bound.raw
        if match and client._has_compression_enabled():
            raise ValueError("Compressed members cannot be matched: leave match out.")
        pages = bound.asynchronous.sscan_iter(
            client.make_key(key, version=version),
            match=client.encode(match) if match else None,
            count=count,
        )
        async for member in pages:
            yield client.decode(member)


def _hget(
    key: str, field: str, default: object, version: int | None
) -> Callable[[DjangoRedisClient], Value]:
    def hget(client: DjangoRedisClient) -> Value:
        value = client.get_client().hget(client.make_key(key, version=version), field)
        return default if value is None else client.decode(value)

    return hget


def _hgetall(key: str, version: int | None) -> Callable[[DjangoRedisClient], dict[str, Value]]:
    def hgetall(client: DjangoRedisClient) -> dict[str, Value]:
        fields = client.get_client().hgetall(client.make_key(key, version=version))
        return {field.decode(): client.decode(value) for field, value in fields.items()}

    return hgetall
