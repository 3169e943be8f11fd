from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from datetime import timezone as fixed
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from agent_sessions import (
    IdempotencyConflict,
)
from agent_sessions.models import Message, Session, SessionStatus
from agent_sessions.signals import session_created
from tests.agent_sessions.data import say

pytestmark = pytest.mark.django_db


class TestCreate:
    def test_a_session_is_stored_with_defaults(self, repository, user):
        before = timezone.now()
        session = repository.create(Session(user_id=user.pk, agent_id="code_agent", title="Debug"))
        stored = repository.get(session.id)
        assert stored == session
        assert stored.status == SessionStatus.ACTIVE
        assert (stored.context, stored.metadata, stored.message_count) == ({}, {}, 0)
        assert stored.last_message_at is None
        assert before <= stored.created_at <= stored.last_activity_at
        assert timedelta(hours=24) <= stored.expires_at - before < timedelta(hours=24, minutes=1)

    def test_a_key_and_any_text_give_the_same_session_again(self, repository, user):
        def create() -> Session:
            given = {"title": "Größe 键", "metadata": {"name": "Ада"}, "idempotency_key": "k"}
            return repository.create(Session(user=user, agent_id="x", **given))

        assert create() == create()
        assert Session.objects.count() == 1

    def test_ids_are_in_order_of_creation(self, make_session):
        sessions = [make_session() for _number in range(20)]
        assert list(Session.objects.newest_first()) == sessions[::-1]

    def test_keeps_a_given_id(self, repository, user):
        given = uuid.uuid4()
        assert repository.create(Session(id=given, user=user, agent_id="x")).id == given
        with pytest.raises(ValidationError) as error:
            repository.create(Session(id=given, user=user, agent_id="x"))
        assert set(error.value.message_dict) == {"id"}

    @pytest.mark.parametrize(
        ("values", "field"),
        [
            ({"agent_id": ""}, "agent_id"),
            ({"agent_id": None}, "agent_id"),
            ({"agent_id": "x" * 256}, "agent_id"),
            ({"title": "a\x00"}, "title"),
            ({"title": "a\ud800"}, "title"),
            ({"status": "asleep"}, "status"),
            ({"context": []}, "context"),
            ({"context": ""}, "context"),
            ({"context": {"a": "\x00"}}, "context"),
            ({"context": {"a": float("nan")}}, "context"),
            ({"context": {1: 2}}, "context"),
            ({"metadata": {"a": object()}}, "metadata"),
            ({"expires_at": datetime(2030, 1, 1)}, "expires_at"),  # noqa: DTZ001
            (
                {"expires_at": datetime(1, 1, 1, tzinfo=fixed(timedelta(hours=14)))},
                "expires_at",
            ),
            ({"expires_at": "tomorrow"}, "expires_at"),
            ({"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
            ({"expires_at": 1_900_000_000}, "expires_at"),
            ({"idempotency_key": ""}, "idempotency_key"),
            ({"id": "no uuid"}, "id"),
            ({"user": None}, "user"),
        ],
    )
    def test_bad_values_name_their_field(self, repository, user, values, field):
        session = Session(**{"user": user, "agent_id": "x", **values})
        with pytest.raises(ValidationError) as error:
            repository.create(session)
        assert set(error.value.message_dict) == {field}
        assert Session.objects.count() == 0

    def test_an_unknown_user(self, repository, user):
        unknown = uuid.uuid4() if isinstance(user.pk, uuid.UUID) else 999_999
        with pytest.raises(ValidationError) as error:
            repository.create(Session(user_id=unknown, agent_id="x"))
        assert set(error.value.message_dict) == {"user"}

    def test_null_objects_become_empty(self, repository, user):
        session = repository.create(
            Session(user=user, agent_id="x", title=None, context=None, metadata=None)
        )
        assert (session.title, session.context, session.metadata) == ("", {}, {})

    def test_not_a_session(self, repository):
        with pytest.raises(ValidationError):
            repository.create({"agent_id": "x"})

    def test_a_retry_with_the_key_returns_the_first_session(self, repository, user, other_user):
        def create(owner: Any, title: str = "a") -> Session:
            return repository.create(
                Session(user=owner, agent_id="x", title=title, idempotency_key="k")
            )

        first = create(user)
        repository.update_session(first.id, {"title": "renamed"})
        assert create(user) == first
        assert create(other_user) != first
        with pytest.raises(IdempotencyConflict):
            create(user, title="b")
        assert Session.objects.count() == 2

    def test_first_messages_are_stored_with_the_session(self, repository, user, other_user):
        first = say("one", idempotency_key="m")
        session = repository.create(
            Session(user=user, agent_id="x", status=SessionStatus.ARCHIVED),
            [first, say([{"type": "text", "text": "two"}]), first],
        )
        stored = repository.get_session_with_messages(session.id)
        assert [m.sequence for m in stored.messages] == [1, 2]
        assert [m.as_dict() for m in stored.messages] == [
            say("one"),
            say([{"type": "text", "text": "two"}]),
        ]
        assert (stored.status, stored.message_count, stored.last_sequence) == ("archived", 2, 2)
        assert stored.last_message_at == stored.last_activity_at == stored.messages[0].created_at
        assert repository.verify_counters() == []
        assert repository.search_sessions(user, "two") == [session]
        assert repository.search_sessions(other_user, "two") == []

    def test_with_messages_in_few_statements(self, repository, user):
        with CaptureQueriesContext(connection) as queries:
            repository.create(Session(user=user, agent_id="x"), [say()] * 20)
        # Whether the user exists, two insertions, and the transaction (here a savepoint).
        assert len(queries) == 5

    def test_bad_messages_leave_no_session(self, repository, user):
        with pytest.raises(ValidationError) as error:
            repository.create(Session(user=user, agent_id="x"), [say(), {"content": "x"}, 3])
        assert set(error.value.message_dict) == {"messages[1].role", "messages[2].message"}
        same_key = [say("a", idempotency_key="m"), say("b", idempotency_key="m")]
        with pytest.raises(IdempotencyConflict):
            repository.create(Session(user=user, agent_id="x"), same_key)
        assert Session.objects.count() == 0

    def test_messages_belong_to_what_the_key_was_used_for(self, repository, user):
        def create(*texts: str) -> Session:
            return repository.create(
                Session(user=user, agent_id="x", idempotency_key="k"), map(say, texts)
            )

        first = create("a", "b")
        assert create("a", "b") == first
        for other in ((), ("a",), ("a", "c")):
            with pytest.raises(IdempotencyConflict):
                create(*other)
        assert Message.objects.count() == 2

    def test_the_signal_is_sent_after_the_commit(
        self, repository, user, received, django_capture_on_commit_callbacks
    ):
        with django_capture_on_commit_callbacks(execute=True):
            session = repository.create(Session(user=user, agent_id="x"))
            assert received == []
        ((signal, arguments),) = received
        assert signal is session_created
        assert arguments["session"] == session
