from __future__ import annotations

import logging
import uuid
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from agent_sessions import IdempotencyConflict, SessionArchived
from agent_sessions.models import Message, Session
from agent_sessions.repository import postgresql
from agent_sessions.signals import message_added
from tests.agent_sessions.data import say

pytestmark = pytest.mark.django_db


def test_returns_the_stored_message(repository, session):
    message = repository.add_message_to_session(
        session.id, say("Hello!", metadata={"source": "web"})
    )
    assert (message.sequence, message.role, message.content) == (1, "user", "Hello!")
    assert message.metadata == {"source": "web"}
    assert message == Message.objects.get()
    assert Message.objects.get().as_dict() == say("Hello!", metadata={"source": "web"})
    assert Message.objects.get().user_id == session.user_id


def test_takes_the_id_as_text(repository, session):
    assert repository.add_message_to_session(str(session.id), say()).session_id == session.id


def test_a_missing_session(repository, db):
    with pytest.raises(Session.DoesNotExist):
        repository.add_message_to_session(uuid.uuid4(), say())
    with pytest.raises(Session.DoesNotExist):
        repository.add_messages(uuid.uuid4(), [])
    with pytest.raises(ValidationError):
        repository.add_message_to_session("no uuid", say())


def test_keys_of_messages_cannot_take_the_place_of_a_call(repository, session):
    for number in range(1, 3):
        repository.add_message_to_session(session.id, say(idempotency_key=f"q→{number}"))
    added = repository.add_messages(session.id, [say("a"), say("b")], idempotency_key="q")
    assert [message.sequence for message in added] == [3, 4]
    assert repository.add_messages(session.id, [say("a"), say("b")], idempotency_key="q") == added
    (second,) = [message.idempotency_key for message in added[1:]]
    with pytest.raises(ValidationError, match="printable"):
        repository.add_message_to_session(session.id, say(idempotency_key=second))


class TestLimit:
    def test_warns_and_still_adds(self, repository, session, settings, caplog):
        settings.AGENT_SESSIONS_MAX_MESSAGES = 2
        repository.add_messages(session.id, [say(), say()])
        assert caplog.records == []
        repository.add_message_to_session(session.id, say())
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert str(session.id) in record.getMessage()
        assert "3 messages" in record.getMessage()
        assert "limit of 2" in record.getMessage()
        assert repository.get(session.id).message_count == 3

    def test_warns_again_when_the_messages_have_doubled(
        self, repository, session, settings, caplog
    ):
        settings.AGENT_SESSIONS_MAX_MESSAGES = 2
        for _number in range(10):
            repository.add_message_to_session(session.id, say())
        repository.add_messages(session.id, [say()] * 10)
        warned = [record.getMessage().split(" has ")[1][:2] for record in caplog.records]
        assert warned == ["3 ", "5 ", "9 ", "20"]

    def test_without_a_limit_nothing_is_logged(self, repository, session, settings, caplog):
        settings.AGENT_SESSIONS_MAX_MESSAGES = None
        repository.add_messages(session.id, [say()] * 101)
        assert caplog.records == []


BAD = [
    ("not a mapping", "message"),
    (None, "message"),
    ([("role", "user")], "message"),
    ({"content": "x"}, "role"),
    ({"role": "robot", "content": "x"}, "role"),
    ({"role": 1, "content": "x"}, "role"),
    ({"role": ["user"], "content": "x"}, "role"),
    ({"role": None, "content": "x"}, "role"),
    ({"role": "user"}, "content"),
    ({"role": "user", "content": None}, "content"),
    ({"role": "user", "content": None, "name": "x"}, "content"),
    ({"role": "assistant", "content": None, "tool_calls": None}, "content"),
    ({"role": "user", "content": 5}, "content"),
    ({"role": "user", "content": {"type": "text"}}, "content"),
    ({"role": "user", "content": b"x"}, "content"),
    ({"role": "user", "content": ["ok", 5]}, "content"),
    ({"role": "user", "content": [{"x": {1, 2}}]}, "content"),
    ({"role": "user", "content": "x", "metadata": [1]}, "metadata"),
    ({"role": "user", "content": "x", "metadata": {"a": object()}}, "metadata"),
    ({"role": "user", "content": "x", "metadata": {1: "a"}}, "metadata"),
    ({"role": "user", "content": "x", "metadata": {"a": float("nan")}}, "metadata"),
    ({"role": "user", "content": "x", "score": float("inf")}, "score"),
    ({"role": "user", "content": "x", "when": timezone.now()}, "when"),
    ({"role": "user", "content": "x", "n": 10**5000}, "n"),
    ({"role": "user", "content": "x", 5: "y"}, "message"),
    ({"role": "user", "content": "x", "idempotency_key": ""}, "idempotency_key"),
    ({"role": "user", "content": "x", "idempotency_key": "k" * 256}, "idempotency_key"),
    ({"role": "user", "content": "x", "idempotency_key": "a\x00"}, "idempotency_key"),
    ({"role": "user", "content": "x", "idempotency_key": 5}, "idempotency_key"),
]


