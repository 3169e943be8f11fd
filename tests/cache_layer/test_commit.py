"""Awaited invalidations and the transactions of threads."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from django.db import connections, transaction

from cache_layer import ainvalidate_tags, cache_invalidate, cached

pytestmark = pytest.mark.usefixtures("store")


@cached(key_prefix="commit", tags=["a tag"])
async def value() -> str:
    return uuid.uuid4().hex


@cache_invalidate(tags=["a tag"])
async def change() -> None: ...


async def forget_tag() -> None:
    await ainvalidate_tags("a tag")


WAYS: dict[str, Callable[[], Any]] = {
    "ainvalidate_tags": forget_tag,
    "invalidate": value.invalidate,
    "invalidate_all": value.invalidate_all,
    "cache_invalidate": change,
}


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def forget(request: pytest.FixtureRequest) -> Callable[[], Any]:
    return request.param  # type: ignore[no-any-return]


def test_it_does_not_wait_for_the_thread_of_the_database(forget: Callable[[], Any]) -> None:
    go_on = threading.Event()

    async def story() -> None:
        async with ThreadSensitiveContext():
            known = await value()
            busy = asyncio.ensure_future(sync_to_async(go_on.wait)())
            await asyncio.sleep(0)
            try:
                await asyncio.wait_for(forget(), 30)
                assert await value() != known
            finally:
                go_on.set()
                await busy

    asyncio.run(story())


@pytest.mark.django_db(transaction=True)
def test_a_transaction_of_the_calling_thread(forget: Callable[[], Any]) -> None:
    read = async_to_sync(value)
    known = read()
    with transaction.atomic():
        async_to_sync(forget)()
        # Now or not yet: what is read before the commit is of before it.
        kept = read()
        assert forget is not change or kept == known
    assert read() not in (known, kept)
    known = read()
    async_to_sync(forget)()
    assert read() != known


@pytest.mark.django_db(transaction=True)
def test_a_transaction_of_the_thread_of_the_database(forget: Callable[[], Any]) -> None:
    async def story() -> None:
        async with ThreadSensitiveContext():
            block = transaction.atomic()
            await sync_to_async(block.__enter__)()
            try:
                await forget()
                known = await value()
            finally:
                await sync_to_async(block.__exit__)(None, None, None)
            assert await value() != known
            await sync_to_async(connections.close_all)()

    asyncio.run(story())
