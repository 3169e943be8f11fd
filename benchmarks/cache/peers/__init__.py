"""The libraries, each as its own documentation says it is used.

A peer has those of the operations that its library has; the others are None.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from benchmarks.measure import Failed

Key = str


class Peer:
    """One library over one Redis. Keys and values are strings; TTLs are ten minutes."""

    name: str

    get: Callable[[Key], Any] | None = None
    aget: Callable[[Key], Awaitable[Any]] | None = None
    set: Callable[[Key, str], Any] | None = None
    aset: Callable[[Key, str], Awaitable[Any]] | None = None
    get_many: Callable[[list[Key]], Any] | None = None
    aget_many: Callable[[list[Key]], Awaitable[Any]] | None = None
    set_many: Callable[[Mapping[Key, str]], Any] | None = None
    aset_many: Callable[[Mapping[Key, str]], Awaitable[Any]] | None = None

    #: A function of one argument that returns *value*, decorated; by the decorator's name.
    hits: Mapping[str, Callable[[int], Any]] = {}
    ahits: Mapping[str, Callable[[int], Awaitable[Any]]] = {}

    #: Ways to run an expensive function once: ``way(key, function)``, by name.
    once: Mapping[str, Callable[[str, Callable[[], str]], Any]] = {}
    aonce: Mapping[str, Callable[[str, Callable[[], Awaitable[str]]], Awaitable[Any]]] = {}

    def __init__(self, url: str, value: str) -> None:
        """Connect."""

    def answering(self) -> object:
        """Return what answers and since when; it must not change during a measurement."""

    async def aclose(self) -> None:
        """Close what belongs to the event loop."""


def classes() -> dict[str, Callable[[str, str], Peer]]:
    from benchmarks.cache.peers import aio, django_backends, floor, libraries, ours

    return {
        made.name: made
        for made in (
            floor.Sync,
            floor.Async,
            ours.Ours,
            django_backends.DjangoRedis,
            django_backends.Django,
            django_backends.VCache,
            aio.Aiocache,
            aio.Cashews,
            libraries.Dogpile,
            libraries.Cacheops,
        )
    }


#: The rows that need only dependencies of the project itself.
OWN = ("redis-py", "redis.asyncio", "cache_layer")


def connect(
    names: Iterable[str], url: str, value: str
) -> tuple[dict[str, Peer], dict[str, Failed]]:
    """Return the peers that work here, each holding ``key`` and ``key:0`` to ``key:99``."""
    peers: dict[str, Peer] = {}
    failed: dict[str, Failed] = {}
    known = classes()
    loop = asyncio.get_event_loop()
    for name in names:
        try:
            peer = known[name](url, value)
            for key in ("key", *batch()):
                if peer.set:
                    peer.set(key, value)
                elif peer.aset:
                    loop.run_until_complete(peer.aset(key, value))
        except Exception as error:
            failed[name] = Failed.by(error)
        else:
            peers[name] = peer
    return peers, failed


def batch(size: int = 100) -> list[Key]:
    return [f"key:{number}" for number in range(size)]


def close(peers: Iterable[Peer], loop: asyncio.AbstractEventLoop) -> None:
    for peer in peers:
        loop.run_until_complete(peer.aclose())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
