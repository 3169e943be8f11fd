"""What cannot be computed again is not answered from memory."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from asgiref.sync import async_to_sync
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.cache import cache as default_cache
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings

from cache_layer import cache_invalidate, cached
from cache_layer.backends import CacheUnavailableError, ResilientCache
from cache_layer.interface import NamespacedCache, SyncCache
from tests.cache_layer.caches import make_cache, state, wait_for
from tests.processes import ROOT
from tests.services import RedisServer

pytestmark = pytest.mark.usefixtures("default_timeouts")


@pytest.fixture
def cache(redis_server: RedisServer) -> Iterator[ResilientCache]:
    made = make_cache(redis_server.url, OPTIONS={"ON_OUTAGE": "raise"})
    yield made
    made.store.close()


def test_the_error_of_an_outage_needs_no_redis_py() -> None:
    code = """
import sys
sys.modules["redis"] = None
from django.conf import settings
settings.configure()
from cache_layer.backends.outage import CacheUnavailableError
assert issubclass(CacheUnavailableError, ConnectionError)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


CALLS: dict[str, Callable[[Any], Any]] = {
    "get": lambda c: c.get("k"),
    "get_many": lambda c: c.get_many(["k"]),
    "set": lambda c: c.set("k", "new"),
    "add": lambda c: c.add("lock", 1),
    "incr": lambda c: c.incr("n"),
    "delete": lambda c: c.delete("k"),
    "touch": lambda c: c.touch("k", 5),
    "has_key": lambda c: c.has_key("k"),
    "get_or_set": lambda c: c.get_or_set("other", 1),
    "delete_many": lambda c: c.delete_many(["k"]),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_raises_during_a_stall_and_nothing_is_lost_after_it(
    face: Any, cache: ResilientCache, redis_server: RedisServer, name: str
) -> None:
    cache.set("k", "v")
    cache.set("n", 1)
    redis_server.stop()
    for _ in range(3):
        with pytest.raises(CacheUnavailableError) as caught:
            CALLS[name](face)
        assert isinstance(caught.value, redis.exceptions.ConnectionError)
    redis_server.cont()
    wait_for(lambda: state(cache) == "redis", "Redis answers again")
    if name not in ("set", "delete", "delete_many"):
        # Those may have reached Redis, which the caller cannot know.
        assert cache.get("k") == "v"


def test_a_namespace_raises_while_the_rest_is_answered_from_memory(
    redis_server: RedisServer,
) -> None:
    cache = make_cache(redis_server.url, OPTIONS={"ON_OUTAGE": {"quotas": "raise"}})
    quotas: SyncCache[int] = SyncCache(cache, "quotas")
    aquotas: NamespacedCache[int] = NamespacedCache(cache, "quotas")
    quotas.increment("n")
    redis_server.stop()
    try:
        with pytest.raises(CacheUnavailableError):
            quotas.increment("n")
        with pytest.raises(CacheUnavailableError):
            async_to_sync(aquotas.get)("n")
        assert SyncCache[int](cache, "users").set("k", 1)
        assert cache.get("k", "missing") == "missing"
    finally:
        redis_server.cont()
        cache.store.close()


def test_the_first_error_says_why_and_what_to_do(
    face: Any, cache: ResilientCache, redis_server: RedisServer
) -> None:
    cache.set("k", "v")
    redis_server.kill()
    with pytest.raises(CacheUnavailableError, match=r"Connection.*Let the request fail"):
        face.get("k")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("raise", "calls raise an error until it can"),
        ("memory", "the cache answers from memory until it can"),
        ({"quotas": "raise"}, "the cache answers from memory until it can"),
    ],
    ids=str,
)
def test_the_log_says_what_calls_get_during_an_outage(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, option: Any, said: str
) -> None:
    cache = make_cache(redis_server.url, OPTIONS={"ON_OUTAGE": option})
    cache.set("k", "v")
    redis_server.kill()
    with contextlib.suppress(CacheUnavailableError):
        cache.set("k", "w")
    assert state(cache) == "memory"
    assert any(said in record.getMessage() for record in caplog.records)
    cache.store.close()


def settings_for(server: RedisServer, **options: Any) -> dict[str, Any]:
    return {
        "default": {
            "BACKEND": "cache_layer.backends.ResilientCache",
            "LOCATION": server.url,
            "KEY_PREFIX": "durable",
            "OPTIONS": options,
        }
    }


def test_decorated_functions_do_not_raise(redis_server: RedisServer) -> None:
    with override_settings(CACHES=settings_for(redis_server, ON_OUTAGE="raise")):

        @cached(ttl=60, key_prefix="strict")
        def load(number: int) -> int:
            return number

        @cache_invalidate("strict:*")
        def change() -> str:
            return "changed"

        assert load(1) == 1
        redis_server.stop()
        try:
            assert load(1) == load(2) - 1 == 1
            assert change() == "changed"
        finally:
            redis_server.cont()
            default_cache.store.close()


def test_a_user_stays_logged_in_through_a_stall(redis_server: RedisServer) -> None:
    caches = settings_for(redis_server, ON_OUTAGE="raise")
    with override_settings(CACHES=caches, SESSION_ENGINE="cache_layer.sessions"):

        def view(request: HttpRequest) -> HttpResponse:
            if request.GET:
                request.session["user"] = request.GET["user"]
            return HttpResponse(request.session.get("user", "nobody"))

        middleware = SessionMiddleware(view)
        first = middleware(RequestFactory().get("/?user=ann"))
        cookies = {"sessionid": first.cookies["sessionid"].value}

        def visit() -> HttpResponse:
            factory = RequestFactory()
            factory.cookies.load(cookies)
            response = middleware(factory.get("/"))
            assert isinstance(response, HttpResponse)
            return response

        assert visit().content == b"ann"
        redis_server.stop()
        try:
            for _ in range(3):
                with pytest.raises(CacheUnavailableError):
                    visit()
        finally:
            redis_server.cont()
        wait_for(lambda: state(default_cache) == "redis", "Redis answers again")
        after = visit()
        assert after.content == b"ann"
        assert "sessionid" not in after.cookies
        default_cache.store.close()


@pytest.mark.parametrize(
    "options",
    [{"ON_OUTAGE": "raise"}, {"KEEP_AFTER_RESTART": True}],
    ids=lambda options: next(iter(options)),
)
def test_what_a_server_saved_is_kept_when_it_starts_again(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    server = RedisServer("--dir", str(tmp_path), "--appendonly", "yes", "--appendfsync", "always")
    server.start()
    cache = make_cache(server.url, OPTIONS=options)
    try:
        cache.set("session", "of somebody")
        server.restart()

        def found() -> Any:
            try:
                return cache.get("session")
            except CacheUnavailableError:
                return None

        wait_for(lambda: found() == "of somebody", "what was saved is read again")
    finally:
        cache.store.close()
        server.close()