@pytest.mark.parametrize(("message", "field"), BAD, ids=range(len(BAD)))
def test_a_bad_message_names_its_field_and_writes_nothing(repository, session, message, field):
    with pytest.raises(ValidationError) as error:
        repository.add_message_to_session(session.id, message)
    assert set(error.value.message_dict) == {field}
    with pytest.raises(ValidationError) as error:
        repository.add_messages(session.id, [say(), message])
    assert set(error.value.message_dict) == {f"1.{field}"}
    assert Message.objects.count() == 0
    stored = repository.get(session.id)
    assert (stored.message_count, stored.last_sequence) == (0, 0)


def test_a_message_above_the_size_limit_is_refused(repository, session, settings):
    settings.AGENT_SESSIONS_MAX_MESSAGE_BYTES = 1_000
    repository.add_message_to_session(session.id, say("x" * 900))
    long_key = {"k" * 1_000: 1}
    for message in (
        say("x" * 1_000),
        say("é" * 600),
        say("x", extra="y" * 1_000),
        say("x", extra=[1] * 500),
        say("x", metadata=long_key),
        say("x", **long_key),
        say("x", **{"é" * 600: 1}),
    ):
        with pytest.raises(ValidationError) as error:
            repository.add_message_to_session(session.id, message)
        assert "1000 are allowed" in str(error.value)
    settings.AGENT_SESSIONS_MAX_MESSAGE_BYTES = 38_000
    with pytest.raises(ValidationError, match="38000 are allowed"):
        repository.add_message_to_session(session.id, say("x", numbers=[10**3_998] * 10))


@pytest.mark.postgres
def test_more_than_postgresql_takes_in_one_call_is_refused(repository, session, monkeypatch):
    monkeypatch.setattr(postgresql, "LARGEST_CALL", 1_000)
    with pytest.raises(ValidationError) as error:
        repository.add_messages(session.id, [say("é" * 300), say("é" * 300)])
    assert "1000 bytes" in str(error.value)
    repository.add_messages(session.id, [say("é" * 300), say("e" * 300)])
    assert [message.sequence for message in repository.get_messages(session.id)] == [1, 2]


def test_circular_structures_are_refused(repository, session):
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ValidationError):
        repository.add_message_to_session(session.id, say([{"x": circle}]))


def test_a_role_of_the_project_is_accepted(repository, session, settings):
    settings.AGENT_SESSIONS_EXTRA_ROLES = ["function_call_output"]
    message = {"role": "function_call_output", "content": "4"}
    assert repository.add_message_to_session(session.id, message).role == "function_call_output"


class TestIdempotency:
    def test_a_retry_returns_the_first(self, repository, session):
        first = repository.add_message_to_session(session.id, say(idempotency_key="k1"))
        again = repository.add_message_to_session(session.id, say(idempotency_key="k1"))
        assert again.pk == first.pk
        assert again.as_dict() == say()
        stored = repository.get(session.id)
        assert (stored.message_count, stored.last_sequence) == (1, 1)

    def test_works_inside_a_transaction(self, repository, session):
        with transaction.atomic():
            repository.add_message_to_session(session.id, say(idempotency_key="k1"))
            repository.add_message_to_session(session.id, say(idempotency_key="k1"))
            repository.add_message_to_session(session.id, say())
        assert [m.sequence for m in repository.get_messages(session.id)] == [1, 2]

    def test_the_longest_key_is_a_key(self, repository, session):
        longest = say(idempotency_key="k" * 255)
        first = repository.add_message_to_session(session.id, longest)
        assert repository.add_message_to_session(session.id, longest) == first

    def test_is_per_session(self, repository, make_session):
        for session in (make_session(), make_session()):
            repository.add_message_to_session(session.id, say(idempotency_key="k1"))
        assert Message.objects.count() == 2

    def test_other_contents_conflict(self, repository, session):
        repository.add_message_to_session(session.id, say(idempotency_key="k1"))
        with pytest.raises(IdempotencyConflict) as error:
            repository.add_message_to_session(session.id, say("other", idempotency_key="k1"))
        assert error.value.key == "k1"
        with pytest.raises(IdempotencyConflict):
            repository.add_messages(
                session.id, [say(idempotency_key="k2"), say("x", idempotency_key="k2")]
            )
        assert Message.objects.count() == 1

    def test_a_batch_adds_what_is_new(self, repository, session):
        first = repository.add_messages(
            session.id, [say("1", idempotency_key="k1"), say("2", idempotency_key="k2")]
        )
        again = repository.add_messages(
            session.id,
            [
                say("2", idempotency_key="k2"),
                say("3", idempotency_key="k3"),
                say("3", idempotency_key="k3"),
                say("4"),
            ],
        )
        assert [m.sequence for m in again] == [2, 3, 3, 4]
        assert again[0].pk == first[1].pk
        assert repository.get(session.id).message_count == 4

    def test_a_retry_is_answered_after_archiving(self, repository, session):
        first = repository.add_message_to_session(session.id, say(idempotency_key="k1"))
        repository.update_session(session.id, {"status": "archived"})
        again = repository.add_message_to_session(session.id, say(idempotency_key="k1"))
        assert again.pk == first.pk
        with pytest.raises(SessionArchived):
            repository.add_message_to_session(session.id, say(idempotency_key="k2"))

    def test_a_retry_takes_few_queries(self, repository, session):
        def append(*keys: str) -> int:
            with CaptureQueriesContext(connection) as queries:
                messages = [say(idempotency_key=key) for key in keys]
                added = repository.add_messages(session.id, messages)
            assert [m.as_dict() for m in added] == [say()] * len(keys)
            return len([q for q in queries if "SAVEPOINT" not in q["sql"]])

        on_postgresql = connection.vendor == "postgresql"
        append("k1")
        assert append("k1") <= (2 if on_postgresql else 3)
        assert append("k1", "k2") <= (3 if on_postgresql else 6)
        assert repository.get(session.id).message_count == 2

    @pytest.mark.django_db(transaction=True)
    def test_a_retry_outside_a_transaction(self, repository, session):
        messages = [say("1", idempotency_key="k1"), say("2", idempotency_key="k2")]
        first = repository.add_message_to_session(session.id, messages[0])
        assert repository.add_message_to_session(session.id, messages[0]) == first
        assert repository.add_messages(session.id, messages)[0] == first
        assert repository.get(session.id).message_count == 2


