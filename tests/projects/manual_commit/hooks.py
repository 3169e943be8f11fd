"""Commits what a step did, as such a project does at the end of each request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.core.management import call_command
from django.db import connection, transaction
from django.utils import timezone


def prepare() -> None:
    transaction.set_autocommit(True)
    call_command("migrate", verbosity=0)
    transaction.set_autocommit(False)


@contextmanager
def around(name: str) -> Iterator[None]:
    yield
    if not transaction.get_autocommit():
        transaction.commit()


def after(tour: Any) -> None:
    """Look that nothing is lost that has no caller to commit it."""
    from agent_sessions import Session, SessionRepository, SyncSessionRepository
    from agent_sessions.models import Message
    from agent_sessions.tasks import cleanup_expired_sessions

    repository = SyncSessionRepository().for_user(tour.owner)
    key = repository.create(Session(agent_id="a")).pk
    transaction.commit()

    def stored() -> list[str]:
        transaction.rollback()
        return list(Message.objects.order_by("sequence").values_list("content", flat=True))

    def say(content: str) -> dict[str, str]:
        return {"role": "user", "content": content}

    async def talk() -> None:
        mine = SessionRepository().for_user(tour.owner)
        await mine.add_message_to_session(key, say("awaited"))
        await mine.add_messages(key, [say("awaited"), say("again")])
        assert len((await mine.get_session_with_messages(key)).messages) == 3

    asyncio.run(talk())
    expected = ["awaited", "awaited", "again"]
    assert stored() == expected

    thread = threading.Thread(target=repository.add_message_to_session, args=[key, say("thread")])
    thread.start()
    thread.join()
    expected.append("thread")
    assert stored() == expected

    # What has a caller is the caller's, in a thread, too, once a transaction has begun.
    repository.add_message_to_session(key, say("taken back"))
    assert stored() == expected

    def change_its_mind() -> None:
        list(Message.objects.all())
        repository.add_message_to_session(key, say("taken back"))
        connection.close()

    thread = threading.Thread(target=change_its_mind)
    thread.start()
    thread.join()
    assert stored() == expected

    for complete in (cleanup_expired_sessions, lambda: call_command("cleanup_expired_sessions")):
        Session.objects.update(status="active", expires_at=timezone.now() - timedelta(hours=1))
        transaction.commit()
        complete()
        transaction.rollback()
        assert Session.objects.get().status == "completed"
    print("ok commits")
