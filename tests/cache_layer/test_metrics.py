from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from cache_layer import metrics


class Store:
    """Adds up what processes report, as the backend's does."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.down = False

    def add_counts(self, deltas: Mapping[str, int]) -> None:
        if self.down:
            raise ConnectionError
        for name, n in deltas.items():
            self.counts[name] = self.counts.get(name, 0) + n

    def load_counts(self) -> Mapping[str, int]:
        return self.counts


@pytest.fixture(autouse=True)
def from_zero() -> Iterator[None]:
    metrics.reset()
    metrics.flush(Store())
    yield
    metrics.reset()


def test_nothing_counted_is_all_zeros() -> None:
    assert metrics.snapshot() == {
        "hit_rate": 0.0,
        "hit_rates": {"default": 0.0},
        "metrics": {f"default:{event}": 0 for event in metrics.EVENTS},
    }
    assert metrics.hit_rate() == metrics.hit_rate("nobody") == 0.0


def test_counts_and_rates_by_namespace() -> None:
    metrics.record("", "hits", 3)
    metrics.record("", "misses")
    metrics.record("users", "misses", 4)
    metrics.record("users", "sets")
    found = metrics.snapshot()
    assert found["hit_rate"] == 37.5
    assert found["hit_rates"] == {"default": 75.0, "users": 0.0}
    assert found["metrics"]["default:hits"] == 3
    assert found["metrics"]["users:sets"] == 1
    assert found["metrics"]["users:errors"] == 0
    assert metrics.hit_rate("") == metrics.hit_rate("default") == 75.0
    assert metrics.hit_rate() == 37.5


def test_no_count_is_lost_among_threads_living_and_dead() -> None:
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            metrics.snapshot()

    def count() -> None:
        for n in range(5_000):
            metrics.record("users", "hits")
            metrics.record(f"n{n % 50}", "misses")

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(3):
        threads = [threading.Thread(target=count) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    stop.set()
    reader.join()
    found = metrics.snapshot()["metrics"]
    assert found["users:hits"] == 3 * 5 * 5_000
    assert sum(found[f"n{n}:misses"] for n in range(50)) == 3 * 5 * 5_000


def test_threads_that_ended_leave_nothing_but_their_counts() -> None:
    for _ in range(50):
        thread = threading.Thread(target=metrics.record, args=("users", "hits"))
        thread.start()
        thread.join()
    assert metrics.snapshot()["metrics"]["users:hits"] == 50
    assert len(metrics._threads) < 10


def test_all_processes_are_added_up_without_counting_twice() -> None:
    store = Store()
    metrics.record("", "hits", 2)
    metrics.flush(store)
    metrics.flush(store)
    metrics.record("", "hits")
    store.counts["other:hits"] = 10  # another process
    found = metrics.snapshot_all(store)
    assert found["metrics"]["default:hits"] == 3
    assert found["metrics"]["other:hits"] == 10
    assert found["hit_rate"] == 100.0


def test_what_could_not_be_reported_is_reported_later() -> None:
    store = Store()
    metrics.record("", "hits", 2)
    store.down = True
    with pytest.raises(ConnectionError):
        metrics.flush(store)
    store.down = False
    metrics.record("", "hits")
    metrics.flush(store)
    assert store.counts == {"default:hits": 3}


def test_a_reset_does_not_disturb_what_all_processes_add_up_to() -> None:
    store = Store()
    metrics.record("", "hits", 2)
    metrics.reset()
    metrics.record("", "hits")
    assert metrics.snapshot()["metrics"]["default:hits"] == 1
    metrics.flush(store)
    assert store.counts == {"default:hits": 3}


def in_child(results: Any) -> None:
    metrics.record("", "misses")
    store = Store()
    metrics.flush(store)
    results.put((metrics.snapshot()["metrics"], store.counts))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_counts_for_itself() -> None:
    metrics.record("", "hits", 5)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=in_child, args=(results,))
    child.start()
    seen, flushed = results.get(timeout=30)
    child.join(30)
    assert seen["default:hits"] == 0
    assert seen["default:misses"] == 1
    assert flushed == {"default:misses": 1}
    assert metrics.snapshot()["metrics"]["default:misses"] == 0


def test_namespaces_that_a_project_makes_without_end_are_counted_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "MAX_NAMESPACES", 3)
    monkeypatch.setattr(metrics, "_namespaces", set())
    for number in range(5):
        metrics.record(f"tenant-{number}", "hits")
        metrics.record(f"tenant-{number}", "hits")
    found = metrics.snapshot()["metrics"]
    assert found["tenant-2:hits"] == 2
    assert found["(other):hits"] == 4
    assert "tenant-3:hits" not in found
