"""The cache in a project's monitoring: OpenTelemetry and Prometheus.

Both are optional: ``pip install 'django-agent-sessions[telemetry]'`` installs their libraries.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry import metrics as otel_metrics
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cache_layer import metrics
from cache_layer.backends import NoSharedCountersError, SharedCounters, observe_calls
from cache_layer.interface import resilient_cache

_NAME: Final = "cache_layer"
_DEFAULT_PORT: Final = 6379

#: The upper limits of the duration histogram in seconds, from the conventions for databases.
_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)


def instrument(
    tracer_provider: TracerProvider | None = None,
    meter_provider: otel_metrics.MeterProvider | None = None,
) -> None:
    """Make an OpenTelemetry span and a duration of each call to Redis.

    They follow the `conventions for database clients
    <https://opentelemetry.io/docs/specs/semconv/database/redis/>`_: a client span named after the
    operation, with the address of the server and the database, and the histogram
    ``db.client.operation.duration`` in seconds. Keys and values are in neither. What the near
    cache or memory answers is no call. Without this function a call costs nothing more.

    Call it once, before the cache is used for the first time, such as in the ``ready()`` of an
    ``AppConfig``: an alias that was used before is not observed.

    Args:
        tracer_provider: What makes the spans; None for the global one.
        meter_provider: What makes the histogram; None for the global one.
    """
    tracer = trace.get_tracer(_NAME, tracer_provider=tracer_provider)
    durations = otel_metrics.get_meter(_NAME, meter_provider=meter_provider).create_histogram(
        "db.client.operation.duration",
        unit="s",
        description="Duration of database client operations.",
        explicit_bucket_boundaries_advisory=_BUCKETS,
    )

    def observer(location: object) -> Any:
        server = _server(location)

        @contextmanager
        def observe(operation: str) -> Iterator[None]:
            attributes = {**server, "db.operation.name": operation}
            began = time.perf_counter()
            with tracer.start_as_current_span(
                operation,
                kind=SpanKind.CLIENT,
                attributes=attributes,
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                try:
                    yield
                except BaseException as error:
                    attributes["error.type"] = type(error).__qualname__
                    if span.is_recording():
                        span.set_attribute("error.type", attributes["error.type"])
                        span.set_status(Status(StatusCode.ERROR, str(error)))
                    raise
                finally:
                    durations.record(time.perf_counter() - began, attributes)

        return observe

    observe_calls(observer)


class CacheCollector(Collector):
    """The counters of ``CACHE_LAYER_ALIAS`` and its state, for ``prometheus_client``.

    Register it once: ``REGISTRY.register(CacheCollector())``. Of each namespace there are
    ``cache_layer_hits_total``, ``…_misses_total``, ``…_sets_total``, ``…_deletes_total`` and
    ``…_errors_total``, and what was counted of near hits and costs. ``cache_layer_redis_up`` is 1
    while Redis answers and 0 while memory does.

    Args:
        all_processes: Whether the counters are the sums over all processes, which is right where
            a scrape reaches any one of several workers; False for those of this process.
    """

    def __init__(self, *, all_processes: bool = True) -> None:
        self._all_processes = all_processes

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics as they are now; the newest counts of this process are added first.

        It may wait for Redis like any synchronous call, but works in an event loop too.
        """
        backend = resilient_cache()
        report = metrics.snapshot()
        if self._all_processes:
            # While Redis cannot be used, the counters of this process are better than none.
            with suppress(NoSharedCountersError):
                report = metrics.snapshot_all(SharedCounters(backend))
        families = {family.name: family for family in _counters()}
        for name, count in report["metrics"].items():
            namespace, _, event = name.rpartition(":")
            if (family := families.get(f"cache_layer_{event}")) is not None:
                family.add_metric([namespace], count)
        yield from (family for family in families.values() if family.samples)
        up = _up()
        up.add_metric([], float(backend.store.describe()["state"] == "redis"))
        yield up

    def describe(self) -> Iterable[Metric]:
        """Yield the metrics without values, so that registering the collector asks no Redis."""
        return [*_counters(), _up()]


_HELP: Final = {
    "hits": "Reads that found a value.",
    "misses": "Reads that found no value.",
    "sets": "Values stored.",
    "deletes": "Values deleted.",
    "errors": "Commands refused, and values that cannot be read.",
    metrics.NEAR_HITS: "Hits answered in the process.",
    "spent": "Cost of computations, in the project's unit.",
    "saved": "Cost that hits saved, in the project's unit.",
}


def _counters() -> list[CounterMetricFamily]:
    return [
        CounterMetricFamily(f"cache_layer_{event}", help_, labels=["namespace"])
        for event, help_ in _HELP.items()
    ]


def _up() -> GaugeMetricFamily:
    return GaugeMetricFamily("cache_layer_redis_up", "Whether Redis answers, not memory.")


def _server(location: object) -> dict[str, str | int]:
    """Return the attributes that name the server of a LOCATION."""
    first = location[0] if isinstance(location, list | tuple) else str(location).split(",")[0]
    url = urlsplit(str(first))
    server: dict[str, str | int] = {"db.system.name": "redis"}
    if url.scheme == "unix":
        server["server.address"] = url.path
        return server
    server["db.namespace"] = url.path.strip("/") or "0"
    if url.hostname:
        server |= {"server.address": url.hostname, "server.port": url.port or _DEFAULT_PORT}
    return server
