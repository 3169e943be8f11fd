"""Checks the times that ``cached`` is given."""

from __future__ import annotations

import math

from cache_layer.backends.operations.result_factory import ExpirationPolicy
from cache_layer.interface import FOREVER, Ttl, as_timeout


def terms(ttl: Ttl, *, stale_ttl: float, refresh_before: float, jitter: float) -> ExpirationPolicy:
    """Return them; seconds.

    :raises TypeError: one is not a number.
    :raises ValueError: one is negative or not finite, or they do not go together.
    """
    timeout = as_timeout(ttl)
    times = {"stale_ttl": stale_ttl, "refresh_before": refresh_before, "jitter": jitter}
    for name, seconds in times.items():
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"{name} is a number of seconds, not {seconds!r}.")
        if not 0 <= seconds < math.inf:
            raise ValueError(f"{name} is a finite number of seconds from 0 on, not {seconds!r}.")
    if any(times.values()):
        if ttl is FOREVER:
            raise ValueError(
                f"With ttl=FOREVER there is no end that {_listed(times)} could refer to."
            )
        if isinstance(ttl, int | float):
            if ttl <= 0:
                raise ValueError(
                    f"With ttl={ttl} nothing is kept: {_listed(times)} is for nothing."
                )
            if refresh_before + jitter >= ttl:
                raise ValueError(
                    f"refresh_before={refresh_before} and jitter={jitter} together have to be "
                    f"less than ttl={ttl}."
                )
    return ExpirationPolicy(timeout, stale=stale_ttl, early=refresh_before, jitter=jitter)


def _listed(times: dict[str, float]) -> str:
    return ", ".join(name for name, seconds in times.items() if seconds)
