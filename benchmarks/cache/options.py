"""How much to measure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Rounds, sizes and limits; ``peers`` None means all of them."""

    rounds: int = 40
    calls: int = 40
    key_counts: tuple[int, ...] = (100_000, 1_000_000)
    wait: float = 12.0
    race_seconds: float = 3.0
    races: int = 10
    loops: int = 400
    #: Gets at once, and requests at once.
    crowd: int = 1000
    requests: int = 200
    peers: tuple[str, ...] | None = None


FULL = Options()
QUICK = Options(
    rounds=8, calls=20, key_counts=(100_000,), wait=6.0, race_seconds=2.0, races=1, loops=80
)
SMOKE = Options(
    rounds=1,
    calls=3,
    key_counts=(2_000,),
    wait=3.0,
    race_seconds=0.3,
    races=1,
    loops=8,
    crowd=50,
    requests=10,
    peers=("redis-py", "redis.asyncio", "cache_layer"),
)
