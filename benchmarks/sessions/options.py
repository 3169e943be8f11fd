"""How much to load and to measure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Sizes, rounds and seconds; ``peers`` None means all of them."""

    sessions: int = 1_000_000
    messages: int = 3_000_000
    #: A long conversation, and the lengths on the way there.
    lengths: tuple[int, ...] = (10, 100, 1_000, 10_000, 50_000)
    listed: tuple[int, ...] = (100, 10_000, 60_000)
    expired: int = 100_000
    bulk: int = 1_000
    bulk_turns: int = 5
    writers: int = 8
    rounds: int = 40
    calls: int = 5
    budget: float = 12.0
    seconds: float = 4.0
    peers: tuple[str, ...] | None = None


FULL = Options()
QUICK = Options(
    sessions=20_000,
    messages=60_000,
    listed=(100, 10_000),
    expired=5_000,
    bulk=500,
    bulk_turns=3,
    rounds=10,
    calls=3,
    budget=3.0,
    seconds=1.5,
)
SMOKE = Options(
    sessions=300,
    messages=600,
    lengths=(10, 100),
    listed=(100,),
    expired=50,
    bulk=20,
    bulk_turns=1,
    writers=2,
    rounds=1,
    calls=1,
    seconds=0.2,
    peers=(
        *("raw psycopg", "raw psycopg, one CTE"),
        *("agent_sessions", "agent_sessions, prepared", "agent_sessions, awaited"),
    ),
)
