"""Timing side by side: contestants take turns, so that a slow moment affects all of them."""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Result:
    """Wall-clock and CPU time of one call, in seconds."""

    median: float
    p99: float
    cpu: float


@dataclass(frozen=True)
class Failed:
    """What a contestant raised instead of being measured."""

    reason: str

    @classmethod
    def by(cls, error: BaseException) -> Failed:
        text = " ".join(str(error).split())
        return cls(f"{type(error).__name__}: {text}"[:100].rstrip(": "))


@dataclass(frozen=True)
class Awaited:
    """A contestant that is awaited, on the loop of the race."""

    call: Callable[[], Awaitable[Any]]


Call = Callable[[], Any] | Awaited


@dataclass
class _Runner:
    call: Call
    wall: list[float] = field(default_factory=list)
    cpu: float = 0.0
    calls: int = 0
    spent: float = 0.0
    failed: Failed | None = None

    def run(self, calls: int, inner: int, loop: asyncio.AbstractEventLoop | None) -> None:
        if isinstance(self.call, Awaited):
            assert loop is not None
            times, cpu = loop.run_until_complete(_awaited(self.call.call, calls, inner))
        else:
            times, cpu = _called(self.call, calls, inner)
        self.wall += times
        self.cpu += cpu
        self.calls += calls * inner
        self.spent += sum(times) * inner

    def forget(self) -> None:
        """Forget the measurements so far: they warmed up."""
        self.wall, self.cpu, self.calls = [], 0.0, 0

    def result(self) -> Result | Failed:
        if self.failed:
            return self.failed
        ordered = sorted(self.wall)
        return Result(
            median=statistics.median(ordered),
            p99=ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
            cpu=self.cpu / self.calls,
        )


def _called(call: Callable[[], Any], calls: int, inner: int) -> tuple[list[float], float]:
    times, turns = [], range(inner)
    cpu = time.process_time()
    for _ in range(calls):
        before = time.perf_counter()
        for _ in turns:
            call()
        times.append((time.perf_counter() - before) / inner)
    return times, time.process_time() - cpu


async def _awaited(
    call: Callable[[], Awaitable[Any]], calls: int, inner: int
) -> tuple[list[float], float]:
    times, turns = [], range(inner)
    cpu = time.process_time()
    for _ in range(calls):
        before = time.perf_counter()
        for _ in turns:
            await call()
        times.append((time.perf_counter() - before) / inner)
    return times, time.process_time() - cpu


def race(
    contestants: Mapping[str, Call],
    *,
    rounds: int,
    calls: int = 1,
    inner: int = 1,
    loop: asyncio.AbstractEventLoop | None = None,
    budget: float = 20.0,
) -> dict[str, Result | Failed]:
    """Call each contestant *calls* times in each of *rounds* rounds, after an unmeasured one.

    The order changes with each round. Of calls much faster than the clock, *inner* are timed
    together. One that raises is out, with its reason; one that has used *budget* seconds is not
    called again, and has been measured once at least.
    """
    order = random.Random(1)
    runners = {name: _Runner(call) for name, call in contestants.items()}
    gc.collect()
    for number in range(rounds + 1):
        running = [runner for runner in runners.values() if not runner.failed]
        order.shuffle(running)
        for runner in running:
            if number > 1 and runner.spent > budget:
                continue
            try:
                runner.run(calls if number else min(calls, 5), inner, loop)
            except Exception as error:
                runner.failed = Failed.by(error)
            if not number:
                runner.forget()
    return {name: runner.result() for name, runner in runners.items()}


def server_cpu(pid: int) -> float:
    """Return the CPU seconds of a process of this machine; 0 where they cannot be read.

    Finer than the clock ticks of ``stat``.
    """
    schedule = Path(f"/proc/{pid}/schedstat")
    return int(schedule.read_text().split()[0]) / 1e9 if schedule.exists() else 0.0
