"""Bringing Redis up to date after many invalidations takes few commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from cache_layer.backends import ResilientCache
from cache_layer.journal import Journal
from tests.cache_layer.caches import close, make_cache, state, wait_for
from tests.services import RedisServer

pytestmark = pytest.mark.usefixtures("default_timeouts")

KEYS = 9_000


@pytest.fixture
def cache(redis_server: RedisServer) -> Iterator[ResilientCache]:
    cache = make_cache(redis_server.url)
    yield cache
    close(cache)


def fill(cache: ResilientCache, values: dict[str, object]) -> None:
    """Store values, however busy the machine is."""
    options = {"SOCKET_TIMEOUT": 30, "SOCKET_CONNECT_TIMEOUT": 30}
    patient = make_cache(cache._location, KEY_PREFIX=cache.key_prefix, OPTIONS=options)
    assert patient.set_many(values) == []
    assert state(patient) == "redis"
    close(patient)


def scripts_called(client: redis.Redis) -> int:
    """How many scripts clients called; what scripts call is counted by Redis, too."""
    found = client.info("commandstats")
    return sum(found.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))


def reads_of(client: redis.Redis) -> int:
    """How often the server read from a client: at most once a round trip."""
    return int(client.info("stats")["total_reads_processed"])


def test_thousands_of_keys_are_replayed_in_few_commands(
    cache: ResilientCache, redis_server: RedisServer
) -> None:
    keys = [f"k{number}" for number in range(KEYS)]
    with redis.Redis.from_url(redis_server.url, socket_timeout=10) as client:
        fill(cache, dict.fromkeys(keys, "old") | {"untouched": "right"})
        client.config_resetstat()
        redis_server.stop()
        for key in keys:
            cache.delete(key)
        assert state(cache) == "memory"
        redis_server.cont()
        wait_for(lambda: state(cache) == "redis", "Redis answers again")
        # Probes are among them.
        assert scripts_called(client) < KEYS / 100
        assert reads_of(client) < 100
        assert client.dbsize() < 10
    assert cache.get("untouched") == "right"


def test_hundreds_of_patterns_are_replayed_by_one_scan_and_leave_other_keys(
    cache: ResilientCache, redis_server: RedisServer
) -> None:
    users = range(300)
    with redis.Redis.from_url(redis_server.url, socket_timeout=10) as client:
        fill(cache, {f"user:{n}:{part}": n for n in users for part in ("name", "mail")})
        fill(cache, {f"page:{n}": n for n in users} | {"user:7": "right"})
        client.config_resetstat()
        redis_server.stop()
        for number in users:
            cache.delete_pattern(f"user:{number}:*")
        for number in range(250):
            cache.delete_pattern(f"page:?{number}")
        assert state(cache) == "memory"
        redis_server.cont()
        wait_for(lambda: state(cache) == "redis", "Redis answers again")
        # Those that timed out are among them.
        assert client.info("commandstats")["cmdstat_scan"]["calls"] < 10
    assert cache.get("user:7") == "right"
    # So many patterns that begin alike are remembered as one.
    assert cache.get("page:7") is None
    assert list(cache.keys("*")) == ["user:7"]


class CountedScope:
    """What an entry of the journal belongs to; counts how often it is looked at."""

    looks = 0

    def __hash__(self) -> int:
        type(self).looks += 1
        return 1

    def __eq__(self, other: object) -> bool:
        type(self).looks += 1
        return self is other


def test_remembering_takes_the_same_steps_however_long_the_journal_is() -> None:
    scope = CountedScope()

    def steps(entries: int) -> float:
        journal = Journal(lambda: 1_000_000)
        CountedScope.looks = 0
        for number in range(entries):
            journal.add_key(f"k{number}", scope)  # type: ignore[arg-type]
        assert len(journal) == entries
        return CountedScope.looks / entries

    assert steps(20_000) <= 2 * steps(100) + 1


def test_remembering_beyond_the_limit_takes_the_same_steps_too() -> None:
    scope = CountedScope()

    def steps(entries: int) -> float:
        journal = Journal(lambda: 10)
        CountedScope.looks = 0
        for number in range(entries):
            journal.add_key(f"k{number}", scope)  # type: ignore[arg-type]
        assert len(journal) == 1
        return CountedScope.looks / entries

    assert steps(20_000) <= steps(100) + 1
