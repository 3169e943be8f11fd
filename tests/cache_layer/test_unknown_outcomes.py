"""Calls of which nobody knows what they did, and transactions that end otherwise than usual."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from billiard.exceptions import SoftTimeLimitExceeded
from django.contrib.auth import get_user_model
from django.db import connection, transaction

from cache_layer import cache_invalidate, cached
from tests.processes import ROOT

pytestmark = pytest.mark.usefixtures("store")

Number = dict[str, int]


@pytest.fixture
def number() -> Number:
    """Something that a function changes, and what a cached function says of it."""
    return {"is": 0}


def reader(number: Number) -> Callable[[], int]:
    @cached(key_prefix="unknown")
    def read() -> int:
        return number["is"]

    return read


def changing(number: Number, then: Callable[[], object]) -> Callable[[], None]:
    @cache_invalidate("unknown:read:*")
    def change() -> None:
        number["is"] += 1
        then()

    return change


def raises(error: BaseException) -> Callable[[], object]:
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(), GeneratorExit(), SoftTimeLimitExceeded()], ids=repr
)
def test_an_interrupted_call_invalidates(number: Number, error: BaseException) -> None:
    read = reader(number)
    assert read() == 0
    with pytest.raises(type(error)):
        changing(number, raises(error))()
    assert read() == 1


def test_an_interrupted_call_invalidates_what_its_arguments_were_before_it(number: Number) -> None:
    @cached(key_prefix="unknown")
    def read(names: list[str]) -> int:
        return number["is"]

    @cache_invalidate("unknown:read:{names}")
    def change(names: list[str]) -> None:
        number["is"] += 1
        names.clear()
        raise KeyboardInterrupt

    assert read(["a"]) == 0
    with pytest.raises(KeyboardInterrupt):
        change(["a"])
    assert read(["a"]) == 1


def test_an_exception_of_the_function_does_not_invalidate(number: Number) -> None:
    read = reader(number)
    read()
    with pytest.raises(LookupError):
        changing(number, raises(LookupError()))()
    assert read() == 0


def test_an_exception_that_was_caused_by_an_interruption_invalidates(number: Number) -> None:
    read = reader(number)
    assert read() == 0
    told, caught = RuntimeError("gave up"), RuntimeError("could not clean up")
    told.__cause__ = KeyboardInterrupt()
    caught.__context__ = KeyboardInterrupt()
    for count, error in enumerate((told, caught), 1):
        with pytest.raises(RuntimeError):
            changing(number, raises(error))()
        assert read() == count


async def test_a_time_limit_within_the_call_invalidates(number: Number) -> None:
    read = reader(number)
    read()

    @cache_invalidate("unknown:read:*")
    async def change() -> None:
        number["is"] += 1
        await asyncio.wait_for(asyncio.Event().wait(), 0.01)

    with pytest.raises(TimeoutError):
        await change()
    assert read() == 1


async def test_a_failing_sibling_within_the_call_invalidates(number: Number) -> None:
    read = reader(number)
    read()

    async def fail() -> None:
        raise LookupError

    @cache_invalidate("unknown:read:*")
    async def change() -> None:
        number["is"] += 1
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.Event().wait())
            group.create_task(fail())

    with pytest.raises(ExceptionGroup):
        await change()
    assert read() == 1


@pytest.mark.usefixtures("default_timeouts")
async def test_a_cancelled_call_invalidates_what_its_thread_commits_later(number: Number) -> None:
    read = reader(number)
    began, go_on = threading.Event(), threading.Event()

    def write() -> None:
        began.set()
        go_on.wait(30)
        number["is"] += 1

    @cache_invalidate("unknown:read:*")
    async def change() -> None:
        await sync_to_async(write)()

    read()
    task = asyncio.create_task(change())
    await asyncio.to_thread(began.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # It has not committed: this is what the next commit makes stale.
    assert read() == 0
    go_on.set()
    while number["is"] == 0 or read() == 0:
        await asyncio.sleep(0.01)


async def test_calls_cancelled_at_any_moment_leave_nothing_stale(number: Number) -> None:
    read = reader(number)

    @cache_invalidate("unknown:read:*")
    async def change() -> None:
        await asyncio.sleep(0)
        number["is"] += 1

    cancelled = 0
    for _ in range(150):
        read()
        task = asyncio.create_task(change())
        for _turn in range(random.randrange(8)):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            cancelled += 1
        assert read() == number["is"]
    assert cancelled


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("awaited", [False, True])
def test_what_was_read_in_a_transaction_does_not_outlive_its_rollback(awaited: bool) -> None:
    users = get_user_model().objects
    name = uuid.uuid4().hex

    @cached(key_prefix="rollback")
    def exists() -> bool:
        return users.filter(username=name).exists()

    @cache_invalidate("rollback:exists:*")
    def create() -> None:
        users.create_user(username=name)

    @cache_invalidate("rollback:exists:*")
    async def acreate() -> None:
        await users.acreate(username=name)

    with transaction.atomic():
        if awaited:
            async_to_sync(acreate)()
        else:
            create()
        assert exists()
        transaction.set_rollback(True)
    assert not exists()

    with transaction.atomic():
        with transaction.atomic():
            create()
            exists.invalidate()
            assert exists()
            transaction.set_rollback(True)
        assert not exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("end", ["commit", "rollback", "close", "atomic"])
def test_invalidation_waits_for_who_commits_by_hand(number: Number, end: str) -> None:
    read = reader(number)
    change = changing(number, lambda: None)
    transaction.set_autocommit(False)
    try:
        for count in range(2):
            assert read() == count
            get_user_model().objects.exists()
            if end == "atomic":
                with transaction.atomic():
                    change()
            else:
                change()
            assert read() == count, "not before the end"
            getattr(connection, "commit" if end == "atomic" else end)()
            if end == "close":
                connection.ensure_connection()
                transaction.set_autocommit(False)
            assert read() == count + 1
    finally:
        connection.rollback()
        transaction.set_autocommit(True)


TWO_DATABASES = """
import django
from django.conf import settings

sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
settings.configure(
    SECRET_KEY="x",
    DATABASES={"default": sqlite, "other": {**sqlite}},
    CACHES={"default": {"BACKEND": "cache_layer.backends.ResilientCache"}},
    INSTALLED_APPS=["cache_layer"],
)
django.setup()

from django.db import connections, transaction
from cache_layer import cache_invalidate, cached

written = [0]

@cached(key_prefix="two")
def read():
    return written[0]

@cache_invalidate("two:read:*")
def write():
    written[0] += 1

for alias in connections:
    connections[alias].ensure_connection()
print(read())
with transaction.atomic(using="other"):
    write()
    print(read())
    transaction.set_rollback(True, using="other")
print(read())
"""


def test_a_transaction_of_another_database_does_not_hold_an_invalidation_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWO_DATABASES], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["0", "1", "1"]
