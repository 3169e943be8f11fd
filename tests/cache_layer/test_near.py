"""The near cache: what it answers, and that it is never older than it may be."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from asgiref.sync import async_to_sync
from django.core.cache import caches
from django.test import override_settings

import cache_layer
from cache_layer import cached, get_cache, get_sync_cache, invalidate_tags, metrics
from cache_layer.backends import ResilientCache
from cache_layer.backends.near.cache import NearCache, NearOptions
from cache_layer.backends.near.tracking import literal_start
from cache_layer.backends.near_state import NearState
from cache_layer.globs import escape_glob
from tests.cache_layer.caches import Awaited, Leases, make_cache, state, wait_for
from tests.cache_layer.test_backend import Asynchronous, Contract, LeaseContract, Synchronous
from tests.faults.proxy import Proxy
from tests.services import RedisServer, missing

ROOT = Path(__file__).resolve().parents[2]


def near_of(cache: ResilientCache) -> NearCache:
    assert isinstance(cache.state, NearState)
    return cache.state.near


def listening(cache: ResilientCache) -> None:
    """Wait until the near cache is on; a read begins it."""
    cache.get("nothing")
    wait_for(lambda: near_of(cache).on, "the near cache is on")


def make_near(location: str, near: Any = True, **params: Any) -> ResilientCache:
    cache = make_cache(location, OPTIONS={"NEAR_CACHE": near}, **params)
    listening(cache)
    return cache


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """Nobody else's, so that its commands can be counted."""
    if shutil.which("redis-server") is None:
        missing("redis-server", "install the program redis-server")
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def url(server: RedisServer) -> Iterator[str]:
    yield server.url
    with redis.Redis.from_url(server.url, socket_timeout=10) as client:
        client.flushall()


@pytest.fixture
def cache(url: str) -> Iterator[ResilientCache]:
    cache = make_near(url)
    yield cache
    cache.state.close()


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url, socket_timeout=10) as client:
        yield client


def heard(cache: ResilientCache, client: redis.Redis) -> None:
    """Wait until the news of everything that happened has come: it comes in order."""
    near = near_of(cache)
    last = cache.make_key("last")
    near.expect([last])
    client.set(last, 1)
    wait_for(lambda: last not in near._pending, "the news has come")


def write_at_random(
    client: redis.Redis, keys: list[str], at_once: int, *, seconds: float
) -> list[int]:
    """Write growing numbers behind the cache's back; return what the keys then hold."""
    value = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for key in random.sample(keys, at_once):
            value += 1
            client.set(key, value)
        time.sleep(random.random() / 500)
    return [int(found or 0) for found in client.mget(keys)]


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest, cache: ResilientCache) -> Any:
    return cache if request.param == "sync" else Awaited(cache)


def asked(client: redis.Redis, command: str = "get") -> int:
    """How many such commands Redis was sent."""
    found = client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})
    return int(found["calls"])


class Near:
    """Mix-in: what holds for a backend holds with a near cache too."""

    @pytest.fixture
    def backend(self, url: str) -> Iterator[ResilientCache]:
        cache = make_near(url)
        yield cache
        assert near_of(cache).on
        cache.state.close()


class TestSynchronous(Near, Synchronous, Contract):
    pass


class TestAwaited(Near, Asynchronous, Contract):
    pass


class TestLeases(Near, Synchronous, LeaseContract):
    pass


def test_a_value_that_was_read_is_not_asked_for_again(
    face: Any, cache: ResilientCache, client: redis.Redis
) -> None:
    face.set_many({"text": "t", "list": [1]})
    heard(cache, client)
    metrics.reset()
    before = asked(client)
    for _ in range(5):
        assert face.get("text") == "t"
        found = face.get("list")
        assert found == [1]
        # What a caller changes is changed for nobody else.
        found.append(2)
    assert asked(client) - before == 2
    counted = metrics.snapshot()
    assert counted["metrics"]["default:hits"] == 10
    assert counted["metrics"]["default:near_hits"] == 8
    assert counted["hit_rate"] == 100.0
    # Threads and loops share it.
    assert async_to_sync(cache.aget)("text") == "t"
    assert ResilientCache(cache._location, cache._params).get("list") == [1]
    assert asked(client) - before == 2


WRITES: dict[str, tuple[Callable[[Any], object], Any]] = {
    "set": (lambda face: face.set("k", 2), 2),
    "set_many": (lambda face: face.set_many({"k": 2}), 2),
    "set, expired": (lambda face: face.set("k", 2, 0), None),
    "delete": (lambda face: face.delete("k"), None),
    "delete_many": (lambda face: face.delete_many(["k"]), None),
    "delete_pattern": (lambda face: face.delete_pattern("k*"), None),
    "clear": (lambda face: face.clear(), None),
    "incr": (lambda face: face.incr("k"), 2),
    "expire": (lambda face: face.touch("k", 0), None),
    "incr_version": (lambda face: face.incr_version("k"), None),
}


