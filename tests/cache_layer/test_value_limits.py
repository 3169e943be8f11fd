"""The backend and values that are too large, poisoned, or of a type that it cannot store."""

from __future__ import annotations

import gzip
import itertools
import logging
import lzma
import random
import time
import tracemalloc
import zlib
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import cache
from django.db.models import IntegerChoices
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings
from django.views.decorators.cache import cache_page
from django_redis.exceptions import CompressorError

from cache_layer.backends.encoding import Codec, UnreadableValueError
from cache_layer.backends.memory import MemoryStore
from cache_layer.backends.operations import factory
from cache_layer.codec import UnsupportedValueError
from tests.cache_layer.caches import make_cache

COMPRESSORS = {
    "zlib.ZlibCompressor": zlib.compress,
    "gzip.GzipCompressor": gzip.compress,
    "lzma.LzmaCompressor": lzma.compress,
}


class SoftTimeLimitExceeded(Exception):  # noqa: N818 - Celery's name.
    __module__ = "billiard.exceptions"


class ForeignError(Exception):
    pass


class Interrupted:
    """A serializer whose reading is interrupted by a signal handler, or fails in its own way."""

    raised: type[Exception] = ForeignError

    def __init__(self, options: Any) -> None:
        pass

    def dumps(self, value: object) -> bytes:
        return b"{}"

    def loads(self, data: bytes) -> object:
        raise self.raised


class OwnCompressor:
    def __init__(self, options: Any) -> None:
        pass

    def compress(self, value: bytes) -> bytes:
        return zlib.compress(value)

    def decompress(self, value: bytes) -> bytes:
        return zlib.decompress(value)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_bomb_is_unreadable_before_it_takes_memory(name: str) -> None:
    pytest.importorskip("django_redis")
    codec = Codec({"COMPRESSOR": f"django_redis.compressors.{name}"})
    bomb = COMPRESSORS[name](bytes(64 << 20))
    assert codec.decode(codec.encode("k", ["x" * 10_000])) == ["x" * 10_000]
    assert codec.decode(codec.encode("k", ["short"])) == ["short"]
    with override_settings(CACHE_LAYER_MAX_DECODED_BYTES=1 << 20):
        tracemalloc.start()
        try:
            with pytest.raises(UnreadableValueError):
                codec.decode(bomb)
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()
    with pytest.raises(UnreadableValueError):
        codec.decode(codec.encode("k", ["x" * 10_000])[:-5])


@pytest.mark.parametrize("name", COMPRESSORS)
def test_what_a_value_repeats_from_far_away_comes_back(name: str) -> None:
    pytest.importorskip("django_redis")
    codec = Codec({"COMPRESSOR": f"django_redis.compressors.{name}"})
    part = random.randbytes(25_000)
    assert codec.decode(codec.encode("k", [part, part])) == [part, part]


def test_a_compressor_of_ones_own_is_measured_afterwards() -> None:
    pytest.importorskip("django_redis")
    codec = Codec({"COMPRESSOR": f"{__name__}.OwnCompressor"})
    with override_settings(CACHE_LAYER_MAX_DECODED_BYTES=1000):
        assert codec.decode(codec.encode("k", "x" * 900)) == "x" * 900
        with pytest.raises(UnreadableValueError):
            codec.decode(zlib.compress(b"\x01" + bytes(2000)))
        with pytest.raises(UnsupportedValueError, match="MAX_DECODED_BYTES is 1,000"):
            codec.encode("k", "x" * 1100)


class OfLongTexts(OwnCompressor):
    """Leaves short bytes as they are, as those of django-redis do."""

    def compress(self, value: bytes) -> bytes:
        return super().compress(value) if len(value) > 100 else value

    def decompress(self, value: bytes) -> bytes:
        try:
            return super().decompress(value)
        except zlib.error as error:
            raise CompressorError from error


def test_bytes_that_a_compressor_of_ones_own_left_as_they_are_come_back() -> None:
    backend = make_cache(OPTIONS={"COMPRESSOR": f"{__name__}.{OfLongTexts.__name__}"})
    backend.set_many({"short": "text", "long": "x" * 1000})
    assert backend.get_many(["short", "long"]) == {"short": "text", "long": "x" * 1000}


