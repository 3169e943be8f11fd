"""What only Redis can do, while Redis cannot be used and after that."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from cache_layer.backends import CacheUnavailableError, ResilientCache
from cache_layer.exceptions import CacheLayerError
from tests.cache_layer.caches import Awaited, make_cache, state, wait_for
from tests.services import RedisServer

pytestmark = pytest.mark.usefixtures("default_timeouts")


@pytest.fixture
def cache(redis_server: RedisServer) -> Iterator[ResilientCache]:
    cache = make_cache(redis_server.url)
    yield cache
    cache.store.close()


@pytest.fixture
def server_client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url, socket_timeout=10) as client:
        yield client


def back(cache: ResilientCache) -> None:
    wait_for(lambda: state(cache) == "redis", "Redis answers again")


CALLS: dict[str, tuple[Any, ...]] = {
    "hset": ("h", "f", 1),
    "hget": ("h", "f"),
    "hgetall": ("h",),
    "hkeys": ("h",),
    "sadd": ("s", 1),
    "smembers": ("s",),
    "sunionstore": ("t", "s"),
    "zadd": ("z", {"m": 1}),
    "zrange": ("z", 0, -1),
}


@pytest.mark.parametrize("name", CALLS)
def test_data_structures_raise_during_an_outage(
    face: Any, cache: ResilientCache, redis_server: RedisServer, name: str
) -> None:
    redis_server.kill()
    cache.set("k", 1)
    assert state(cache) == "memory"
    with pytest.raises(
        CacheUnavailableError, match=r"(?s)needs Redis.*Catch.*do without"
    ) as caught:
        getattr(face, name)(*CALLS[name])
    # What code written for django-redis catches, and what code written for this cache does.
    assert isinstance(caught.value, redis.ConnectionError)
    assert isinstance(caught.value, CacheLayerError)
    assert "may or may not" not in str(caught.value)


def test_iterating_over_a_set_raises_during_an_outage(
    cache: ResilientCache, redis_server: RedisServer
) -> None:
    redis_server.kill()
    with pytest.raises(CacheUnavailableError):
        list(cache.sscan_iter("s"))


def test_a_failing_data_structure_opens_the_circuit(
    face: Any, cache: ResilientCache, redis_server: RedisServer
) -> None:
    face.sadd("s", 1)
    redis_server.stop()
    with pytest.raises(CacheUnavailableError, match="may or may not have been done"):
        face.sadd("s", 2)
    assert state(cache) == "memory"
    face.set("k", 1)
    assert face.get("k") == 1
    redis_server.cont()
    back(cache)
    assert face.sadd("s", 3) == 1


def test_a_question_that_a_hung_redis_does_not_answer_did_nothing(
    face: Any, cache: ResilientCache, redis_server: RedisServer
) -> None:
    face.sadd("s", 1)
    redis_server.stop()
    with pytest.raises(CacheUnavailableError) as caught:
        face.smembers("s")
    assert "may or may not" not in str(caught.value)


def test_an_outage_costs_a_data_structure_nothing_of_its_content(
    face: Any, cache: ResilientCache, redis_server: RedisServer
) -> None:
    face.sadd("s", "before")
    face.set("k", "before")
    redis_server.stop()
    for _ in range(3):
        with pytest.raises(CacheUnavailableError):
            face.sadd("s", "meanwhile")
    face.delete("k")
    redis_server.cont()
    back(cache)
    assert "before" in face.smembers("s")
    assert face.get("k") is None


def test_nx_raises_during_an_outage_and_leaves_the_key_to_its_owner(
    face: Any, cache: ResilientCache, redis_server: RedisServer, server_client: redis.Redis
) -> None:
    key = cache.make_key("lock")
    server_client.set(key, 1)
    redis_server.stop()
    for _ in range(2):
        with pytest.raises(CacheUnavailableError, match="nx=True"):
            face.set("lock", 2, nx=True)
    redis_server.cont()
    back(cache)
    assert server_client.get(key) == b"1"


def test_locks_raise_during_an_outage(
    cache: ResilientCache, redis_server: RedisServer, server_client: redis.Redis
) -> None:
    held = cache.lock("held", timeout=60)
    assert held.acquire()
    redis_server.stop()
    with pytest.raises(CacheUnavailableError):
        cache.lock("other", timeout=60).acquire()
    with pytest.raises(CacheUnavailableError):
        held.release()
    redis_server.cont()
    back(cache)
    # Nobody got it meanwhile; it runs out, as what its holder died of may have been the outage.
    assert not cache.lock("held", timeout=60).acquire(blocking=False)
    assert 0 < server_client.pttl(cache.make_key("held")) <= 60_000


async def test_awaited_locks_raise_during_an_outage(
    cache: ResilientCache, redis_server: RedisServer
) -> None:
    held = cache.alock("held", timeout=60)
    assert await held.acquire()
    redis_server.stop()
    with pytest.raises(CacheUnavailableError):
        await cache.alock("other", timeout=60).acquire()
    with pytest.raises(CacheUnavailableError):
        await held.release()
    redis_server.cont()
    back(cache)
    assert not await cache.alock("held", timeout=60).acquire(blocking=False)
    assert await cache.alock("free", timeout=60).acquire(blocking=False)


def test_a_blocked_lock_raises_when_redis_goes(
    cache: ResilientCache, redis_server: RedisServer
) -> None:
    assert cache.lock("l", timeout=60).acquire()
    redis_server.kill()
    with pytest.raises(CacheUnavailableError):
        cache.lock("l", timeout=60).acquire(blocking_timeout=30)


def test_memory_answers_for_values_and_their_expiry(
    face: Any, cache: ResilientCache, redis_server: RedisServer
) -> None:
    redis_server.kill()
    face.set("k", 1, timeout=None)
    assert state(cache) == "memory"
    assert face.set("k", 2, xx=True) is True
    assert face.set("missing", 2, xx=True) is False
    assert 0 < face.pttl("k") <= 300_000
    assert face.persist("k") is True
    assert face.persist("k") is face.persist("missing") is False
    assert face.pexpire("k", 60_000) is True
    assert face.ttl("k") == 60
    assert list(cache.iter_keys("*")) == ["k"]
    assert face.expire_at("k", time.time() - 1) is True
    assert face.get("k") is None


@pytest.mark.parametrize(
    ("name", "arguments", "options"),
    [
        ("set", ("new",), {"xx": True}),
        ("expire_at", (1,), {}),
        ("pexpire", (-1,), {}),
        ("delete", (), {}),
    ],
)
def test_what_is_written_during_an_outage_is_forgotten_in_redis(
    face: Any,
    cache: ResilientCache,
    redis_server: RedisServer,
    name: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
) -> None:
    face.set("k", "old", timeout=None)
    redis_server.stop()
    getattr(face, name)("k", *arguments, **options)
    assert state(cache) == "memory"
    redis_server.cont()
    back(cache)
    assert face.get("k") is None


def test_what_was_confirmed_around_an_outage_is_there_after_it(
    cache: ResilientCache, redis_server: RedisServer
) -> None:
    confirmed: list[list[int]] = [[] for _ in range(4)]
    added: list[list[int]] = [[] for _ in range(4)]
    refused = [0] * 4
    errors: list[Exception] = []
    done = threading.Event()

    def work(number: int) -> None:
        face: Any = Awaited(cache) if number % 2 else cache
        member = number
        try:
            while not done.is_set():
                member += 4
                try:
                    if face.sadd("s", member) == 1:
                        confirmed[number].append(member)
                    if face.set(f"k{member}", member, nx=True):
                        added[number].append(member)
                except CacheUnavailableError:
                    refused[number] += 1
                    time.sleep(0.001)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test fails.
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: all(confirmed), "everyone began")
    redis_server.stop()
    wait_for(lambda: all(refused), "everyone was refused")
    redis_server.cont()
    back(cache)
    until = [len(members) + 5 for members in confirmed]
    wait_for(
        lambda: all(len(members) > least for members, least in zip(confirmed, until, strict=True)),
        "everyone goes on",
    )
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert set().union(*confirmed) <= cache.smembers("s")
    keys = [f"k{member}" for members in added for member in members]
    assert len(cache.get_many(keys)) == len(keys)


def test_raw_clients_raise_what_redis_py_raises(
    cache: ResilientCache, redis_server: RedisServer
) -> None:
    client = cache.get_client()
    assert client.ping()
    redis_server.kill()
    with pytest.raises(redis.ConnectionError) as caught:
        client.ping()
    assert not isinstance(caught.value, CacheUnavailableError)
    assert state(cache) == "redis"


def test_a_lack_of_permission_concerns_its_caller_alone(
    redis_server: RedisServer, server_client: redis.Redis
) -> None:
    server_client.execute_command(
        *("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-@sortedset")
    )
    cache = make_cache(redis_server.url.replace("//", "//app:secret@"))
    for face in (cache, Awaited(cache)):
        face.set("k", 1)
        with pytest.raises(redis.exceptions.NoPermissionError):
            face.zadd("z", {"m": 1})
        assert state(cache) == "redis"
        assert face.get("k") == 1
    cache.store.close()
