"""What the repository returns can be kept by ``@cached``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.core.cache import cache

from agent_sessions.models import Session
from agent_sessions.repository import SessionRepository, SyncSessionRepository
from cache_layer import cached

pytestmark = pytest.mark.django_db


@pytest.fixture
def user() -> Any:
    made = get_user_model().objects.create(username="owner")
    session = Session(user=made, agent_id="a", title="Zebras")
    repository = SyncSessionRepository()
    key = repository.create(session).pk
    repository.add_message_to_session(key, {"role": "user", "content": "A zebra has stripes."})
    cache.clear()
    yield made
    cache.clear()


@pytest.mark.parametrize(
    ("call", "read"),
    [
        (lambda repository, user: repository.get_session_stats(user.pk), lambda stats: stats),
        (
            lambda repository, user: repository.get_paginated_user_sessions(user.pk, 1, 10),
            lambda page: page,
        ),
        (
            lambda repository, user: repository.search_sessions(user.pk, "zebra", excerpts=1),
            lambda found: [(session, session.excerpts) for session in found],
        ),
    ],
    ids=["statistics", "page", "search"],
)
def test_a_result_is_computed_once(
    user: Any, call: Callable[..., Any], read: Callable[[Any], Any], request: Any
) -> None:
    calls = []

    @cached(ttl=60, key_prefix=f"sync-{request.node.callspec.id}")
    def load(number: int) -> Any:
        calls.append(number)
        return call(SyncSessionRepository(), user)

    @cached(ttl=60, key_prefix=f"awaited-{request.node.callspec.id}")
    async def aload(number: int) -> Any:
        calls.append(number)
        return await call(SessionRepository(), user)

    for function in (load, async_to_sync(aload)):
        calls.clear()
        first, second = function(1), function(1)
        assert calls == [1]
        assert type(second) is type(first)
        assert read(second) == read(first)
