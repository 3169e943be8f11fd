"""A SERIALIZER that knows fewer types: what it cannot store fails no function and no view."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.views.decorators.cache import cache_page

from cache_layer import cached, cached_many
from cache_layer.exceptions import UnsupportedValueError
from tests.cache_layer.caches import make_cache

JSON = "django_redis.serializers.json.JSONSerializer"
MSGPACK = "django_redis.serializers.msgpack.MSGPackSerializer"
PICKLE = "django_redis.serializers.pickle.PickleSerializer"
REFUSED = [
    (JSON, {1, 2}),
    (JSON, object()),
    (MSGPACK, [2**70]),
    (MSGPACK, "\ud800"),
    (MSGPACK, object()),
    (PICKLE, threading.Lock()),
]


@pytest.fixture
def use(settings: Any, redis_url: str) -> Any:
    def use(serializer: str) -> None:
        settings.CACHES = {
            "default": {
                "BACKEND": "cache_layer.backends.ResilientCache",
                "LOCATION": redis_url,
                "KEY_PREFIX": make_cache().key_prefix,
                "OPTIONS": {"SERIALIZER": serializer},
            }
        }

    return use


@pytest.mark.parametrize(("serializer", "value"), REFUSED)
def test_a_value_that_the_serializer_refuses_is_named_with_its_key(
    use: Any, serializer: str, value: Any
) -> None:
    use(serializer)
    calls = (
        lambda: cache.set("k", value),
        lambda: cache.set_many({"k": value}),
        lambda: cache.add("k", value),
        lambda: cache.get_or_set("k", value),
    )
    for call in calls:
        with pytest.raises(UnsupportedValueError, match=r"':?.*k.*Serializer"):
            call()
    assert not cache.has_key("k")


@pytest.mark.parametrize(("serializer", "value"), REFUSED)
def test_a_function_whose_result_the_serializer_refuses_runs_uncached(
    use: Any, serializer: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    use(serializer)

    @cached(key_prefix="foreign")
    def one() -> Any:
        return value

    @cached(key_prefix="foreign")
    def chunks() -> Iterator[Any]:
        yield value

    @cached_many(key_prefix="foreign")
    def many(items: list[int]) -> list[Any]:
        return [value for _ in items]

    for _ in range(2):
        assert one() == value
        assert list(chunks()) == [value]
        assert many([1]) == [value]
    assert sum("not cached" in record.getMessage() for record in caplog.records) == 3


@pytest.mark.parametrize("serializer", [JSON, MSGPACK, PICKLE])
def test_chunks_are_kept_with_any_serializer(use: Any, serializer: str) -> None:
    use(serializer)
    runs = []
    expected = ["é", {"a": [1.5, None]}, 7, "\x00x"]

    @cached(key_prefix="foreign")
    def called() -> Iterator[Any]:
        runs.append("called")
        yield from expected

    @cached(key_prefix="foreign")
    async def awaited() -> AsyncIterator[Any]:
        runs.append("awaited")
        for chunk in expected:
            yield chunk

    async def read() -> list[Any]:
        return [chunk async for chunk in awaited()]

    for _ in range(2):
        assert list(called()) == expected
        assert async_to_sync(read)() == expected
    assert runs == ["called", "awaited"]


def test_a_page_whose_response_the_serializer_refuses_is_served(use: Any) -> None:
    use(JSON)

    @cache_page(60)
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse("page")

    for _ in range(2):
        assert view(RequestFactory().get("/")).content == b"page"