class TestOwner:
    def test_the_owner_appends_without_a_further_query(self, repository, session, user):
        with CaptureQueriesContext(connection) as free:
            repository.add_message_to_session(session.id, say("1"))
        with CaptureQueriesContext(connection) as owned:
            repository.add_message_to_session(session.id, say("2"), user_id=user.pk)
        assert len(owned) == len(free)
        repository.add_messages(session.id, [say("3"), say("4")], user_id=user)
        assert [m.content for m in repository.get_messages(session.id)] == ["1", "2", "3", "4"]

    def test_another_users_session_does_not_exist(self, repository, session, other_user):
        keyed = say("secret", idempotency_key="k1")
        repository.add_message_to_session(session.id, keyed)
        repository.update_session(session.id, {"status": "archived"})
        for messages in ([say()], [keyed], [say(), keyed], []):
            with pytest.raises(Session.DoesNotExist):
                repository.add_messages(session.id, messages, user_id=other_user.pk)
        with pytest.raises(Session.DoesNotExist):
            repository.add_message_to_session(session.id, keyed, user_id=other_user)
        assert repository.get(session.id).message_count == 1

    def test_an_unsaved_user_owns_nothing(self, repository, session, django_user_model):
        nobody = django_user_model(pk=None)
        with pytest.raises(ValueError, match="not saved"):
            repository.add_message_to_session(session.id, say(), user_id=nobody)
        with pytest.raises(ValueError, match="not saved"):
            repository.bulk_update_session_status([session.id], "failed", user_id=nobody)


def test_a_batch_is_consecutive_and_in_order(repository, session):
    repository.add_message_to_session(session.id, say("0"))
    added = repository.add_messages(session.id, (say(str(n)) for n in range(1, 250)))
    assert [m.sequence for m in added] == list(range(2, 251))
    read = repository.get_messages(session.id, limit=None)
    assert [m.content for m in read] == [str(n) for n in range(250)]
    assert [m.pk for m in read[1:]] == [m.pk for m in added]


def test_an_empty_batch(repository, session):
    assert repository.add_messages(session.id, []) == []


def test_rolls_back_with_the_transaction(repository, session):
    with transaction.atomic():
        repository.add_message_to_session(session.id, say())
        transaction.set_rollback(True)
    stored = repository.get(session.id)
    assert (stored.message_count, stored.last_sequence, Message.objects.count()) == (0, 0, 0)


def test_signal_after_commit(repository, session, django_capture_on_commit_callbacks):
    heard: list[Any] = []

    def receive(**arguments: Any) -> None:
        heard.append((arguments["session_id"], [m.content for m in arguments["messages"]]))

    message_added.connect(receive)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            repository.add_messages(session.id, [say("a"), say("b")])
            assert heard == []
    finally:
        message_added.disconnect(receive)
    assert heard == [(session.id, ["a", "b"])]


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("count", [1, 100])
def test_one_statement_on_postgresql(repository, session, count):
    messages = [say(str(number), metadata={"n": number}) for number in range(count)]
    with CaptureQueriesContext(connection) as queries:
        repository.add_messages(session.id, messages)
    assert len(queries) == 1