@pytest.mark.parametrize(("write", "expected"), WRITES.values(), ids=WRITES)
def test_a_process_reads_its_own_writes(
    face: Any, write: Callable[[Any], object], expected: Any
) -> None:
    for _ in range(5):
        face.set("k", 1)
        assert [face.get("k"), face.get("k")] == [1, 1]
        write(face)
        assert face.get("k") == expected


def test_keys_that_depend_on_more_than_the_callers_name_are_nobody_elses(
    face: Any, cache: ResilientCache
) -> None:
    tenant = "a"
    params = {
        **cache._params,
        "KEY_FUNCTION": lambda key, prefix, v: f"{tenant}:{prefix}:{v}:{key}",
    }
    several = ResilientCache(cache._location, params)
    awaited = isinstance(face, Awaited)
    face = Awaited(several) if awaited else several

    @cached(key_prefix="p")
    def whose() -> str:
        return tenant

    @cached(key_prefix="q")
    async def whose_awaited() -> str:
        return tenant

    def call() -> str:
        return async_to_sync(whose_awaited)() if awaited else whose()

    with override_settings(
        CACHES={
            "default": {
                "BACKEND": "cache_layer.backends.ResilientCache",
                "LOCATION": cache._location,
                **params,
            }
        }
    ):
        for tenant in "ab":
            face.set("k", tenant)
            call()
        for tenant in "abab":
            for _ in range(3):
                assert face.get("k") == tenant
                assert call() == tenant


def test_what_is_stored_under_a_lease_is_read(face: Any, cache: ResilientCache) -> None:
    for number in range(5):
        assert face.get("k") is None
        leases = Leases(cache, face.run)
        lease = leases.claim("k")
        assert face.get("k") is None
        assert leases.fill("k", number, lease)
        assert face.get("k") == face.get("k") == number
        face.delete("k")


FOREIGN: dict[str, Callable[[redis.Redis, str], object]] = {
    "SET": lambda client, key: client.set(key, b"2"),
    "DEL": lambda client, key: client.delete(key),
    "FLUSHDB": lambda client, key: client.flushdb(),
    "INCR": lambda client, key: client.incr(key),
    "RENAME": lambda client, key: client.rename(key, f"{key}:renamed"),
    "EXPIRE": lambda client, key: client.pexpire(key, 60_000),
}


