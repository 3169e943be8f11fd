"""What OpenTelemetry and Prometheus see of the cache."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from asgiref.sync import sync_to_async
from django.core.cache import cache, caches
from django.test import override_settings
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry, generate_latest

from cache_layer import cached, metrics
from cache_layer.backends import observe_calls
from cache_layer.telemetry import CacheCollector, instrument
from tests.cache_layer.caches import Awaited
from tests.services import RedisServer


class Observed:
    """What an observed alias has told."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.tracer = tracers.get_tracer("test")
        instrument(tracers, MeterProvider([self._reader]))

    def spans(self) -> list[Any]:
        found = list(self._spans.get_finished_spans())
        self._spans.clear()
        return found

    def durations(self) -> dict[str, int]:
        data = self._reader.get_metrics_data()
        assert data is not None
        (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
        assert (metric.name, metric.unit) == ("db.client.operation.duration", "s")
        points: Any = metric.data.data_points
        return {str(point.attributes["db.operation.name"]): point.count for point in points}


@pytest.fixture
def entry(redis_url: str) -> dict[str, Any]:
    return {
        "BACKEND": "cache_layer.backends.ResilientCache",
        "LOCATION": redis_url,
        "KEY_PREFIX": f"test-{uuid.uuid4().hex}",
        # No other test has a store with these options.
        "OPTIONS": {"SOCKET_TIMEOUT": 10, "SOCKET_CONNECT_TIMEOUT": 11, "MAX_ENTRIES": 77},
    }


@pytest.fixture
def observed(entry: dict[str, Any]) -> Iterator[Observed]:
    observed = Observed()
    try:
        with override_settings(CACHES={"default": entry}):
            yield observed
            caches["default"].clear()
            caches["default"].store.close()  # type: ignore[attr-defined]
    finally:
        observe_calls(None)


@pytest.mark.parametrize("wrap", [lambda cache: cache, Awaited], ids=["called", "awaited"])
def test_each_call_is_a_client_span_and_a_duration(observed: Observed, wrap: Any) -> None:
    face = wrap(caches["default"])
    with observed.tracer.start_as_current_span("view") as view:
        face.set("secret-key", "secret-value")
        assert face.get("secret-key") == "secret-value"
        assert face.get_many(["secret-key", "b"]) == {"secret-key": "secret-value"}
    spans = observed.spans()
    assert [span.name for span in spans] == ["Set", "Get", "GetMany", "view"]
    for span in spans[:3]:
        assert span.kind is SpanKind.CLIENT
        assert span.parent.span_id == view.get_span_context().span_id
        assert span.attributes["db.system.name"] == "redis"
        assert span.attributes["db.operation.name"] == span.name
        assert span.attributes["server.address"] == "127.0.0.1"
        assert isinstance(span.attributes["server.port"], int)
        assert span.attributes["db.namespace"].isdigit()
        assert "secret" not in span.to_json()
    assert observed.durations() == {"Set": 1, "Get": 1, "GetMany": 1}


@pytest.mark.parametrize("wrap", [lambda cache: cache, Awaited], ids=["called", "awaited"])
def test_commands_of_locks_and_structures_have_their_names(observed: Observed, wrap: Any) -> None:
    wrap(caches["default"]).hset("h", "f", 1)
    with caches["default"].lock("l", timeout=10):  # type: ignore[attr-defined]
        pass
    names = [span.name for span in observed.spans()]
    # A server that does not know the script of a lock is given it first.
    assert [name for name in names if name != "SCRIPT"][:3] == ["HSET", "SET", "EVALSHA"]


def test_a_failed_call_says_so_and_memory_is_no_call(
    redis_server: RedisServer, entry: dict[str, Any]
) -> None:
    observed = Observed()
    options = {"ON_OUTAGE": {"strict": "raise"}, "MAX_ENTRIES": 78}
    try:
        with override_settings(
            CACHES={"default": {**entry, "LOCATION": redis_server.url, "OPTIONS": options}}
        ):
            cache.set("k", 1)
            observed.spans()
            redis_server.kill()
            cache.set("k", 2)
            (failed,) = [span for span in observed.spans() if span.name == "Set"]
            assert failed.status.status_code is StatusCode.ERROR
            assert failed.attributes["error.type"] == "RedisUnavailableError"
            cache.set("k", 3)
            assert cache.get("k") == 3
            assert [span for span in observed.spans() if span.name in ("Set", "Get")] == []
            caches["default"].store.close()  # type: ignore[attr-defined]
    finally:
        observe_calls(None)


def test_without_it_nothing_is_observed(entry: dict[str, Any]) -> None:
    observe_calls(None)
    with override_settings(CACHES={"default": entry}):
        transport = caches["default"].store.transport  # type: ignore[attr-defined]
        assert type(transport).__name__ == "Transport"


@pytest.mark.parametrize("all_processes", [True, False])
def test_prometheus_gets_counters_and_state(entry: dict[str, Any], all_processes: bool) -> None:
    registry = CollectorRegistry()
    registry.register(CacheCollector(all_processes=all_processes))

    # Counts of all processes include what other tests of this process counted.
    @cached(namespace="monitored", cost=7)
    def answer(question: str) -> str:
        return question.upper()

    metrics.reset()
    with override_settings(CACHES={"default": entry}):
        for _time in range(3):
            answer("a")
        text = generate_latest(registry).decode()
        caches["default"].clear()
        caches["default"].store.close()  # type: ignore[attr-defined]
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(lines['cache_layer_hits_total{namespace="monitored"}']) == 2
    assert float(lines['cache_layer_misses_total{namespace="monitored"}']) == 1
    assert float(lines['cache_layer_spent_total{namespace="monitored"}']) == 7
    assert float(lines['cache_layer_saved_total{namespace="monitored"}']) == 14
    assert float(lines["cache_layer_redis_up"]) == 1


async def test_a_collector_is_registered_and_read_in_an_event_loop(entry: dict[str, Any]) -> None:
    # Servers such as uvicorn import the project, and so call ready(), inside their loop.
    with override_settings(CACHES={"default": entry}):
        registry = CollectorRegistry(auto_describe=True)
        registry.register(CacheCollector())
        assert b"cache_layer_redis_up 1" in generate_latest(registry)
        await sync_to_async(caches["default"].clear)()
        caches["default"].store.close()  # type: ignore[attr-defined]


def test_registering_a_collector_asks_no_redis(
    redis_server: RedisServer, entry: dict[str, Any]
) -> None:
    with (
        override_settings(CACHES={"default": {**entry, "LOCATION": redis_server.url}}),
        redis.Redis.from_url(redis_server.url) as client,
    ):
        before = client.info("stats")["total_connections_received"]
        registry = CollectorRegistry(auto_describe=True)
        registry.register(CacheCollector())
        assert client.info("stats")["total_connections_received"] == before
        with pytest.raises(ValueError, match="Duplicated"):
            registry.register(CacheCollector())
