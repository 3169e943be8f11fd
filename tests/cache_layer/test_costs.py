"""What a computation costs never costs a caller the result."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from django.core.cache import cache
from django.core.exceptions import ValidationError

from cache_layer import cached, cached_many, get_redis_manager, metrics
from tests.cache_layer.caches import make_cache


def raising(error: Exception) -> Any:
    def cost(result: object) -> int:
        raise error

    return cost


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    "cost",
    [
        *(raising(error) for error in (RuntimeError("x"), ValidationError("x"), OSError("x"))),
        *(lambda result: 2**70, lambda result: -1, lambda result: 1.5, lambda result: None),
    ],
)
def test_a_cost_that_cannot_be_counted_is_said_once_and_fails_no_call(
    cost: Any, caplog: pytest.LogCaptureFixture
) -> None:
    metrics.reset()
    runs = []

    @cached(key_prefix="costs", namespace="costs", cost=cost)
    def answer(question: str) -> str:
        runs.append(question)
        return "yes"

    @cached_many(key_prefix="costs", namespace="costs", cost=cost)
    def answers(questions: list[str]) -> list[str]:
        return ["yes" for _ in questions]

    assert [answer("a"), answer("a")] == ["yes", "yes"]
    assert runs == ["a"]
    assert answers(["a", "b"]) == answers(["a", "b"]) == ["yes", "yes"]
    said = [r.getMessage() for r in caplog.records if "cost" in r.getMessage()]
    assert len(said) == 2
    counted = metrics.snapshot()["metrics"]
    assert counted.get("costs:spent", 0) == counted.get("costs:saved", 0) == 0


@pytest.mark.usefixtures("store")
def test_a_time_limit_during_a_cost_function_reaches_the_task() -> None:
    @cached(key_prefix="costs", cost=raising(SoftTimeLimitExceeded()))
    def answer() -> str:
        return "yes"

    with pytest.raises(SoftTimeLimitExceeded):
        answer()


@pytest.mark.parametrize("cost", [-1, 10**12 + 1, 2**64])
def test_a_cost_out_of_range_is_refused_at_decoration(cost: int) -> None:
    for decorator in (cached, cached_many):
        with pytest.raises(ValueError, match="cost is from 0"):
            decorator(cost=cost)


def test_the_largest_cost_adds_up_over_all_processes(settings: Any, redis_url: str) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "cache_layer.backends.ResilientCache",
            "LOCATION": redis_url,
            "KEY_PREFIX": make_cache().key_prefix,
        }
    }
    metrics.reset()

    @cached(key_prefix="costs", namespace="dear", cost=10**12)
    def answer() -> str:
        return "yes"

    for _ in range(3):
        answer()

    async def of_all_processes() -> dict[str, int]:
        manager = await get_redis_manager()
        return (await manager.get_metrics_of_all_processes())["metrics"]

    assert asyncio.run(of_all_processes())["dear:saved"] >= 2 * 10**12
    assert "refused" not in cache.store.describe()
