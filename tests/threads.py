"""Threads that use the database at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connections

Item = TypeVar("Item")
Result = TypeVar("Result")


def at_once(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Call a function with each item in a thread of its own; return the results in order.

    All begin together. Raises the first error once all have ended.
    """
    items = [*items]
    barrier = threading.Barrier(len(items))

    def alone(item: Item) -> Result:
        try:
            barrier.wait(30)
            return work(item)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(items)) as pool:
        return [*pool.map(alone, items)]
