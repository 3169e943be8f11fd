"""A process that watches the machine: how long others wait for a processor, and it itself.

``python -m tests.faults.bystander PID…`` writes one line for each look, until its input ends: the
time, the seconds that the threads of the processes have waited so far while they could have run,
and its own delay. The first comes from the kernel, where it says so.
"""

from __future__ import annotations

import bisect
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

PAUSE = 0.01


class Bystander:
    """The process, and what it saw."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.bystander", *map(str, pids)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        #: When it looked, the seconds that others had waited until then, and its own delays.
        self._times: list[float] = []
        self._waited: list[float] = []
        self.delays: list[tuple[float, float]] = []
        self._reading = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._reading.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._reading.join()
        self._process.wait()

    def machines_part(self, began: float, seconds: float) -> float:
        """The seconds of a call that threads waited for a processor, or were not let run at all."""
        first = max(bisect.bisect_right(self._times, began) - 1, 0)
        last = min(bisect.bisect_left(self._times, began + seconds), len(self._times) - 1)
        own = [delay for _when, delay in self.delays[first : last + 1]]
        return self._waited[last] - self._waited[first] + sum(own)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                now, waited, delay = map(float, line.split())
                self._times.append(now)
                self._waited.append(waited)
                self.delays.append((now, delay))


def waits(pids: Iterable[str]) -> Iterator[tuple[Path, int]]:
    """The nanoseconds that each living thread of the processes has waited for a processor."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            # It may have ended meanwhile.
            with contextlib.suppress(OSError, ValueError, IndexError):
                yield task, int(task.read_text().split()[1])


def watch(pids: list[str]) -> None:
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    # What a thread that has ended had waited still counts.
    waited: dict[Path, int] = {}
    while not ended.is_set():
        began = time.monotonic()
        time.sleep(PAUSE)
        now = time.monotonic()
        waited.update(waits(pids))
        print(now, sum(waited.values()) / 1e9, max(0.0, now - began - PAUSE))


if __name__ == "__main__":
    watch(sys.argv[1:])
