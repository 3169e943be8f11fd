"""The ways to PostgreSQL that docs/connections.md recommends."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from agent_sessions import Session, SyncSessionRepository
from agent_sessions.models import Message
from tests import services
from tests.threads import at_once

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

Connect = Callable[..., None]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Reach the database of the test in another way until the test ends."""
    # Each thread's connection takes its settings from here.
    known: dict[str, Any] = connections.settings["default"]
    before = {**known}

    def change(**changes: Any) -> None:
        connection.close()
        known.update({**changes, "OPTIONS": {**before["OPTIONS"], **changes.get("OPTIONS", {})}})

    yield change
    connection.close()
    if connection.pool:
        connection.close_pool()
    known.clear()
    known.update(before)


@pytest.fixture
def bouncer() -> Iterator[services.PgBouncer]:
    if shutil.which("pgbouncer") is None:
        services.missing("pgbouncer", "install the program pgbouncer")
    known = connection.settings_dict
    started = services.PgBouncer(known["HOST"], known["PORT"], known["USER"], known["PASSWORD"])
    yield started
    started.close()


def say(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def every_operation(repository: SyncSessionRepository, user: Any) -> None:
    past = timezone.now() - timedelta(hours=1)
    session = repository.create(Session(user_id=user.pk, agent_id="a"), [say("one")])
    expired = repository.create(Session(user_id=user.pk, agent_id="a", expires_at=past))
    keyed = say("two \x00", idempotency_key="k")
    for _time in range(2):
        repository.add_message_to_session(session.pk, keyed, user_id=user.pk)
    with transaction.atomic():
        repository.add_messages(session.pk, [say(str(n)) for n in range(20)])
        repository.update_session_context(session.pk, {"a": 1})
    loaded = repository.get_session_with_messages(session.pk)
    assert [m.sequence for m in loaded.messages] == list(range(1, 23))
    assert loaded.context == {"a": 1}
    assert repository.cleanup_expired_sessions() == 1
    assert repository.get(expired.pk).status == "completed"
    assert repository.bulk_update_session_status([expired.pk, session.pk], "paused") == 2
    assert repository.search_sessions(user.pk, "two") == [session]
    assert repository.get_session_stats(user.pk).total_messages == 22
    assert repository.get_paginated_user_sessions(user.pk, 1, 10).total_items == 2
    assert repository.verify_counters() == []
    assert repository.delete_user_data(user.pk).messages == 22


def append_from_threads(session: Session, threads: int, each: int) -> None:
    repository = SyncSessionRepository()

    def work(name: int) -> None:
        for number in range(each):
            message = say(f"{name} {number}", idempotency_key=f"{name % 2} {number}")
            message["content"] = str(number)
            repository.add_message_to_session(session.pk, message)
            repository.add_message_to_session(session.pk, say("free"))

    at_once(work, range(threads))
    numbers = list(
        Message.objects.for_session(session).in_order().values_list("sequence", flat=True)
    )
    # Two sets of keys, each sent by half of the threads, and the messages without a key.
    assert numbers == list(range(1, 2 * each + threads * each + 1))


class TestPgBouncerInTransactionMode:
    @pytest.fixture
    def alias(self, connect: Connect, bouncer: services.PgBouncer) -> str:
        return connect(HOST="127.0.0.1", PORT=str(bouncer.port), DISABLE_SERVER_SIDE_CURSORS=True)

    def test_every_operation_works_through_the_pooler(self, repository, user):
        every_operation(repository, user)

    def test_more_writers_than_connections(self, session):
        append_from_threads(session, threads=8, each=10)


class TestPool:
    def test_more_writers_than_connections(self, connect, repository, session, user):
        connect(OPTIONS={"pool": {"min_size": 1, "max_size": 2, "timeout": 60}})
        append_from_threads(session, threads=8, each=10)
        repository.delete(session.pk)
        every_operation(repository, user)


@pytest.mark.parametrize(
    "options", [{"server_side_binding": True}, {"prepare_threshold": 0}], ids=str
)
def test_other_ways_to_send_statements(connect, repository, user, options):
    connect(OPTIONS=options)
    every_operation(repository, user)


def test_a_lost_connection_is_replaced(connect, repository, session):
    connect(CONN_HEALTH_CHECKS=True, CONN_MAX_AGE=None)
    repository.add_message_to_session(session.pk, say("one"))
    other = connection.copy()
    with other.cursor() as cursor:
        pid = connection.connection.info.backend_pid
        cursor.execute("SELECT pg_terminate_backend(%s)", [pid])
    other.close()
    # What Django does before each request.
    connection.health_check_done = False
    connection.close_if_unusable_or_obsolete()
    assert repository.add_message_to_session(session.pk, say("two")).sequence == 2


def test_wrappers_see_the_statement(repository, session):
    seen: list[str] = []

    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql)
        return execute(sql, params, many, context)

    with CaptureQueriesContext(connection) as captured, connection.execute_wrapper(wrapper):
        repository.add_message_to_session(session.pk, say("one"))
    assert len(captured) == len(seen) == 1
    assert "agent_sessions_append" in seen[0]
