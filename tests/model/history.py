"""What calls did to one key and when, and which of them read what was invalidated before.

The model, the tests that compare it with the real cache, and the fault suite use it alike.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from typing import NamedTuple


class Invalidated(NamedTuple):
    """A finished change: from then on no version of the key below this one counts."""

    key: str
    version: int
    ended: float


class Read(NamedTuple):
    """A finished read. ``version`` is None where it found nothing."""

    key: str
    version: int | None
    began: float


Event = Invalidated | Read


def is_stale(version: int | None, least: int) -> bool:
    """The invariant: nothing is served that was invalidated before the read began.

    ``least`` is the newest version that was invalidated up to when the read began.
    """
    return version is not None and version < least


def stale_reads(events: Iterable[Event]) -> list[tuple[Read, int]]:
    """Return the stale reads, each with the version that it had to return at least.

    Versions of a key grow, and its invalidations do not overlap: the later has the greater one.
    """
    every = list(events)
    ends: dict[str, list[tuple[float, int]]] = {}
    for event in sorted((e for e in every if isinstance(e, Invalidated)), key=lambda e: e.ended):
        known = ends.setdefault(event.key, [])
        newest = max(event.version, known[-1][1]) if known else event.version
        known.append((event.ended, newest))
    found = []
    for event in every:
        if isinstance(event, Read):
            known = ends.get(event.key, [])
            # What ended at the very moment of the beginning may have ended after it.
            before = bisect.bisect_left(known, event.began, key=lambda pair: pair[0])
            least = known[before - 1][1] if before else 0
            if is_stale(event.version, least):
                found.append((event, least))
    return found
