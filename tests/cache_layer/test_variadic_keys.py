"""Functions that take any number of arguments have one result for each list of arguments."""

from __future__ import annotations

from typing import Any

import pytest

from cache_layer import cached

pytestmark = pytest.mark.usefixtures("store")

CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((1, 2), {}),
    (((1, 2),), {}),
    ((1, (2,)), {}),
    (((1,), 2), {}),
    (([1, 2],), {}),
    (("1,2",), {}),
    ((((1, 2),),), {}),
    ((), {"a": 1}),
    (({"a": 1},), {}),
    ((1,), {"a": 2}),
    ((1, 2), {"a": 2}),
    ((), {"a": (1, 2)}),
    ((), {"a": 1, "b": 2}),
]


def test_one_and_two_and_the_pair_of_them_are_different_calls() -> None:
    @cached(key_prefix="any")
    def total(*args: Any) -> Any:
        return args

    assert [total(1, 2), total((1, 2)), total(1, 2)] == [(1, 2), ((1, 2),), (1, 2)]
    assert total.cache_key(1, 2) != total.cache_key((1, 2))


def test_no_two_lists_of_arguments_share_a_result() -> None:
    @cached(key_prefix="any")
    def echo(*args: Any, **kwargs: Any) -> Any:
        return [args, kwargs]

    for _ in range(2):
        for args, kwargs in CALLS:
            assert echo(*args, **kwargs) == [args, kwargs]
    assert len({echo.cache_key(*args, **kwargs) for args, kwargs in CALLS}) == len(CALLS)


async def test_the_awaited_twin_tells_them_apart_too() -> None:
    @cached(key_prefix="awaited")
    async def echo(first: Any, *rest: Any) -> Any:
        return [first, *rest]

    assert await echo(1, 2, 3) == [1, 2, 3]
    assert await echo(1, (2, 3)) == [1, (2, 3)]
    assert await echo((1, 2, 3)) == [(1, 2, 3)]


def test_the_order_of_keywords_makes_no_difference() -> None:
    @cached(key_prefix="any")
    def echo(**kwargs: Any) -> list[str]:
        return list(kwargs)

    assert echo(a=1, b=2) == echo(b=2, a=1) == ["a", "b"]
