"""The Celery app, and tasks that do one thing again and again until their time is up."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from billiard.exceptions import SoftTimeLimitExceeded
from celery import Celery
from celery.signals import worker_init

app = Celery("prefork")
app.config_from_object("django.conf:settings", namespace="CELERY")


P = ParamSpec("P")
R = TypeVar("R")


def unless_early(task: Callable[P, R]) -> Callable[P, R | None]:
    """Make the task return None where its time was up before it began with its steps."""

    @wraps(task)
    def run(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return task(*args, **kwargs)
        except SoftTimeLimitExceeded:
            return None

    return run


@worker_init.connect
def use_everything_before_the_fork(**kwargs: object) -> None:
    from django.core.cache import cache

    from agent_sessions.repository import SyncSessionRepository
    from cache_layer import cached

    # Loads the module, which a task has no time for.
    assert cached
    cache.set("before the fork", os.getpid(), None)
    assert cache.get("before the fork") == os.getpid()
    assert SyncSessionRepository().cleanup_expired_sessions() == 0


def until_time_is_up(step: Callable[[], object]) -> int:
    """Call *step* until the soft time limit; return how many calls have returned."""
    done = 0
    try:
        while True:
            step()
            done += 1
    except SoftTimeLimitExceeded:
        return done


def connections() -> tuple[int, int, int]:
    """The process, its connection to PostgreSQL and its connection to Redis."""
    from django.core.cache import cache
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (backend,) = cursor.fetchone()
    client: Any = cache.client.get_client()  # type: ignore[attr-defined]
    return os.getpid(), backend, client.client_id()


@app.task
@unless_early
def use_the_cache(pairs: int) -> tuple[int, int, int]:
    """Write and read; afterwards each key has its own value."""
    from django.core.cache import cache

    token = uuid.uuid4().hex
    values = {f"{token}:{n}": [token, n, "x" * n * 1000, {"deep": [n] * n}] for n in range(pairs)}

    def step() -> None:
        for key, value in values.items():
            cache.set(key, value)
            assert cache.get(key) == value

    until_time_is_up(step)
    for key, value in values.items():
        cache.set(key, value)
    assert cache.get_many(values) == values
    return connections()


@app.task
@unless_early
def call_a_cached_function() -> tuple[int, int, int]:
    """Compute, find and forget; afterwards the result is that of the argument."""
    from cache_layer import cached

    @cached(ttl=60, key_prefix=uuid.uuid4().hex, lock=True, tags=["numbers"])
    def double(number: int) -> list[int]:
        return [number, number * 2]

    def step() -> None:
        for number in range(20):
            assert double(number) == [number, number * 2]
            double.invalidate(number)

    until_time_is_up(step)
    for number in range(20):
        assert double(number) == [number, number * 2]
    return connections()


@app.task
@unless_early
def append(session_id: str, user_id: int) -> tuple[int, tuple[int, int, int]]:
    """Append; return how many appends have returned."""
    from agent_sessions.repository import SyncSessionRepository

    mine = SyncSessionRepository().for_user(user_id)
    message = {"role": "user", "content": "x" * 500}
    done = until_time_is_up(lambda: mine.add_message_to_session(session_id, message))
    found = mine.get_messages(session_id, limit=None)
    assert [each.sequence for each in found] == list(range(1, len(found) + 1))
    assert done <= len(found) <= done + 1, (done, len(found))
    mine.add_message_to_session(session_id, {"role": "user", "content": "afterwards"})
    return done, connections()
