"""redis-py by itself: what every other row is compared with."""

from __future__ import annotations

from benchmarks.cache.environment import POOL
from benchmarks.cache.peers import Peer


class Sync(Peer):
    name = "redis-py"

    def __init__(self, url: str, value: str) -> None:
        import redis

        client = redis.Redis.from_url(url)
        self.get = client.get
        self.set = lambda key, value: client.set(key, value, ex=600)
        self.get_many = client.mget

        def set_many(values):
            pipeline = client.pipeline(transaction=False)
            for key, value in values.items():
                pipeline.set(key, value, ex=600)
            pipeline.execute()

        self.set_many = set_many


class Async(Peer):
    name = "redis.asyncio"

    def __init__(self, url: str, value: str) -> None:
        import redis.asyncio

        self._client = client = redis.asyncio.Redis.from_url(url, max_connections=POOL)
        self.aget = client.get
        self.aset = lambda key, value: client.set(key, value, ex=600)
        self.aget_many = client.mget

        async def set_many(values):
            pipeline = client.pipeline(transaction=False)
            for key, value in values.items():
                pipeline.set(key, value, ex=600)
            await pipeline.execute()

        self.aset_many = set_many

    async def aclose(self) -> None:
        await self._client.aclose()
