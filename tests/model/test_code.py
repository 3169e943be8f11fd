"""The code keeps the promise of the model: its own steps, interleaved as the explorer does.

Each client is what ``@cached`` and its invalidation do, one effect at a time: cache operations on
a real store, computations, waits. A random but repeatable schedule decides whose turn it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator
from contextvars import Context
from typing import Any

import pytest
from django.core.cache import caches

from cache_layer import cached
from cache_layer.backends import MISSING, Operation, ResilientCache
from cache_layer.backends.operations.base import px, raw
from cache_layer.backends.operations.leases import Fill
from cache_layer.functions.compute import CachedCall, Miss, Wait
from cache_layer.functions.wrappers import CachedFunction
from tests.cache_layer.conftest import store as store
from tests.model.history import Event, Invalidated, Read, stale_reads

SCHEDULES = 500
KEY = "key"

Steps = Generator[Any, Any, None]


class Run:
    """One schedule of three clients on one key, and what became of it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.version = 1
        self.clock = 0
        self.events: list[Event] = []
        self.function: CachedFunction[[], int] = cached(key_prefix=f"model{seed}")(
            lambda: self.version
        )
        backend = caches["default"]
        assert isinstance(backend, ResilientCache)
        self.backend = backend

    def call(self) -> Steps:
        began = self.clock
        place = self.function._place((), {})
        assert place is not None
        _backend, factory, result = place
        read = factory.read(result)
        found = yield read
        if found is MISSING:
            miss = Miss(CachedCall(self.function._spec, *place, (), {}))
            found, error = yield from miss.steps(read.unreadable)
            assert error is None
        self.events.append(Read(KEY, found, began))

    def invalidate(self, *, tag: bool) -> Steps:
        self.version += 1
        version = self.version
        keys = self.function._spec.keys
        yield self.backend.operations("", computed=True).delete_many(
            [keys.tag if tag else keys.key((), {})]
        )
        self.events.append(Invalidated(KEY, version, self.clock))

    def evict(self) -> Steps:
        keys = self.function._spec.keys
        name = self.chance.choice([keys.tag, keys.key((), {})])
        yield self.backend.operations("", computed=True).delete_many([name])

    def clients(self) -> Iterator[Steps]:
        yield self.call()
        yield self.call()
        yield self.call()
        yield self.invalidate(tag=self.chance.random() < 0.5)
        if self.chance.random() < 0.5:
            yield self.evict()

    def to_the_end(self) -> None:
        """Let all clients do their steps in a random order."""
        waiting: dict[int, tuple[Steps, Context, Any]] = {}
        for number, steps in enumerate(self.clients()):
            waiting[number] = (steps, Context(), None)
        while waiting:
            number = self.chance.choice(list(waiting))
            steps, context, effect = waiting[number]
            if isinstance(effect, Wait) and not effect._flight.done:
                continue
            self.clock += 1
            try:
                answer = context.run(self._done, effect)
                waiting[number] = steps, context, context.run(steps.send, answer)
            except StopIteration:
                del waiting[number]

    def _done(self, effect: Any) -> Any:
        if isinstance(effect, Operation):
            return self.backend.store.run(effect)
        return None if effect is None else effect.do()


def stale(seeds: range) -> list[Any]:
    found = []
    for seed in seeds:
        run = Run(seed)
        run.to_the_end()
        assert len(run.events) == 4
        found += stale_reads(run.events)
        # Whoever comes afterwards begins after every invalidation.
        run.clock += 1
        run.events.append(Read(KEY, run.function(), run.clock))
        found += stale_reads(run.events)
    return found


def test_no_schedule_serves_what_was_invalidated_before_the_read_began(store: str) -> None:
    assert stale(range(SCHEDULES)) == []


@pytest.mark.slow
@pytest.mark.parametrize("store", ["redis"], indirect=True)
def test_without_the_lease_some_schedule_does(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unfenced(fill: Fill) -> tuple[Any, ...]:
        expiry = ("PX", fill.milliseconds) if px(fill.milliseconds) else ()
        return ("SET", raw(fill.key), fill.data, *expiry)

    assert stale(range(SCHEDULES)) == []
    command: Callable[[Fill], Any] = unfenced
    monkeypatch.setattr(Fill, "command", command)
    assert stale(range(1000, 1000 + SCHEDULES)) != []
