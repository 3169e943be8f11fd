"""Connections that are lost, met in the way, or would be left open."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.signals import request_finished, request_started
from django.db import connection, connections, transaction

from agent_sessions import (
    AppendOutcomeUnknown,
    ChangeOutcomeUnknown,
    Session,
    SessionRepository,
    SyncSessionRepository,
)
from agent_sessions.models import Message
from agent_sessions.signals import message_added
from tests.agent_sessions.data import say
from tests.agent_sessions.test_repository import public
from tests.threads import at_once

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def lose() -> Iterator[Callable[[], None]]:
    """Let PostgreSQL end the connection of the test: nobody has been told yet."""
    other = connection.copy()

    def lose() -> None:
        connection.ensure_connection()
        with other.cursor() as cursor:
            pid = connection.connection.info.backend_pid
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

    yield lose
    other.close()


def run_in_thread(work: Callable[[], Any]) -> None:
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join(60)
    assert errors == []


class TestLostConnection:
    def test_is_replaced_for_what_can_be_repeated(self, repository, session, user, lose):
        keyed = say(idempotency_key="k")
        messages = (each for each in [say("1"), say("2")])
        made = Session(user=user, agent_id="a")
        operations: dict[str, tuple[Any, ...]] = {
            "get": (session.id,),
            "get_user_sessions": (user.pk,),
            "get_session_with_messages": (session.id,),
            "get_messages": (session.id,),
            "get_session_stats": (user.pk,),
            "get_paginated_user_sessions": (user.pk, 1, 10),
            "add_message_to_session": (session.id, keyed),
            "add_messages": (session.id, messages, user.pk, "all"),
            "get_changes": (session.id,),
            "update_message": (session.id, "k", say("new")),
            "delete_message": (session.id, "k"),
            "clear_messages": (session.id,),
            "update_session_context": (session.id, {"a": 1}),
            "update_session": (session.id, {"title": "x"}),
            "bulk_update_session_status": ([session.id], "paused"),
            "search_sessions": (user.pk, "hello"),
            "cleanup_expired_sessions": (),
            "purge_old_sessions": (1,),
            "verify_counters": (True,),
            "reencrypt": (),
            "find_undecryptable": (),
            "create": (made, [say()]),
            "delete": (session.id,),
            "delete_user_data": (user.pk,),
        }
        # What must not be done twice has a test of its own.
        others = {"for_user", "pop_message", "replace_tail"}
        assert operations.keys() == public(SyncSessionRepository).keys() - others
        for name, arguments in operations.items():
            lose()
            getattr(repository, name)(*arguments)
        assert Session.objects.count() == 0

    def test_names_the_unknown_outcome_of_an_append_and_is_not_met_again(
        self, repository, session, lose
    ):
        for append in (
            lambda: repository.add_message_to_session(session.id, say()),
            lambda: repository.add_messages(session.id, [say(idempotency_key="k"), say()]),
        ):
            lose()
            with pytest.raises(AppendOutcomeUnknown) as error:
                append()
            assert error.value.session_id == session.id
            append()
        assert repository.get(session.id).message_count == 3

    def test_names_the_unknown_outcome_of_taking_back(self, repository, session, lose):
        repository.add_messages(session.id, [say("1"), say("2"), say("3")])
        for take_back in (
            lambda: repository.pop_message(session.id),
            lambda: repository.replace_tail(session.id, 1, [say("new")]),
        ):
            lose()
            with pytest.raises(ChangeOutcomeUnknown) as error:
                take_back()
            assert error.value.session_id == session.id
            take_back()
        found = repository.get_messages(session.id)
        assert [message.content for message in found] == ["1", "new"]

    def test_that_the_driver_knows_of_is_replaced_before_an_append(self, repository, session):
        connection.ensure_connection()
        connection.connection.close()
        assert repository.add_message_to_session(session.id, say()).sequence == 1

    def test_is_not_replaced_inside_a_transaction(self, repository, session, lose):
        def twice() -> None:
            with transaction.atomic():
                repository.add_message_to_session(session.id, say())
                lose()
                repository.get(session.id)

        with pytest.raises(Exception, match=r"closed|terminat"):
            twice()
        connection.close()
        assert repository.get(session.id).message_count == 0

    def test_a_repeated_create_returns_the_session_that_was_stored(self, repository, user):
        made = Session(user=user, agent_id="a")
        repository.create(made, [say()])
        again = Session(id=made.id, user=user, agent_id="a", created_at=made.created_at)
        assert repository.create(again, [say()]) == made
        assert repository.get(made.id).message_count == 1


class TestOpenConnections:
    def test_of_threads_that_serve_no_request_are_closed(self, repository, session):
        def work() -> None:
            repository.add_message_to_session(session.id, say())
            assert connection.connection is None

        run_in_thread(work)

    def test_of_the_thread_itself_stay_open(self, repository, session):
        def work() -> None:
            connection.ensure_connection()
            repository.get(session.id)
            assert connection.connection is not None
            connection.close()

        run_in_thread(work)

    def test_of_requests_stay_open_until_these_end(self, repository, session):
        def work() -> None:
            request_started.send(sender=None)
            repository.get(session.id)
            opened = connection.connection
            repository.get(session.id)
            assert connection.connection is opened is not None
            request_finished.send(sender=None)
            assert connection.connection is None

        run_in_thread(work)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_contended_operations_are_tried_again(repository, session, level):
    def work(name: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {level}")
        for number in range(10):
            repository.add_message_to_session(session.id, say(f"{name} {number}"))
            repository.update_session_context(session.id, {f"{name}": number})

    at_once(work, range(4))
    numbers = Message.objects.in_order().values_list("sequence", flat=True)
    assert list(numbers) == list(range(1, 41))
    assert repository.get(session.id).context == {str(name): 9 for name in range(4)}


@pytest.mark.parametrize("what", ["user", "session", "sessions"])
def test_an_append_beside_a_deletion_does_not_stop_it(repository, session, user, what):
    repository.add_message_to_session(session.id, say())
    refused: list[BaseException] = []

    def append() -> None:
        try:
            repository.add_message_to_session(session.id, say())
        except Session.DoesNotExist as error:
            refused.append(error)

    thread = threading.Thread(target=append)

    def appending(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if sql.startswith('DELETE FROM "agent_sessions_message"'):
            thread.start()
            thread.join(1)
        return result

    with connection.execute_wrapper(appending):
        {"user": user, "session": session, "sessions": Session.objects.all()}[what].delete()
    thread.join(60)
    assert len(refused) == 1
    assert Message.objects.count() == Session.objects.count() == 0


def test_appends_and_reads_work_where_the_project_commits_by_hand(repository, session, user):
    heard = []

    def hear(**arguments: Any) -> None:
        heard.append(arguments)

    message_added.connect(hear)
    connections["default"].set_autocommit(False)
    try:
        for number in range(1, 4):
            keyed = say(idempotency_key=str(number))
            assert repository.add_message_to_session(session.id, keyed).sequence == number
        repository.update_session(session.id, {"title": "x"})
        repository.create(Session(user=user, agent_id="a"), [say()])
        connection.commit()
        repository.add_message_to_session(session.id, say())
        connection.rollback()
        assert connection.run_on_commit == []
    finally:
        connections["default"].set_autocommit(True)
        message_added.disconnect(hear)
    assert heard == []
    stored = repository.get(session.id)
    assert (stored.message_count, stored.title) == (3, "x")


def test_a_thread_commits_its_own_work_where_the_project_commits_by_hand(
    repository, session, monkeypatch
):
    def append() -> None:
        repository.add_message_to_session(session.id, say())

    def work() -> None:
        append()
        connection.ensure_connection()
        append()
        assert not connection.get_autocommit()
        # From here on a transaction of the thread's own is open.
        Session.objects.get()
        append()
        connection.rollback()
        connection.close()

    monkeypatch.setitem(connection.settings_dict, "AUTOCOMMIT", False)
    run_in_thread(work)
    assert repository.get(session.id).message_count == 2


@pytest.mark.parametrize("by_name", [False, True])
def test_a_cancelled_append_tells_that_its_outcome_is_unknown(session, by_name):
    async def scenario() -> None:
        add = SessionRepository().add_message_to_session
        adding = add(session_id=session.id, message=say()) if by_name else add(session.id, say())
        append = asyncio.ensure_future(adding)
        await asyncio.sleep(0.2)
        append.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await append
        assert isinstance(cancelled.value.__cause__, AppendOutcomeUnknown)
        assert str(session.id) in str(cancelled.value.__cause__)
        reading = asyncio.ensure_future(SessionRepository().get(session.id))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await reading
        assert cancelled.value.__cause__ is None

    other = connection.copy()
    other.inc_thread_sharing()
    with other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT FROM agent_sessions_session FOR UPDATE")
        # The thread of the append waits for the lock until this ends.
        timer = threading.Timer(1, cursor.execute, ["COMMIT"])
        timer.start()
        async_to_sync(scenario)()
        timer.join()
    other.close()
