"""Timing side by side: contestants take turns, so a slow moment of the machine hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    """Wall-clock and CPU time of one call, in seconds."""

    median: float
    p99: float
    cpu: float


def take_turns(
    contestants: Mapping[str, Callable[[], Any]], *, rounds: int, calls: int = 1
) -> dict[str, Result]:
    """Call each contestant *calls* times in each of *rounds* rounds, after one unmeasured round."""
    wall: dict[str, list[float]] = {name: [] for name in contestants}
    cpu: dict[str, float] = dict.fromkeys(contestants, 0.0)
    for number in range(rounds + 1):
        for name, call in contestants.items():
            cpu_before = time.process_time()
            for _ in range(calls):
                before = time.perf_counter()
                call()
                if number:
                    wall[name].append(time.perf_counter() - before)
            if number:
                cpu[name] += time.process_time() - cpu_before
    return {
        name: Result(
            median=statistics.median(times),
            p99=sorted(times)[min(len(times) - 1, int(len(times) * 0.99))],
            cpu=cpu[name] / len(times),
        )
        for name, times in wall.items()
    }


def table(title: str, results: Mapping[str, Result], *, floor: str) -> str:
    """A Markdown table; the ratios are to the contestant named *floor*."""
    lines = [
        f"\n### {title}\n",
        "| | median ms | p99 ms | CPU ms | ratio | CPU ratio |",
        "|---|---|---|---|---|---|",
    ]
    base = results[floor]
    lines += [
        f"| {name} | {result.median * 1e3:.3f} | {result.p99 * 1e3:.3f} | {result.cpu * 1e3:.3f}"
        f" | {result.median / base.median:.2f} | {result.cpu / base.cpu:.2f} |"
        for name, result in results.items()
    ]
    return "\n".join(lines)