@pytest.mark.parametrize("write", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("key", ["k", "\ud800 ü*"], ids=["plain", "odd"])
@pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")
def test_what_others_change_is_heard_of(
    cache: ResilientCache,
    client: redis.Redis,
    key: str,
    write: Callable[[redis.Redis, bytes], object],
) -> None:
    full = cache.make_key(key).encode("utf-8", "surrogatepass")
    cache.set(key, 1)
    heard(cache, client)
    assert [cache.get(key), cache.get(key)] == [1, 1]
    assert len(near_of(cache)) == 1
    write(client, full)
    wait_for(lambda: len(near_of(cache)) == 0, "the change is heard of")
    stored = client.get(full)
    assert cache.get(key) == (None if stored is None else int(stored))


def test_racing_changes_of_others_leave_nothing_stale(
    cache: ResilientCache, client: redis.Redis
) -> None:
    keys = [f"k{number}" for number in range(40)]
    full = [cache.make_key(key) for key in keys]
    done = threading.Event()
    reads = [0]
    backwards: list[tuple[int, int]] = []

    def seen(latest: dict[str, int], key: str, found: Any) -> None:
        reads[0] += 1
        if found is not None:
            if found < latest.get(key, 0):
                backwards.append((found, latest[key]))
            latest[key] = found

    def read() -> None:
        latest: dict[str, int] = {}
        while not done.is_set():
            key = random.choice(keys)
            seen(latest, key, cache.get(key))

    async def aread() -> None:
        latest: dict[str, int] = {}
        while not done.is_set():
            for key, found in zip(keys, await asyncio.gather(*map(cache.aget, keys)), strict=True):
                seen(latest, key, found)
            await asyncio.sleep(0)

    threads = [threading.Thread(target=read) for _ in range(2)]
    threads.append(threading.Thread(target=lambda: asyncio.run(aread())))
    for thread in threads:
        thread.start()
    written = write_at_random(client, full, 10, seconds=2)
    heard(cache, client)
    kept = [cache.get(key, 0) for key in keys]
    done.set()
    for thread in threads:
        thread.join()
    assert kept == written
    assert backwards == []
    assert reads[0] > 1000
    assert near_of(cache).on


def test_nothing_outlives_its_timeout(face: Any, client: redis.Redis) -> None:
    # So that Redis does not tell by itself.
    client.config_set("hz", 1)
    try:
        for _ in range(3):
            face.set("k", 1, 0.1)
            begun = time.monotonic()
            assert face.get("k") in (1, None)
            while face.get("k") == 1:
                assert time.monotonic() - begun < 0.15
    finally:
        client.config_set("hz", 10)


@contextmanager
def default_alias(url: str, **options: Any) -> Iterator[ResilientCache]:
    """The alias of the decorators, with these OPTIONS."""
    entry = {
        "BACKEND": "cache_layer.backends.ResilientCache",
        "LOCATION": url,
        "KEY_PREFIX": uuid.uuid4().hex,
        "OPTIONS": options,
    }
    with override_settings(CACHES={"default": entry}):
        cache = caches["default"]
        assert isinstance(cache, ResilientCache)
        yield cache
        cache.state.close()


@pytest.fixture
def store(url: str) -> Iterator[ResilientCache]:
    """The alias of the decorators, with a near cache."""
    with default_alias(url, NEAR_CACHE=True) as cache:
        listening(cache)
        yield cache


def other_process(store: ResilientCache) -> ResilientCache:
    """Sees the same Redis and nothing of this near cache."""
    return make_cache(store._location, KEY_PREFIX=store.key_prefix)


def test_results_of_functions(store: ResilientCache, client: redis.Redis) -> None:
    calls: list[Any] = []

    @cached(tags=["user:{user}"])
    def get_user(user: Any, mark: Any = None) -> Any:
        calls.append(user)
        return len(calls)

    @cached()
    async def aget_user(user: Any) -> Any:
        calls.append(user)
        return [len(calls)]

    for user in (1, "1", True, b"1", None):
        assert get_user(user) == get_user(user) == get_user(user=user) == len(calls)
        assert get_user(user, 1) != get_user(user, True)
    assert len(calls) == 15
    heard(store, client)
    get_user(1)
    before = asked(client, "mget"), asked(client)
    found = [get_user(1) for _ in range(10)]
    assert found == [1] * 10
    assert (asked(client, "mget"), asked(client)) == before
    # Each of the ways to invalidate, in this process and in another.
    other = other_process(store)
    for invalidate in (
        lambda: get_user.invalidate(1),
        get_user.invalidate_all,
        lambda: other.delete(get_user.cache_key(1)),
        lambda: other.delete_pattern("*@tag:user:1"),
        lambda: other.delete_pattern("*@function:*"),
        client.flushdb,
    ):
        known = get_user(1)
        assert get_user(1) == get_user(1) == known
        invalidate()
        wait_for(lambda known=known: get_user(1) != known, "the result is computed anew")
        assert get_user(1) == get_user(1) == len(calls)
    changed = async_to_sync(aget_user)(1)
    changed.append("changed")
    assert async_to_sync(aget_user)(1) == async_to_sync(aget_user)(1) == [len(calls)]


@pytest.fixture(
    params=[{}, {"NEAR_CACHE": {"namespaces": [], "max_entries": 50}}], ids=["unset", "limits"]
)
def plain(url: str, request: pytest.FixtureRequest) -> Iterator[ResilientCache]:
    """An alias of which nothing is kept but what functions ask for."""
    with default_alias(url, **request.param) as cache:
        yield cache


FUNCTIONS: dict[str, Callable[..., Callable[[int], str]]] = {
    "sync": lambda **options: cached(key_prefix=uuid.uuid4().hex, **options)(
        lambda number: uuid.uuid4().hex
    ),
    "async": lambda **options: async_function(**options),
}


def async_function(**options: Any) -> Callable[[int], str]:
    @cached(key_prefix=uuid.uuid4().hex, **options)
    async def compute(number: int) -> str:
        return uuid.uuid4().hex

    function: Any = async_to_sync(compute)
    function.key = compute.cache_key
    function.invalidate = async_to_sync(compute.invalidate)
    function.invalidate_all = async_to_sync(compute.invalidate_all)
    function.refresh = async_to_sync(compute.refresh)
    return function  # type: ignore[no-any-return]


@pytest.fixture(params=FUNCTIONS.values(), ids=FUNCTIONS)
def make_function(request: pytest.FixtureRequest) -> Any:
    return request.param


def hits(client: redis.Redis, function: Callable[[int], str], times: int = 10) -> int:
    """How often Redis was asked for a result that it has."""
    before = asked(client, "mget")
    assert len({function(1) for _ in range(times)}) == 1
    return asked(client, "mget") - before


@pytest.mark.parametrize("namespace", ["", "users"])
def test_one_function_may_ask_for_it(
    plain: ResilientCache, client: redis.Redis, make_function: Any, namespace: str
) -> None:
    near = make_function(near=True, namespace=namespace, tags=["all", "number:{number}"])
    other = make_function(namespace=namespace)
    assert "near" not in plain.state.describe()
    near(1)
    wait_for(lambda: near_of(plain).on, "the near cache is on")
    assert near_of(plain).options.max_entries in (50, 10_000)
    other(1)
    plain.set("k", 1)
    heard(plain, client)
    near(1)
    assert hits(client, near) == 0
    assert hits(client, other) == 10
    before = asked(client)
    assert [plain.get("k"), plain.get("k")] == [1, 1]
    assert asked(client) == before + 2
    assert plain.state.describe()["near"]["on"]
    # The key and its three tags.
    assert len(near_of(plain)) == 4
    foreign = other_process(plain)
    scope = f"{namespace}:" if namespace else ""
    key = getattr(near, "key", None) or near.cache_key
    for invalidate in (
        lambda: near.invalidate(1),
        near.invalidate_all,
        lambda: near.refresh(1),
        lambda: invalidate_tags("number:1", namespace=namespace),
        lambda: plain.delete(key(1)),
        lambda: foreign.delete(key(1)),
        lambda: foreign.delete(f"{scope}@tag:all"),
        lambda: get_sync_cache(namespace).clear(),
        client.flushdb,
    ):
        known = near(1)
        assert near(1) == known
        invalidate()
        wait_for(lambda known=known: near(1) != known, "the result is computed anew")


def test_one_function_may_do_without_it(
    store: ResilientCache, client: redis.Redis, make_function: Any
) -> None:
    far, near = make_function(near=False), make_function()
    far(1), near(1)
    heard(store, client)
    far(1), near(1)
    assert hits(client, far) == 10
    assert hits(client, near) == 0


def test_an_alias_may_refuse_it(url: str, client: redis.Redis, make_function: Any) -> None:
    with default_alias(url, NEAR_CACHE=False) as cache:
        function = make_function(near=True)
        function(1)
        assert hits(client, function) == 10
        assert not isinstance(cache.state, NearState)


def test_a_function_asks_in_memory_for_nothing_more(make_function: Any) -> None:
    entry = {"BACKEND": "cache_layer.backends.ResilientCache", "KEY_PREFIX": uuid.uuid4().hex}
    with override_settings(CACHES={"default": entry}):
        function = make_function(near=True)
        assert function(1) == function(1)
        function.invalidate(1)


def test_a_function_that_asks_for_it_is_renewed(plain: ResilientCache) -> None:
    calls: list[int] = []

    @cached(ttl=0.3, stale_ttl=30, near=True)
    def compute(number: int) -> int:
        calls.append(number)
        return len(calls)

    compute(1)
    wait_for(lambda: near_of(plain).on, "the near cache is on")
    compute.refresh(1)
    known = len(calls)
    assert [compute(1), compute(1), compute(1)] == [known] * 3
    time.sleep(0.35)
    wait_for(lambda: compute(1) == known + 1, "it is renewed in the background")


def test_a_prefix_of_its_own_for_each_tenant(store: ResilientCache, make_function: Any) -> None:
    function = make_function()
    for name in ("key_prefix", "version"):
        kept = {}
        for tenant in (1, 2, 1, 2):
            # As middleware does that sets a prefix for each request.
            setattr(store, name, tenant)
            for _ in range(3):
                result = function(1)
                store.set("k", store.get("k", result))
                assert kept.setdefault(tenant, result) == result
                assert store.get("k") == kept[tenant]
        assert kept[1] != kept[2]


class ChosenLater(ResilientCache):
    """Asks for the prefix each time."""

    tenant = ""

    @property
    def key_prefix(self) -> str:
        return self.tenant

    @key_prefix.setter
    def key_prefix(self, value: str) -> None:
        pass


class ChosenAtFirst(ResilientCache):
    """Has the prefix of when it was made, as Django does for each thread."""

    tenant = ""

    def __init__(self, location: Any, params: dict[str, Any]) -> None:
        super().__init__(location, {**params, "KEY_PREFIX": type(self).tenant})


@pytest.mark.parametrize("tenants", [ChosenLater, ChosenAtFirst])
def test_a_class_that_chooses_the_prefix(
    tenants: Any, url: str, make_function: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = make_function(near=True)
    entry = {
        "BACKEND": f"{__name__}.{tenants.__name__}",
        "LOCATION": url,
        "OPTIONS": {"NEAR_CACHE": True},
    }
    kept: dict[str, str] = {}

    def use() -> None:
        cache: Any = caches["default"]
        cache.set("k", tenants.tenant)
        for _ in range(3):
            assert function(1) == kept.setdefault(tenants.tenant, function(1))
            assert cache.get("k") == tenants.tenant
            assert cache.get_many(["k"]) == {"k": tenants.tenant}
        if tenants is ChosenAtFirst:
            listening(cache)

    with override_settings(CACHES={"default": entry}), ThreadPoolExecutor(1) as thread:
        for tenant in "aabab":
            monkeypatch.setattr(tenants, "tenant", tenant)
            # Of its own, as each request has them.
            if tenants is ChosenAtFirst:
                with ThreadPoolExecutor(1) as another:
                    another.submit(use).result()
            else:
                thread.submit(use).result()
        assert kept["a"] != kept["b"]
        caches["default"].state.close()  # type: ignore[attr-defined]


def test_near_is_yes_or_no() -> None:
    with pytest.raises(TypeError, match="near is True, False or None, not 'yes'"):
        cached(near="yes")  # type: ignore[arg-type]


def test_many_are_asked_for_as_far_as_they_are_not_here(
    face: Any, cache: ResilientCache, client: redis.Redis
) -> None:
    values = {f"k{number}": [number] for number in range(5)}
    face.set_many(values)
    heard(cache, client)
    metrics.reset()
    face.get("k0")
    face.get("k1")
    before = asked(client, "mget")
    found = face.get_many([*values, "none"])
    assert found == values
    assert list(found) == list(values)
    found["k2"].append("changed")
    # What is missing is asked for each time.
    assert face.get_many([*values, "none"]) == values
    assert asked(client, "mget") == before + 2
    assert face.get_many(values) == values
    assert asked(client, "mget") == before + 2
    counted = metrics.snapshot()["metrics"]
    assert counted["default:hits"] == 2 + 15
    assert counted["default:near_hits"] == 2 + 5 + 5
    assert counted["default:misses"] == 2
    # What it read is there for others.
    before = asked(client)
    assert face.get("k4") == [4]
    assert asked(client) == before
    # Foreign writes, own writes, timeouts.
    client.set(cache.make_key("k3"), 33)
    wait_for(lambda: face.get_many(values)["k3"] == 33, "the change is heard of")
    face.delete("k3")
    assert "k3" not in face.get_many(values)
    assert face.get_many([]) == {}


def test_many_of_all_kinds(store: ResilientCache, client: redis.Redis) -> None:
    @cached()
    def compute(number: int) -> str:
        return uuid.uuid4().hex

    client.set(store.make_key("foreign"), b"\xff")
    client.rpush(store.make_key("list"), 1)
    Leases(store).claim("leased")
    store.set("k", 1)
    result = compute(1)
    heard(store, client)
    compute(1)
    keys = ["foreign", "list", "leased", "k", compute.cache_key(1), "none"]
    for _ in range(3):
        assert store.get_many(keys) == {"k": 1, compute.cache_key(1): result}
    assert near_of(store).find([store.make_key("leased")]) is None
    assert near_of(store).find([store.make_key("foreign")]) is None
    compute.invalidate_all()
    assert store.get_many(keys) == {"k": 1}


def test_racing_changes_of_many(cache: ResilientCache, client: redis.Redis) -> None:
    keys = [f"k{number}" for number in range(20)]
    full = [cache.make_key(key) for key in keys]
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            cache.get_many(random.sample(keys, 10))

    async def aread() -> None:
        while not done.is_set():
            few = [random.sample(keys, 5) for _ in range(3)]
            await asyncio.gather(*map(cache.aget_many, few))
            await cache.aget_or_set(random.choice(keys), 0)

    threads = [threading.Thread(target=read), threading.Thread(target=lambda: asyncio.run(aread()))]
    for thread in threads:
        thread.start()
    written = write_at_random(client, full, 5, seconds=1.5)
    heard(cache, client)
    kept = cache.get_many(keys)
    done.set()
    for thread in threads:
        thread.join()
    assert [kept.get(key, 0) for key in keys] == written
    assert near_of(cache).on


def test_get_or_set_looks_here_first(face: Any, cache: ResilientCache, client: redis.Redis) -> None:
    metrics.reset()
    assert face.get_or_set("k", [1]) == [1]
    heard(cache, client)
    found = face.get_or_set("k", [2])
    found.append("changed")
    before = asked(client)
    assert face.get_or_set("k", [2]) == face.get_or_set("k", [2]) == [1]
    assert asked(client) == before
    assert metrics.snapshot()["metrics"]["default:near_hits"] == 2
    face.delete("k")
    assert face.get_or_set("k", [2]) == [2]
    heard(cache, client)
    assert face.get_or_set("k", [3]) == face.get("k") == [2]
    client.set(cache.make_key("k"), 5)
    wait_for(lambda: face.get_or_set("k", 6) == 5, "the change is heard of")
    # A lease is never kept, and what it is for is stored.
    face.delete("k")
    leases = Leases(cache, face.run)
    lease = leases.claim("k")
    assert leases.claim("k").token == lease.token
    assert leases.fill("k", 7, lease)
    assert face.get_or_set("k", 8) == 7


def test_large_arguments_are_not_remembered(store: ResilientCache) -> None:
    @cached()
    def compute(text: str) -> str:
        return uuid.uuid4().hex

    compute("a")
    tracemalloc.start()
    try:
        texts = [f"{number}{'a' * 1_000_000}" for number in range(20)]
        for text in texts:
            assert len({compute(text) for _ in range(4)}) == 1
        del texts, text
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("make", [str, lambda text: [text]], ids=["constant", "changeable"])
@pytest.mark.parametrize("length", [10, 3000])
def test_what_it_takes_is_counted(
    store: ResilientCache, client: redis.Redis, make: Callable[[str], Any], length: int
) -> None:
    @cached()
    def compute(text: str) -> Any:
        return make("x" * length)

    texts = [f"user {number}" for number in range(500)]
    for text in texts:
        compute(text)
    heard(store, client)
    tracemalloc.start()
    try:
        for text in [*texts, *texts]:
            compute(text)
        gc.collect()
        # What other threads of the process take meanwhile is none of its business.
        ours = tracemalloc.Filter(True, f"{Path(cache_layer.__file__).parent}/*")
        snapshot = tracemalloc.take_snapshot().filter_traces([ours])
        taken = sum(trace.size for trace in snapshot.traces)
    finally:
        tracemalloc.stop()
    near = near_of(store)
    assert len(near) > len(texts)
    assert near.bytes / 1.4 < taken < near.bytes * 1.4


def test_a_result_is_renewed_when_it_is_due(store: ResilientCache) -> None:
    calls: list[int] = []

    @cached(ttl=0.3, stale_ttl=30)
    def compute(number: int) -> int:
        calls.append(number)
        return len(calls)

    assert [compute(1), compute(1), compute(1)] == [1, 1, 1]
    time.sleep(0.35)
    assert compute(1) == 1
    wait_for(lambda: compute(1) == 2, "it is renewed in the background")


def test_the_same_arguments_under_other_settings(store: ResilientCache) -> None:
    @cached()
    def compute(number: int) -> str:
        return uuid.uuid4().hex

    first = compute(1)
    assert compute(1) == compute(1) == first
    other = {**store._params, "BACKEND": "cache_layer.backends.ResilientCache"}
    other |= {"LOCATION": store._location, "KEY_PREFIX": uuid.uuid4().hex}
    with override_settings(CACHES={"default": other}):
        assert compute(1) != first
    assert compute(1) == first


def test_only_the_namespaces_that_were_asked_for(url: str, client: redis.Redis) -> None:
    cache = make_cache(url, OPTIONS={"NEAR_CACHE": {"namespaces": ["users"]}})
    make = cache.operations("users")
    cache.run(make.get("nothing", None, None))
    wait_for(lambda: near_of(cache).on, "the near cache is on")
    cache.set("users:1", 1)
    heard(cache, client)
    before = asked(client)
    assert [cache.get("users:1") for _ in range(3)] == [1] * 3
    assert asked(client) - before == 3
    assert [cache.run(make.get("1", None, None)) for _ in range(3)] == [1] * 3
    assert asked(client) - before == 4
    cache.state.close()


async def test_the_namespaced_face(store: ResilientCache, client: redis.Redis) -> None:
    users = await get_cache("users")
    await users.set("1", "one")
    heard(store, client)
    before = asked(client)
    assert [await users.get("1") for _ in range(5)] == ["one"] * 5
    assert asked(client) - before == 1
    other_process(store).set("users:1", "two")
    while await users.get("1") != "two":
        await asyncio.sleep(0.01)


def test_foreign_bytes_are_not_kept(cache: ResilientCache, client: redis.Redis) -> None:
    client.set(cache.make_key("k"), b"\xff\xfe")
    client.rpush(cache.make_key("l"), "a list")
    for _ in range(3):
        assert cache.get("k", "default") == "default"
        assert cache.get("l", "default") == "default"
    assert len(near_of(cache)) == 0
    cache.set("k", None)
    heard(cache, client)
    assert cache.get("k", "default") is None
    assert cache.get("k", "default") is None
    assert len(near_of(cache)) == 1


def test_it_is_bounded(url: str, client: redis.Redis) -> None:
    cache = make_near(url, {"max_entries": 100, "max_bytes": 100_000})
    near = near_of(cache)
    cache.set_many({f"k{number}": "x" * number for number in range(300)})
    cache.set("often", "used")
    for number in range(300):
        cache.get("often")
        cache.get(f"k{number}")
        assert len(near) <= 100
    cache.get("often")
    assert "used" in [answer.value for answer in cache._decoded._values.values()]  # type: ignore[union-attr]
    assert len(cache._decoded._values) == len(near)  # type: ignore[union-attr]
    cache.set_many({f"l{number}": b"x" * 30_000 for number in range(9)})
    cache.set("large", b"x" * 200_000)
    heard(cache, client)
    for number in range(9):
        cache.get(f"l{number}")
        assert 0 < near.bytes <= 100_000
    assert cache.get("large") == cache.get("large")
    assert 0 < near.bytes <= 100_000
    cache.state.close()


def test_two_prefixes_with_the_same_options(url: str, client: redis.Redis) -> None:
    one = make_near(url, KEY_PREFIX="a*:")
    longer = make_cache(url, OPTIONS={"NEAR_CACHE": True}, KEY_PREFIX="a*:b")
    other = make_cache(url, OPTIONS={"NEAR_CACHE": True}, KEY_PREFIX="c")
    assert one.state is longer.state is other.state
    for each in (longer, other):
        listening(each)
    for each in (one, longer, other):
        each.set("k", 1)
    heard(one, client)
    for each in (one, longer, other):
        assert [each.get("k"), each.get("k")] == [1, 1]
    assert len(near_of(one)) == 3
    for left, each in enumerate((one, longer, other)):
        client.set(each.make_key("k"), 2)
        wait_for(lambda left=left: len(near_of(one)) == 2 - left, "the change is heard of")
    one.state.close()


def test_closing_leaves_neither_thread_nor_connection(redis_server: RedisServer) -> None:
    cache = make_near(redis_server.url)
    cache.state.close()
    assert "cache-layer-tracker" not in [thread.name for thread in threading.enumerate()]
    with redis.Redis.from_url(redis_server.url) as client:
        wait_for(lambda: len(client.client_list()) == 1, "only this connection is left")


def test_literal_starts() -> None:
    for text in ("", "app", "a*b?[c]\\^", "ü\ud800"):
        assert literal_start(f"{escape_glob(text)}*:x") == text.encode("utf-8", "surrogatepass")


FORK = """
    import os, sys, time
    import django
    from django.conf import settings
    settings.configure(INSTALLED_APPS=["cache_layer"], SECRET_KEY="only-for-tests")
    django.setup()
    from cache_layer.backends import ResilientCache

    options = {"NEAR_CACHE": True}
    cache = ResilientCache(sys.argv[1], {"KEY_PREFIX": sys.argv[2], "OPTIONS": options})
    plain = ResilientCache(sys.argv[1], {"KEY_PREFIX": sys.argv[2]})

    def follows(value):
        deadline = time.monotonic() + 20
        while not cache.state.near.on or not len(cache.state.near):
            assert time.monotonic() < deadline
            cache.get("k")
            time.sleep(0.01)
        plain.set("k", value)
        while cache.get("k") != value:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    cache.set("k", 0)
    follows(1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert not cache.state.near.on and not len(cache.state.near)
            follows(2)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert cache.state.near.on
    follows(3)
"""


def test_a_child_listens_for_itself_and_its_parent_goes_on(url: str) -> None:
    subprocess.run(
        [
            *(sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(FORK)),
            *(url, uuid.uuid4().hex),
        ],
        cwd=ROOT,
        timeout=60,
        check=True,
    )


@pytest.mark.usefixtures("default_timeouts")
class TestBrokenRedis:
    @pytest.fixture
    def cache(self, redis_server: RedisServer) -> Iterator[ResilientCache]:
        cache = make_near(redis_server.url)
        yield cache
        cache.state.close()

    def test_killed(self, cache: ResilientCache, redis_server: RedisServer) -> None:
        cache.set("k", 1)
        assert [cache.get("k"), cache.get("k")] == [1, 1]
        redis_server.kill()
        wait_for(lambda: not near_of(cache).on, "the near cache is off")
        assert len(near_of(cache)) == 0
        wait_for(lambda: cache.get("k") is None, "it is empty")
        redis_server.restart()
        wait_for(
            lambda: (
                (cache.set("k", 2), cache.get("k") == cache.get("k") == 2)[1]
                and state(cache) == "redis"
                and len(near_of(cache)) == 1
            ),
            "everything is as it was",
        )

    def test_hung(self, cache: ResilientCache, redis_server: RedisServer, settings: Any) -> None:
        cache.set("k", 1)
        assert [cache.get("k"), cache.get("k")] == [1, 1]
        redis_server.stop()
        begun = time.monotonic()
        wait_for(lambda: cache.get("k") is None, "the near cache is off")
        allowed = settings.CACHE_LAYER_OPERATION_TIMEOUT * 2 + 0.5
        assert time.monotonic() - begun < allowed + 0.5
        redis_server.cont()
        wait_for(lambda: state(cache) == "redis", "Redis answers again")
        wait_for(lambda: cache.get("k") == 1, "it was not lost")

    def test_cut_off_without_a_word(self, redis_server: RedisServer) -> None:
        proxy = Proxy(redis_server.port)
        proxy.start()
        cache = make_near(proxy.url)
        cache.set("k", 1)
        assert [cache.get("k"), cache.get("k")] == [1, 1]
        proxy.seconds = 60
        proxy.fault = "delay"
        with redis.Redis.from_url(redis_server.url) as client:
            client.set(cache.make_key("k"), 2)
        begun = time.monotonic()
        while cache.get("k") == 1:
            time.sleep(0.001)
        # An interval and a timeout, and the machine's own business.
        assert time.monotonic() - begun < 0.5 + 0.25 + 0.5
        cache.state.close()
        proxy.close()

    def test_a_redis_that_does_not_tell(
        self, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        with redis.Redis.from_url(redis_server.url) as client:
            client.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all")
            client.execute_command("ACL", "SETUSER", "app", "-client|tracking")
        url = redis_server.url.replace("redis://", "redis://app:secret@")
        with caplog.at_level(logging.WARNING, logger="cache_layer"):
            cache = make_cache(url, OPTIONS={"NEAR_CACHE": True})
            cache.set("k", 1)
            cache.get("k")
            wait_for(lambda: "near cache stays off" in caplog.text, "it says so")
            assert [cache.get("k"), cache.get("k")] == [1, 1]
            assert state(cache) == "redis"
        assert not near_of(cache).on
        assert len(caplog.records) == 1
        cache.state.close()


class TestOrder:
    """Announcements, replies and news in every order; no Redis."""

    @pytest.fixture
    def near(self) -> NearCache:
        near = NearCache(NearOptions(max_entries=3))
        near.turn_on(float("inf"), lambda: True)
        return near

    def test_news_before_the_reply(self, near: NearCache) -> None:
        mark = near.expect(["k"])
        assert mark is not None
        near.drop(["k"])
        near.keep(mark, ["k"], [b"old"], [-1])
        assert near.find(["k"]) is None

    def test_news_after_the_reply(self, near: NearCache) -> None:
        mark = near.expect(["k"])
        assert mark is not None
        near.keep(mark, ["k"], [b"old"], [-1])
        assert near.find(["k"]) == [b"old"]
        near.drop(["k"])
        assert near.find(["k"]) is None

    def test_a_reader_after_the_news_is_not_spoiled_by_one_before(self, near: NearCache) -> None:
        before = near.expect(["k"])
        near.drop(["k"])
        after = near.expect(["k"])
        assert before is not None
        assert after is not None
        near.keep(before, ["k"], [b"old"], [-1])
        assert near.find(["k"]) is None
        near.keep(after, ["k"], [b"new"], [-1])
        assert near.find(["k"]) == [b"new"]

    def test_the_earlier_of_two_replies_does_not_stay(self, near: NearCache) -> None:
        first, second = near.expect(["k"]), near.expect(["k"])
        assert first is not None
        assert second is not None
        near.keep(first, ["k"], [b"old"], [-1])
        near.keep(second, ["k"], [b"new"], [-1])
        assert near.find(["k"]) is None

    def test_an_answer_of_before_it_was_off_is_not_kept(self, near: NearCache) -> None:
        mark = near.expect(["k"])
        assert mark is not None
        near.turn_off()
        assert near.expect(["k"]) is None
        near.turn_on(float("inf"), lambda: True)
        near.keep(mark, ["k"], [b"old"], [-1])
        near.expect(["k"])
        near.keep(mark, ["k"], [b"old"], [-1])
        assert near.find(["k"]) is None

    def test_an_announcement_that_is_taken_back(self, near: NearCache) -> None:
        mark = near.expect(["k"])
        assert mark is not None
        near.forget(mark, ["k"])
        near.keep(mark, ["k"], [b"old"], [-1])
        assert near.find(["k"]) is None

    def test_without_news_it_ends_by_itself(self) -> None:
        near = NearCache(NearOptions())
        near.turn_on(time.monotonic() + 0.05, lambda: True)
        mark = near.expect(["k"])
        assert mark is not None
        near.keep(mark, ["k"], [b"v"], [-1])
        assert near.find(["k"]) == [b"v"]
        time.sleep(0.06)
        assert near.find(["k"]) is None

    def test_what_is_used_stays(self, near: NearCache) -> None:
        for number in range(6):
            key = f"k{number}"
            mark = near.expect([key])
            assert mark is not None
            near.keep(mark, [key], [b"v"], [-1])
            assert near.find(["k0"]) == [b"v"]
        assert len(near) == 3
        assert near.find(["k5"]) == [b"v"]
        assert near.find(["k3"]) is None
