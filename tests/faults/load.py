"""A mixed load of threads and tasks, and a record of it: how long calls took, what they saw."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self

from django.test import override_settings

from cache_layer import ainvalidate_tags, cached, invalidate_tags
from cache_layer.backends import ResilientCache
from cache_layer.functions.refresh import background
from cache_layer.signals import cache_state_changed
from tests.cache_layer.caches import state, wait_for
from tests.faults.bystander import Bystander
from tests.model.history import Event, Invalidated, Read, stale_reads

KEYS = 8
#: Numbers behind decorated functions: of threads, then of the event loop.
TAGGED = 3
THREADS = 4
TASKS = 6

#: Waiting for the interpreter and for a busy machine is not waiting for Redis.
NOTICEABLE = 0.01
HANG = 5.0
PAUSE = 0.002


@dataclasses.dataclass(slots=True)
class Call:
    began: float
    seconds: float


def milliseconds(calls: list[Call]) -> int:
    """Of the longest."""
    return round(max((call.seconds for call in calls), default=0) * 1000)


class Load:
    """A database of counters behind a cache, writers who invalidate, and readers.

    What they did is a history, which is held to the invariant of the model (``tests.model``).
    """

    def __init__(self, cache: ResilientCache) -> None:
        self.cache = cache
        #: By key: those of the threads, that of the event loop, those of the decorated functions.
        self.database = [0] * (KEYS + 1 + TAGGED + 1)
        self.history: list[Event] = []
        self.errors: list[BaseException] = []
        self.calls: list[Call] = []
        self._stalls: list[Call] = []
        self.changes: list[tuple[float, str]] = []
        self._bystander = Bystander([os.getpid()])
        self._done = threading.Event()
        self._locks = [threading.Lock() for _ in self.database]
        self._settings = override_settings(
            CACHES={
                "default": {
                    "BACKEND": "cache_layer.backends.ResilientCache",
                    "LOCATION": cache._location,
                    **cache._params,
                }
            }
        )
        database = self.database

        @cached(ttl=0.03, stale_ttl=600, tags=["n{number}"])
        def current(number: int) -> int:
            value = database[number]
            time.sleep(random.random() / 300)
            return value

        @cached(ttl=0.03, stale_ttl=600, tags=["n{number}"])
        async def acurrent(number: int) -> int:
            value = database[number]
            await asyncio.sleep(random.random() / 300)
            return value

        self._current = current
        self._acurrent = acurrent
        works: list[Callable[[], None]] = [self._write] * 2 + [self._read] * 2
        works += [lambda: asyncio.run(self._awaited()), self._stand_by]
        self._threads = [threading.Thread(target=self._guarded, args=(work,)) for work in works]

    def __enter__(self) -> Self:
        self._bystander.__enter__()
        cache_state_changed.connect(self._changed)
        self._settings.enable()
        for thread in self._threads:
            thread.start()
        self.wait_for_calls()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
        self._bystander.__exit__()
        # Renewals of results are calls too.
        wait_for(lambda: not background.under_way, "nothing is renewed any more")
        self._settings.disable()
        cache_state_changed.disconnect(self._changed)

    def wait_for_calls(self, count: int = 300) -> None:
        """Wait until so many more calls were made."""
        aim = len(self.calls) + count
        wait_for(lambda: self.errors or len(self.calls) >= aim, f"{count} calls")

    def wait_for_state(self, wanted: str) -> float:
        """Wait until it is reached; return the seconds."""
        began = time.monotonic()
        wait_for(lambda: state(self.cache) == wanted, f"the cache answers from {wanted}")
        return time.monotonic() - began

    def tripping(self) -> tuple[list[Call], list[Call]]:
        """Return the calls that were on their way when Redis was given up, and all others."""
        opened = [when for when, what in self.changes if what == "memory"]
        caught: list[Call] = []
        others: list[Call] = []
        for call in self.calls:
            ended = call.began + call.seconds
            into = any(call.began <= when and ended >= when - 1 for when in opened)
            (caught if into and call.seconds > NOTICEABLE else others).append(call)
        return caught, others

    def check(self, record: Callable[[str, object], None], fault: str, recovery: float) -> None:
        """Hand what was measured to the summary, then require what holds on every machine.

        ``recovery`` is in seconds.
        """
        caught, others = self.tripping()
        slow = sum(call.seconds > NOTICEABLE for call in others)
        record("fault", fault)
        record("calls", len(self.calls))
        record("trips", sum(what == "memory" for _, what in self.changes))
        record("caught", len(caught))
        record("longest", milliseconds(caught))
        record("others", milliseconds(others))
        record("slow", slow)
        record("bystander", milliseconds(self._stalls))
        record("recovery", round(recovery * 1000))
        stale = stale_reads(self.history)
        record("stale", len(stale))
        record("errors", len(self.errors))
        assert self.errors == []
        assert stale == []
        waited = sum(self._own(call) > NOTICEABLE for call in others)
        assert waited < len(others) / 100, "calls waited for a Redis that had been given up"
        assert max(call.seconds for call in self.calls) < HANG

    def _own(self, call: Call) -> float:
        """The seconds of a call beside what its process waited for a processor."""
        return call.seconds - self._bystander.machines_part(call.began, call.seconds)

    def _stand_by(self) -> None:
        """What this machine makes a thread wait that has nothing to do with the cache."""
        while not self._done.is_set():
            self._stalls.append(Call(time.monotonic(), 0))
            time.sleep(PAUSE)
            self._stalls[-1].seconds = time.monotonic() - self._stalls[-1].began - PAUSE

    def _changed(self, state: str, **_: Any) -> None:
        self.changes.append((time.monotonic(), state))

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001
            self.errors.append(error)

    def _timed(self, call: Callable[[], Any]) -> Any:
        began = time.monotonic()
        result = call()
        self.calls.append(Call(began, time.monotonic() - began))
        return result

    async def _atimed(self, call: Awaitable[Any]) -> Any:
        began = time.monotonic()
        result = await call
        self.calls.append(Call(began, time.monotonic() - began))
        return result

    def _write(self) -> None:
        cache = self.cache
        while not self._done.is_set():
            number = random.randrange(KEYS + TAGGED)
            if number >= KEYS:
                self._change(number + 1)
                continue
            key = f"k{number}"
            with self._locks[number]:
                self.database[number] += 1
                value = self.database[number]
                ways: list[Callable[[], object]] = [
                    lambda key=key: cache.delete(key),  # type: ignore[misc]
                    lambda key=key: cache.delete_many([key]),  # type: ignore[misc]
                    lambda key=key: cache.delete_pattern(f"{key}*"),  # type: ignore[misc]
                    lambda key=key, value=value: cache.set(key, value),  # type: ignore[misc]
                ]
                self._timed(random.choice(ways))
                self._invalidated(number, value)
            time.sleep(random.random() / 200)

    def _change(self, number: int) -> None:
        """Of what stands behind a decorated function."""
        current = self._current
        with self._locks[number]:
            self.database[number] += 1
            value = self.database[number]
            ways: list[Callable[[], object]] = [
                lambda: invalidate_tags(f"n{number}"),
                lambda: current.invalidate(number),
                current.invalidate_all,
            ]
            self._timed(random.choice(ways))
            self._invalidated(number, value)
        time.sleep(random.random() / 200)

    async def _awrite(self) -> None:
        """Its keys are its own: waiting for a thread's lock would stop the loop."""
        cache = self.cache
        number, tagged = KEYS, len(self.database) - 1
        while not self._done.is_set():
            self.database[number] += 1
            value = self.database[number]
            ways: list[Callable[[], Awaitable[object]]] = [
                lambda: cache.adelete(f"k{number}"),
                lambda: cache.adelete_many([f"k{number}"]),
                lambda: cache.adelete_pattern(f"k{number}*"),
                lambda value=value: cache.aset(f"k{number}", value),  # type: ignore[misc]
            ]
            await self._atimed(random.choice(ways)())
            self._invalidated(number, value)
            self.database[tagged] += 1
            value = self.database[tagged]
            ways = [
                lambda: ainvalidate_tags(f"n{tagged}"),
                lambda: self._acurrent.invalidate(tagged),
                self._acurrent.invalidate_all,
            ]
            await self._atimed(random.choice(ways)())
            self._invalidated(tagged, value)
            await asyncio.sleep(random.random() / 200)

    def _read(self) -> None:
        while not self._done.is_set():
            number = random.randrange(KEYS + 1, len(self.database) - 1)
            since = time.monotonic()
            self._seen(number, since, self._current(number))
            number = random.randrange(KEYS + 1)
            computing = 0.0

            def compute(number: int = number) -> int:
                nonlocal computing
                began = time.monotonic()
                value = self.database[number]
                time.sleep(random.random() / 300)
                computing = time.monotonic() - began
                return value

            since = time.monotonic()
            began = time.monotonic()
            value = self.cache.get_or_set(f"k{number}", compute)
            self.calls.append(Call(began, time.monotonic() - began - computing))
            self._seen(number, since, value)
            since = time.monotonic()
            key = f"k{number}"
            self._seen(number, since, self._timed(lambda key=key: self.cache.get(key)))
            time.sleep(random.random() / 500)

    async def _aread(self) -> None:
        while not self._done.is_set():
            number = len(self.database) - 1
            since = time.monotonic()
            self._seen(number, since, await self._acurrent(number))
            number = random.randrange(KEYS + 1)

            async def compute(number: int = number) -> int:
                value = self.database[number]
                await asyncio.sleep(random.random() / 300)
                return value

            since = time.monotonic()
            self._seen(number, since, await self.cache.aget_or_set(f"k{number}", compute))
            since = time.monotonic()
            self._seen(number, since, await self._atimed(self.cache.aget(f"k{number}")))
            await asyncio.sleep(random.random() / 500)

    async def _awaited(self) -> None:
        await asyncio.gather(self._awrite(), *[self._aread() for _ in range(TASKS - 1)])

    def _invalidated(self, number: int, value: int) -> None:
        self.history.append(Invalidated(str(number), value, time.monotonic()))

    def _seen(self, number: int, since: float, value: int | None) -> None:
        self.history.append(Read(str(number), value, since))
