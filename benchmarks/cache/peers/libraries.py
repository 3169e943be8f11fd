"""The synchronous libraries: dogpile.cache and django-cacheops."""

from __future__ import annotations

from benchmarks.cache.peers import Peer


class Dogpile(Peer):
    name = "dogpile.cache"

    def __init__(self, url: str, value: str) -> None:
        from dogpile.cache import make_region

        def region(**arguments):
            return make_region(key_mangler=lambda key: f"dogpile:{key}").configure(
                "dogpile.cache.redis",
                expiration_time=600,
                arguments={"url": url, "redis_expiration_time": 1200, **arguments},
            )

        plain = region()
        self.get, self.set = plain.get, plain.set
        self.get_many, self.set_many = plain.get_multi, plain.set_multi

        @plain.cache_on_arguments()
        def hit(number):
            return value

        self.hits = {"cache_on_arguments": hit}
        distributed = region(distributed_lock=True, thread_local_lock=False)
        self.once = {
            "get_or_create": lambda key, function: plain.get_or_create(key, function),
            "get_or_create, distributed_lock": lambda key, function: distributed.get_or_create(
                key, function
            ),
        }


class Cacheops(Peer):
    name = "django-cacheops"

    def __init__(self, url: str, value: str) -> None:
        from cacheops import CacheMiss, cache, cached, cached_as
        from django.contrib.auth.models import User

        def get(key):
            try:
                return cache.get(f"cacheops:{key}")
            except CacheMiss:
                return None

        self.get = get
        self.set = lambda key, value: cache.set(f"cacheops:{key}", value, 600)

        @cached(timeout=600)
        def hit(number):
            return value

        self.hits = {"@cached": hit}

        def once(decorate):
            functions = {}

            def way(key, function):
                if key not in functions:

                    @decorate(key)
                    def computed():
                        return function()

                    functions[key] = computed
                return functions[key]()

            return way

        self.once = {
            "@cached": once(lambda key: cached(timeout=600, extra=key)),
            "@cached_as(lock=True)": once(
                lambda key: cached_as(User, timeout=600, extra=key, lock=True)
            ),
        }
