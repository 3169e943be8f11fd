"""cache_layer."""

from __future__ import annotations

from benchmarks.cache.peers import Peer


class Ours(Peer):
    name = "cache_layer"

    def __init__(self, url: str, value: str) -> None:
        from django.core.cache import caches

        from cache_layer import cached

        self._backend = cache = caches["default"]
        self.get, self.aget = cache.get, cache.aget
        self.set, self.aset = cache.set, cache.aset
        self.get_many, self.aget_many = cache.get_many, cache.aget_many
        self.set_many, self.aset_many = cache.set_many, cache.aset_many

        @cached(ttl=600)
        def hit(number: int) -> str:
            return value

        @cached(ttl=600)
        async def ahit(number: int) -> str:
            return value

        self.hits, self.ahits = {"@cached": hit}, {"@cached": ahit}

        def once(lock):
            functions = {}

            def way(key, function):
                if key not in functions:

                    @cached(ttl=600, key_prefix=key, lock=lock)
                    async def computed():
                        return await function()

                    functions[key] = computed
                return functions[key]()

            return way

        self.aonce = {"@cached": once(False), "@cached(lock=True)": once(True)}

    def answering(self) -> object:
        state = self._backend.store.describe()
        # A value unlike any other, so that an answer from memory counts as a change.
        return state["since"] if state["state"] == "redis" else object()
