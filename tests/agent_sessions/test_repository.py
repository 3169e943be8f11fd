from __future__ import annotations

import inspect
import uuid
from datetime import UTC
from typing import Any

import pytest
from django.db import transaction

from agent_sessions import (
    SessionRepository,
    SyncSessionRepository,
)
from agent_sessions.models import Session, SessionStatus
from agent_sessions.repository import SyncUserSessionRepository, UserSessionRepository
from tests.agent_sessions.data import say

pytestmark = pytest.mark.django_db


def public(cls: type) -> dict[str, Any]:
    return {
        name: method
        for name, method in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


@pytest.mark.parametrize(
    ("sync_class", "awaited_class"),
    [
        (SyncSessionRepository, SessionRepository),
        (SyncUserSessionRepository, UserSessionRepository),
    ],
)
def test_the_synchronous_and_the_awaited_repository_are_equal(sync_class, awaited_class):
    sync, awaited = public(sync_class), public(awaited_class)
    assert sync.keys() == awaited.keys()
    for name, method in sync.items():
        assert method.__doc__
        assert not method.__doc__.startswith("See ")
        if name == "for_user":
            continue
        assert inspect.iscoroutinefunction(awaited[name])
        assert inspect.signature(awaited[name]) == inspect.signature(method)
        assert inspect.getdoc(awaited[name]) == inspect.getdoc(method)


class TestAwaited:
    async def test_the_seed_in_order(self, user):
        repository = SessionRepository()
        session = await repository.create(
            Session(
                user_id=user.pk,
                agent_id="code_agent",
                title="Debug Python Script",
                status=SessionStatus.ACTIVE,
            )
        )
        message = await repository.add_message_to_session(
            session_id=session.id, message={"role": "user", "content": "Help me debug this code"}
        )
        assert message.sequence == 1
        (added,) = await repository.add_messages(session.id, [say("again")])
        assert [m.pk for m in await repository.get_messages(session.id)] == [message.pk, added.pk]
        assert await repository.get_user_sessions(user.pk, active_only=True) == [session]
        loaded = await repository.get_session_with_messages(session.id)
        assert len(loaded.messages) == 2
        assert [m.content for m in loaded.messages] == ["Help me debug this code", "again"]
        changed = await repository.update_session_context(
            session_id=session.id, context={"language": "python"}
        )
        assert changed.context == {"language": "python"}
        stats = await repository.get_session_stats(user.pk)
        assert (stats.total_messages, f"{stats.avg_messages_per_session:.1f}") == (2, "2.0")
        page = await repository.get_paginated_user_sessions(user_id=user.pk, page=1, page_size=10)
        assert (page.page, page.total_pages) == (1, 1)
        assert await repository.search_sessions(user.pk, "python") == [session]
        assert (await repository.update_session(session.id, {"title": "x"})).title == "x"
        assert (
            await repository.bulk_update_session_status(
                session_ids=[session.id], status=SessionStatus.COMPLETED
            )
            == 1
        )
        assert await repository.cleanup_expired_sessions() == 0
        assert await repository.purge_old_sessions(days=1) == 0
        assert (await repository.get(session.id)).status == SessionStatus.COMPLETED
        await repository.delete(session.id)
        assert (await repository.delete_user_data(user.pk)).sessions == 0

    async def test_errors_arrive_at_who_awaits(self, user):
        with pytest.raises(Session.DoesNotExist):
            await SessionRepository().get(uuid.uuid4())

    def test_sync_is_reachable(self, user):
        repository = SessionRepository("default")
        assert isinstance(repository.sync, SyncSessionRepository)
        assert repository.using == repository.sync.using == "default"


def test_stands_inside_a_transaction(repository, session):
    with transaction.atomic():
        repository.add_message_to_session(session.id, say())
        repository.update_session_context(session.id, {"a": 1})
        repository.bulk_update_session_status([session.id], "failed")
        transaction.set_rollback(True)
    stored = repository.get(session.id)
    assert (stored.message_count, stored.context, stored.status) == (0, {}, "active")


def test_moments_are_aware(session):
    assert session.created_at.tzinfo is UTC