class Refusing(OwnCompressor):
    """Says in its own way that it did not write the bytes."""

    def decompress(self, value: bytes) -> bytes:
        raise ForeignError


def test_what_a_compressor_of_ones_own_refuses_is_a_miss() -> None:
    backend = make_cache(OPTIONS={"COMPRESSOR": f"{__name__}.{Refusing.__name__}"})
    backend.set("k", "text")
    assert backend.get("k", "default") == "default"


@override_settings(CACHE_LAYER_MAX_VALUE_BYTES=1000)
def test_a_large_value_is_refused_by_every_way_to_store_it() -> None:
    small, large = "x" * 900, "x" * 1100
    backend = make_cache()
    backend.set("k", small)
    for store in (
        lambda: backend.set("k", large),
        lambda: async_to_sync(backend.aset)("k", large),
        lambda: backend.add("other", large),
        lambda: backend.set_many({"other": large}),
    ):
        with pytest.raises(UnsupportedValueError, match="CACHE_LAYER_MAX_VALUE_BYTES is 1,000"):
            store()
    assert backend.get("k") == small
    assert backend.get_or_set("computed", lambda: small) == small
    with override_settings(CACHE_LAYER_MAX_VALUE_BYTES=100):
        assert backend.get("k") is None


def test_an_interruption_is_raised_and_a_foreign_value_is_a_miss() -> None:
    backend = make_cache(OPTIONS={"SERIALIZER": f"{__name__}.Interrupted"})
    backend.set("k", 1.5)
    assert backend.get("k", "default") == "default"
    Interrupted.raised = SoftTimeLimitExceeded
    try:
        for read in (
            lambda: backend.get("k"),
            lambda: backend.get_many(["k"]),
            lambda: async_to_sync(backend.aget)("k"),
        ):
            with pytest.raises(SoftTimeLimitExceeded):
                read()
    finally:
        Interrupted.raised = ForeignError


class Digit(IntegerChoices):
    ZERO = 48
    NINE = 57


def test_numbers_that_are_digits_in_msgpack_stay_themselves() -> None:
    pytest.importorskip("django_redis")
    for name in ("msgpack.MSGPackSerializer", "json.JSONSerializer"):
        codec = Codec({"SERIALIZER": f"django_redis.serializers.{name}"})
        for value in (Digit.ZERO, Digit.NINE, 48, 57, True, 7):
            assert codec.decode(codec.encode("k", value)) == value


class Teapot(HttpResponse):
    status_code = 418


def test_a_view_whose_response_cannot_be_stored_answers_uncached_with_one_warning(
    store: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factory, "_warned", set())
    numbers = itertools.count()

    class Local(HttpResponse):
        pass

    def with_attribute() -> HttpResponse:
        response = HttpResponse()
        response.view = object()  # type: ignore[attr-defined]
        return response

    with caplog.at_level(logging.WARNING, "cache_layer"):
        for make in (Local, with_attribute):

            @cache_page(60, key_prefix="refused")
            def view(request: HttpRequest, make: Any = make) -> HttpResponse:
                response: HttpResponse = make()
                response.content = str(next(numbers))
                return response

            before = len(caplog.records)
            answers = [view(RequestFactory().get(f"/{make.__name__}")) for _ in range(3)]
            assert len({answer.content for answer in answers}) == 3
            told = [r for r in caplog.records[before:] if "served uncached" in r.getMessage()]
            assert len(told) == 1


def test_a_response_that_cannot_be_stored_takes_the_place_of_one_that_was(store: str) -> None:
    cache.set("k", HttpResponse("old"))
    cache.set("k", Teapot("new"))
    assert cache.get("k") is None
    async_to_sync(cache.aset)("k", HttpResponse("old"))
    async_to_sync(cache.aset)("k", Teapot("new"))
    assert cache.get("k") is None


def test_entries_in_memory_end_by_the_clock_that_a_test_moves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore(lambda: 10, lambda: 1_000)
    store.write("k", b"1", 1000)
    later = time.monotonic() + 2
    assert store.bytes > 0
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert store.read("k") is None
    # Its memory is free again.
    assert (len(store), store.bytes) == (0, 0)
