"""The asynchronous libraries: aiocache and cashews."""

from __future__ import annotations

from urllib.parse import urlsplit

from benchmarks.cache.environment import POOL
from benchmarks.cache.peers import Peer


class Aiocache(Peer):
    name = "aiocache"

    def __init__(self, url: str, value: str) -> None:
        import aiocache
        from aiocache.serializers import PickleSerializer

        address = urlsplit(url)
        place = {"endpoint": address.hostname, "port": address.port, "namespace": "aiocache"}
        place["pool_max_size"] = POOL
        self._cache = cache = aiocache.Cache(
            aiocache.Cache.REDIS, serializer=PickleSerializer(), **place
        )
        self.aget = cache.get
        self.aset = lambda key, value: cache.set(key, value, ttl=600)
        self.aget_many = cache.multi_get
        self.aset_many = lambda values: cache.multi_set(list(values.items()), ttl=600)

        def cached(decorator=aiocache.cached, **options):
            return decorator(
                ttl=600,
                cache=aiocache.Cache.REDIS,
                serializer=PickleSerializer(),
                **place,
                **options,
            )

        @cached()
        async def hit(number):
            return value

        self.ahits = {"@cached": hit}

        def once(decorator, **options):
            functions = {}

            def way(key, function):
                if key not in functions:

                    @cached(decorator, key_builder=lambda *args: key, **options)
                    async def computed():
                        return await function()

                    functions[key] = computed
                return functions[key]()

            return way

        self.aonce = {
            "@cached": once(aiocache.cached),
            "@cached_stampede": once(aiocache.cached_stampede, lease=2),
        }

    async def aclose(self) -> None:
        await self._cache.close()


class Cashews(Peer):
    name = "cashews"
    near = False

    def __init__(self, url: str, value: str) -> None:
        from cashews import Cache

        self._cache = cache = Cache(self.name)
        # With RESP3, which redis-py 8 speaks unless told otherwise, no invalidation arrives.
        options = {"client_side": True, "protocol": 2} if self.near else {}
        cache.setup(url, secret="only-for-benchmarks", max_connections=POOL, **options)
        self.aget = lambda key: cache.get(f"cw:{key}")
        self.aset = lambda key, value: cache.set(f"cw:{key}", value, expire=600)
        self.aget_many = lambda keys: cache.get_many(*(f"cw:{key}" for key in keys))
        self.aset_many = lambda values: cache.set_many(
            {f"cw:{key}": value for key, value in values.items()}, expire=600
        )

        @cache(ttl="10m", key="hit:{number}")
        async def hit(number):
            return value

        self.ahits = {"@cache": hit}

        def once(**options):
            functions = {}

            def way(key, function):
                if key not in functions:

                    @cache(ttl="10m", key=key, **options)
                    async def computed():
                        return await function()

                    functions[key] = computed
                return functions[key]()

            return way

        self.aonce = {"@cache": once(), "@cache(lock=True)": once(lock=True)}

    async def aclose(self) -> None:
        await self._cache.close()


class CashewsNear(Cashews):
    name = "cashews, client_side"
    near = True
