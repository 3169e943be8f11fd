"""Django cache backends: Django's own, django-redis and django-vcache, with their defaults."""

from __future__ import annotations

from benchmarks.cache.peers import Peer


class _Backend(Peer):
    def __init__(self, url: str, value: str) -> None:
        from django.core.cache import caches

        cache = caches[self.name]
        self.get, self.aget = cache.get, cache.aget
        self.set, self.aset = cache.set, cache.aset
        self.get_many, self.aget_many = cache.get_many, cache.aget_many
        self.set_many, self.aset_many = cache.set_many, cache.aset_many

        # They have no decorator for functions; get_or_set takes its place.
        def hit(number):
            return cache.get_or_set(f"hit:{number}", lambda: value, 600)

        async def ahit(number):
            return await cache.aget_or_set(f"hit:{number}", lambda: value, 600)

        self.hits, self.ahits = {"get_or_set": hit}, {"get_or_set": ahit}
        self.once = {"get_or_set": lambda key, function: cache.get_or_set(key, function, 600)}


class DjangoRedis(_Backend):
    name = "django-redis"


class CarefulDjangoRedis(_Backend):
    """django-redis or django-vcache with the documented options for an unavailable Redis."""

    name = "django-redis, 250 ms timeouts, IGNORE_EXCEPTIONS"


class Django(_Backend):
    name = "Django"


class VCache(_Backend):
    name = "django-vcache"

    def __init__(self, url: str, value: str) -> None:
        super().__init__(url, value)
        assert self.get is not None
        self.get("key")  # Says at once that the driver is missing.
