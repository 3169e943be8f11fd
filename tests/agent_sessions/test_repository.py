from __future__ import annotations

import inspect
import logging
import uuid
from datetime import UTC, datetime, timedelta
from datetime import timezone as fixed
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from agent_sessions import (
    IdempotencyConflict,
    SessionArchived,
    SessionRepository,
    SyncSessionRepository,
)
from agent_sessions.models import Message, Session, SessionStatus
from agent_sessions.signals import session_created, session_status_changed, sessions_deleted

pytestmark = pytest.mark.django_db


def say(content: Any = "hello", **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def age(session: Session, **ago: float) -> None:
    """Let the session have expired, or changed last, some time ago."""
    moment = timezone.now() - timedelta(**ago)
    Session.objects.filter(pk=session.pk).update(expires_at=moment, updated_at=moment)


@pytest.fixture
def received(django_capture_on_commit_callbacks):
    heard: list[tuple[Any, dict[str, Any]]] = []

    def receive(signal: Any, **arguments: Any) -> None:
        heard.append((signal, arguments))

    signals = (session_created, session_status_changed, sessions_deleted)
    for signal in signals:
        signal.connect(receive)
    yield heard
    for signal in signals:
        signal.disconnect(receive)


class TestCreate:
    def test_with_defaults(self, repository, user):
        before = timezone.now()
        session = repository.create(Session(user_id=user.pk, agent_id="code_agent", title="Debug"))
        stored = repository.get(session.id)
        assert stored == session
        assert stored.status == SessionStatus.ACTIVE
        assert (stored.context, stored.metadata, stored.message_count) == ({}, {}, 0)
        assert stored.last_message_at is None
        assert before <= stored.created_at <= stored.last_activity_at
        assert timedelta(hours=24) <= stored.expires_at - before < timedelta(hours=24, minutes=1)

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

    def test_idempotency(self, repository, user, other_user):
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

    def test_with_messages(self, repository, user, other_user):
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

    def test_signal(self, repository, user, received, django_capture_on_commit_callbacks):
        with django_capture_on_commit_callbacks(execute=True):
            session = repository.create(Session(user=user, agent_id="x"))
            assert received == []
        ((signal, arguments),) = received
        assert signal is session_created
        assert arguments["session"] == session


class TestUpdateSession:
    def test_changes_fields(self, repository, session):
        soon = timezone.now() + timedelta(hours=1)
        changes = {"title": "New", "metadata": {"a": 1}, "status": "paused", "expires_at": soon}
        assert repository.update_session(session.id, changes).title == "New"
        stored = repository.get(session.id)
        assert {name: getattr(stored, name) for name in changes} == changes
        assert stored.updated_at > session.updated_at

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"message_count": 5}, "message_count"),
            ({"user": 1}, "user"),
            ({"title": "x" * 256}, "title"),
            ({"status": "asleep"}, "status"),
            ({"metadata": [1]}, "metadata"),
        ],
    )
    def test_refuses_bad_changes(self, repository, session, changes, field):
        with pytest.raises(ValidationError) as error:
            repository.update_session(session.id, {"agent_id": "other", **changes})
        assert set(error.value.message_dict) == {field}
        assert repository.get(session.id).agent_id == session.agent_id

    def test_archived(self, repository, session):
        repository.update_session(session.id, {"status": "archived"})
        with pytest.raises(SessionArchived):
            repository.update_session(session.id, {"title": "x"})
        changed = repository.update_session(session.id, {"status": "active", "title": "x"})
        assert (changed.status, changed.title) == ("active", "x")

    def test_missing(self, repository, db):
        with pytest.raises(Session.DoesNotExist):
            repository.update_session(uuid.uuid4(), {"title": "x"})


def test_saving_an_old_instance_keeps_the_counters(repository, session):
    repository.add_message_to_session(session.id, say())
    moved = repository.get(session.id)
    session.title = "Renamed"
    session.save()
    stored = repository.get(session.id)
    assert stored.title == "Renamed"
    assert (stored.message_count, stored.last_sequence) == (1, 1)
    assert stored.last_message_at == moved.last_message_at
    assert stored.expires_at == moved.expires_at
    assert repository.add_message_to_session(session.id, say()).sequence == 2


class TestContext:
    def test_merges(self, repository, session):
        repository.update_session_context(session.id, {"language": "python", "a": {"x": 1}})
        session = repository.update_session_context(session.id, {"mode": "debug", "a": {"y": 2}})
        assert session.context == {"language": "python", "mode": "debug", "a": {"y": 2}}
        assert repository.get(session.id).context == session.context

    def test_replaces(self, repository, session):
        repository.update_session_context(session.id, {"a": 1})
        assert repository.update_session_context(session.id, {"b": 2}, replace=True).context == {
            "b": 2
        }
        assert repository.get(session.id).context == {"b": 2}

    @pytest.mark.parametrize(
        "context",
        [
            None,
            "x",
            [1],
            {1: 2},
            {"a": "\x00"},
            {"\ud800": 1},
            {"a": float("inf")},
            {"a": {1, 2}},
            {"a": 10**5000},
        ],
        ids=range(9),
    )
    def test_refuses(self, repository, session, context):
        with pytest.raises(ValidationError) as error:
            repository.update_session_context(session.id, context)
        assert set(error.value.message_dict) == {"context"}

    def test_archived_and_missing(self, repository, session):
        repository.update_session(session.id, {"status": "archived"})
        with pytest.raises(SessionArchived):
            repository.update_session_context(session.id, {"a": 1})
        with pytest.raises(Session.DoesNotExist):
            repository.update_session_context(uuid.uuid4(), {"a": 1})
        assert repository.get(session.id).context == {}

    def test_the_returned_session_is_whole(self, repository, session):
        returned = repository.update_session_context(session.id, {"a": 1})
        stored = repository.get(session.id)
        for field in Session._meta.concrete_fields:
            assert getattr(returned, field.attname) == getattr(stored, field.attname)


class TestLists:
    def test_newest_activity_first(self, repository, make_session, other_user):
        sessions = [make_session(title=str(number)) for number in range(3)]
        make_session(user=other_user)
        repository.add_message_to_session(sessions[0].id, say())
        user_id = sessions[0].user_id
        assert repository.get_user_sessions(user_id) == [sessions[0], sessions[2], sessions[1]]
        assert repository.get_user_sessions(user_id, limit=1) == [sessions[0]]
        assert repository.get_user_sessions(sessions[0].user) == repository.get_user_sessions(
            user_id
        )

    def test_active_only(self, repository, make_session):
        active, expired, never = make_session(), make_session(), make_session(expires_at=None)
        age(expired, seconds=1)
        others = [make_session(status=s) for s in ("paused", "completed", "failed", "archived")]
        user_id = active.user_id
        assert repository.get_user_sessions(user_id) == [never, active]
        everything = repository.get_user_sessions(user_id, active_only=False)
        assert set(everything) == {active, expired, never, *others}

    @pytest.mark.parametrize("limit", [0, -1])
    def test_bad_limits(self, repository, session, limit):
        with pytest.raises(ValueError, match="limit"):
            repository.get_user_sessions(session.user_id, limit=limit)
        with pytest.raises(ValueError, match="limit"):
            repository.get_messages(session.id, limit=limit)
        with pytest.raises(ValueError, match="limit"):
            repository.search_sessions(session.user_id, "x", limit=limit)

    def test_pages(self, repository, make_session):
        sessions = [make_session() for _number in range(5)][::-1]
        user_id = sessions[0].user_id
        page = repository.get_paginated_user_sessions(user_id, 1, 2)
        assert page.items == sessions[:2]
        assert (page.page, page.page_size, page.total_items, page.total_pages) == (1, 2, 5, 3)
        assert (page.has_next, page.has_previous) == (True, False)
        page = repository.get_paginated_user_sessions(user_id, page=3, page_size=2)
        assert page.items == sessions[4:]
        assert (page.has_next, page.has_previous) == (False, True)
        page = repository.get_paginated_user_sessions(user_id, 10**30, 2)
        assert (page.items, page.has_next) == ([], False)

    def test_pages_of_nothing(self, repository, user):
        page = repository.get_paginated_user_sessions(user.pk, 1, 10)
        assert (page.items, page.total_items, page.total_pages) == ([], 0, 0)
        assert (page.has_next, page.has_previous) == (False, False)

    def test_limits_beyond_the_database(self, repository, session):
        repository.add_message_to_session(session.id, say())
        assert repository.get_user_sessions(session.user_id, limit=10**30) == [session]
        assert len(repository.get_messages(session.id, after=-(10**30), limit=10**30)) == 1
        assert repository.get_messages(session.id, after=10**30) == []
        assert repository.search_sessions(session.user_id, "hello", limit=10**30) == [session]

    @pytest.mark.parametrize(("page", "size"), [(0, 10), (-1, 10), (1, 0), (1, -1), (1, 101)])
    def test_bad_pages(self, repository, user, page, size):
        with pytest.raises(ValueError, match="page"):
            repository.get_paginated_user_sessions(user.pk, page, size)

    def test_keyset_goes_through_all(self, make_session):
        sessions = [make_session() for _number in range(7)]
        moment = timezone.now()
        Session.objects.filter(pk__in=[s.pk for s in sessions[2:5]]).update(last_activity_at=moment)
        listing = Session.objects.for_user(sessions[0].user).newest_activity_first()
        seen = list(listing[:2])
        while page := list(listing.beyond("-activity", seen[-1].last_activity_at, seen[-1].id)[:2]):
            seen += page
        assert seen == list(listing)
        newest = Session.objects.newest_first()
        assert list(newest.beyond("-created", timezone.now(), sessions[3].id)) == sessions[2::-1]


class TestMessages:
    def test_windows(self, repository, session):
        repository.add_messages(session.id, [say(str(n)) for n in range(1, 11)])

        def numbers(**window: Any) -> list[int]:
            return [m.sequence for m in repository.get_messages(session.id, **window)]

        assert numbers() == list(range(1, 11))
        assert numbers(limit=3) == [8, 9, 10]
        assert numbers(before=8, limit=3) == [5, 6, 7]
        assert numbers(after=2, limit=3) == [3, 4, 5]
        assert numbers(after=2, before=5) == [3, 4]
        assert numbers(after=10) == []
        assert numbers(limit=None) == list(range(1, 11))

    def test_windows_over_what_was_deleted(self, repository, session):
        repository.add_messages(session.id, [say(str(n)) for n in range(1, 31)])
        kept = [1, 2, 5, 6, 20, 21, 22]
        session.messages.exclude(sequence__in=kept).delete()

        for before in (None, 0, 1, 4, 6, 20, 23, 31, 10**30):
            below = [n for n in kept if before is None or n < before]
            for limit in (1, 2, 3, 6, 7, 10**30, None):
                found = repository.get_messages(session.id, before=before, limit=limit)
                assert [m.sequence for m in found] == below[-limit if limit else None :]
                for after in (-1, 0, 2, 6, 19, 22, 30):
                    found = repository.get_messages(
                        session.id, after=after, before=before, limit=limit
                    )
                    expected = [n for n in below if n > after][:limit]
                    assert [m.sequence for m in found] == expected

    @pytest.mark.postgres
    @pytest.mark.parametrize("window", [{}, {"before": 2_500}, {"after": 2_500}, {"after": 4_990}])
    def test_no_more_is_read_than_the_window(self, repository, session, window):
        """Whatever the planner knows of the session, which here is nothing."""
        repository.add_messages(session.id, [say(str(n)) for n in range(5_000)])
        with CaptureQueriesContext(connection) as queries:
            repository.get_messages(session.id, limit=20, **window)
        (query,) = [q["sql"] for q in queries]
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}")
            waiting = [cursor.fetchone()[0][0]["Plan"]]
        while waiting:
            node = waiting.pop()
            assert node["Actual Rows"] <= 20
            waiting += node.get("Plans", [])

    def test_windows_over_what_was_written_by_hand(self, repository, session):
        for number in (0, 1, 2, 90):
            Message.objects.create(session=session, sequence=number, role="user", content="x")
        for window in ({"limit": 2}, {"after": 1, "limit": 2}, {"before": 91, "limit": 2}):
            found = repository.get_messages(session.id, **window)
            assert [message.sequence for message in found] == [2, 90]
        Session.objects.filter(pk=session.pk).update(last_sequence=3)
        session.messages.filter(sequence=90).delete()
        for limit in (3, 4):
            found = repository.get_messages(session.id, limit=limit)
            assert [message.sequence for message in found] == [0, 1, 2]

    @pytest.mark.parametrize("limit", [True, 1.0, 2**40, float("inf")])
    def test_limits_that_are_numbers(self, repository, session, limit):
        repository.add_messages(session.id, [say("1"), say("2")])
        found = repository.get_messages(session.id, limit=limit)
        assert [message.sequence for message in found] == ([2] if limit == 1 else [1, 2])

    def test_missing(self, repository, session):
        assert repository.get_messages(session.id) == []
        with pytest.raises(Session.DoesNotExist):
            repository.get_messages(uuid.uuid4())

    def test_of_one_user(self, repository, session, other_user):
        repository.add_messages(session.id, [say(str(n)) for n in range(1, 4)])
        for user in (session.user, session.user_id, str(session.user_id)):
            found = repository.get_messages(session.id, after=1, user_id=user)
            assert [message.sequence for message in found] == [2, 3]
        nobody = 2**62
        for user in (other_user, other_user.pk, nobody):
            with pytest.raises(Session.DoesNotExist):
                repository.get_messages(session.id, user_id=user)

    def test_come_back_whole(self, repository, session):
        given = [
            say("a\x00b", metadata={"deep": [1, {"x": 1e300}]}),
            {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "ada"},
            say("plain", metadata={}, idempotency_key="k"),
        ]
        repository.add_messages(session.id, given)
        read = repository.get_messages(session.id)
        assert [m.created_at for m in read] == [m.created_at for m in session.messages.in_order()]
        for found in (read, session.messages.in_order()):
            assert [m.as_dict() for m in found] == [
                {key: value for key, value in message.items() if key != "idempotency_key"}
                for message in given
            ]
            assert found[0].session == session
            assert found[0].created_at.tzinfo is not None

    @pytest.mark.postgres
    def test_have_their_times_whatever_way_the_server_writes_them(self, repository, session):
        added = repository.add_messages(session.id, [say("x")])
        for style in ("SQL, DMY", "German", "Postgres, MDY"):
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL datestyle TO '{style}'")
                cursor.execute("SET LOCAL timezone TO 'Asia/Kathmandu'")
                (read,) = repository.get_messages(session.id)
            assert read.created_at == added[0].created_at

    def test_loaded_with_the_session(self, repository, session):
        added = repository.add_messages(session.id, [say(str(n)) for n in range(3)])
        loaded = repository.get_session_with_messages(session.id)
        with CaptureQueriesContext(connection) as queries:
            assert len(loaded.messages) == 3
            assert list(loaded.messages) == added
            assert loaded.messages[0] == added[0]
            assert loaded.messages[-1] == added[-1]
            assert loaded.messages[:2] == added[:2]
            assert added[1] in loaded.messages
            assert loaded.messages
            assert list(loaded.messages.all()) == added
            assert [m.session for m in loaded.messages] == [loaded] * 3
        assert len(queries) == 0
        assert loaded.messages.filter(sequence=2).get() == added[1]
        assert loaded.messages.count() == 3

    def test_without_messages(self, repository, session):
        loaded = repository.get_session_with_messages(session.id)
        with CaptureQueriesContext(connection) as queries:
            assert len(loaded.messages) == 0
            assert not loaded.messages
        assert len(queries) == 0
        with pytest.raises(Session.DoesNotExist):
            repository.get_session_with_messages(uuid.uuid4())

    def test_the_collection_fetches_what_was_not_loaded(self, repository, session):
        repository.add_messages(session.id, [say("a"), say("b")])
        assert [m.content for m in repository.get(session.id).messages] == ["a", "b"]

    def test_message_objects_is_no_collection(self):
        assert Message.objects
        with pytest.raises(TypeError):
            len(Message.objects)


class TestStats:
    def test_counts(self, repository, make_session, user, other_user):
        first, second = make_session(), make_session()
        repository.add_messages(first.id, [say()] * 3)
        age(make_session(), hours=1)
        make_session(status="completed")
        repository.add_message_to_session(make_session(user=other_user).id, say())
        stats = repository.get_session_stats(user.pk)
        assert (stats.total_sessions, stats.active_sessions, stats.total_messages) == (4, 2, 3)
        assert stats.avg_messages_per_session == 0.75
        assert stats.sessions_by_status == {
            "active": 3,
            "paused": 0,
            "completed": 1,
            "failed": 0,
            "archived": 0,
        }
        assert second.message_count == 0

    def test_of_nobody(self, repository, user):
        stats = repository.get_session_stats(user.pk)
        assert (stats.total_sessions, stats.total_messages) == (0, 0)
        assert stats.avg_messages_per_session == 0.0


class TestBulkStatus:
    def test_counts_what_changed(self, repository, make_session):
        sessions = [make_session() for _number in range(3)]
        ids = [session.id for session in sessions]
        assert (
            repository.bulk_update_session_status(
                [*ids[:2], ids[0], str(ids[1]), uuid.uuid4()], SessionStatus.COMPLETED
            )
            == 2
        )
        assert repository.bulk_update_session_status(ids, "completed") == 1
        assert repository.bulk_update_session_status([], "active") == 0
        assert {s.status for s in Session.objects.all()} == {"completed"}

    def test_of_one_user(self, repository, make_session, other_user):
        mine, theirs = make_session(), make_session(user=other_user)
        changed = repository.bulk_update_session_status(
            [mine.id, theirs.id], "failed", user_id=mine.user_id
        )
        assert changed == 1
        assert repository.get(theirs.id).status == "active"

    def test_validates(self, repository, session):
        with pytest.raises(ValidationError) as error:
            repository.bulk_update_session_status([session.id], "asleep")
        assert set(error.value.message_dict) == {"status"}
        with pytest.raises(ValidationError):
            repository.bulk_update_session_status([session.id, "x"], "failed")
        assert repository.get(session.id).status == "active"

    def test_many(
        self, repository, make_session, settings, received, django_capture_on_commit_callbacks
    ):
        settings.AGENT_SESSIONS_CLEANUP_BATCH_SIZE = 2
        ids = [make_session().id for _number in range(5)]
        with django_capture_on_commit_callbacks(execute=True):
            assert repository.bulk_update_session_status(ids, "failed") == 5
        changes = [a for signal, a in received if signal is session_status_changed]
        assert [len(a["session_ids"]) for a in changes] == [2, 2, 1]
        assert sorted(i for a in changes for i in a["session_ids"]) == ids


class TestCleanup:
    def test_completes_expired_sessions(self, repository, make_session, settings):
        settings.AGENT_SESSIONS_CLEANUP_BATCH_SIZE = 2
        expired = [make_session(status=s) for s in ("active", "paused", "active", "active")]
        others = [make_session(status=s) for s in ("failed", "archived")]
        for session in expired + others:
            age(session, seconds=1)
        make_session()
        make_session(expires_at=None)
        batches: list[int] = []
        assert repository.cleanup_expired_sessions(progress=batches.append) == 4
        assert batches == [2, 2]
        assert Session.objects.with_status("completed").count() == 4
        assert Session.objects.with_status("active").count() == 2
        assert repository.cleanup_expired_sessions() == 0

    def test_a_message_saves_the_session(self, repository, session):
        age(session, seconds=1)
        repository.add_message_to_session(session.id, say())
        assert repository.cleanup_expired_sessions() == 0

    def test_purge(self, repository, make_session, settings):
        old = {s: make_session(status=s) for s in SessionStatus.values}
        for session in old.values():
            age(session, days=10)
        make_session(status="completed")
        assert repository.purge_old_sessions() == 0
        settings.AGENT_SESSIONS_RETENTION_DAYS = 20
        assert repository.purge_old_sessions() == 0
        settings.AGENT_SESSIONS_RETENTION_DAYS = 9
        with pytest.raises(ValueError, match="days"):
            repository.purge_old_sessions(days=-1)
        batches: list[int] = []
        assert repository.purge_old_sessions(progress=batches.append) == 2
        assert batches == [2]
        left = {s.status for s in Session.objects.filter(pk__in=[s.pk for s in old.values()])}
        assert left == {"active", "paused", "archived"}
        assert Session.objects.with_status("completed").count() == 1


class TestDelete:
    def test_takes_the_messages_along(
        self, repository, make_session, received, django_capture_on_commit_callbacks
    ):
        session, other = make_session(), make_session()
        repository.add_messages(session.id, [say()] * 3)
        repository.add_message_to_session(other.id, say())
        with django_capture_on_commit_callbacks(execute=True):
            repository.delete(session.id)
        with pytest.raises(Session.DoesNotExist):
            repository.get(session.id)
        assert [m.session_id for m in Message.objects.all()] == [other.id]
        with pytest.raises(Session.DoesNotExist):
            repository.delete(session.id)
        assert [a["session_ids"] for s, a in received if s is sessions_deleted] == [[session.id]]

    def test_does_not_load_messages(self, repository, session):
        repository.add_messages(session.id, [say()] * 500)
        with CaptureQueriesContext(connection) as queries:
            repository.delete(session.id)
        deletes = [q["sql"] for q in queries if q["sql"].startswith("DELETE")]
        assert len(deletes) == 2
        assert len(queries) <= 7

    def test_all_of_a_user(self, repository, make_session, other_user, settings, caplog):
        settings.AGENT_SESSIONS_CLEANUP_BATCH_SIZE = 2
        sessions = [make_session() for _number in range(5)]
        for session in sessions:
            repository.add_messages(session.id, [say()] * 2)
        kept = make_session(user=other_user)
        repository.add_message_to_session(kept.id, say())
        with caplog.at_level(logging.INFO, logger="agent_sessions.audit"):
            erased = repository.delete_user_data(sessions[0].user)
        assert (erased.sessions, erased.messages) == (5, 10)
        assert "5 sessions, 10 messages" in caplog.text
        assert [s.pk for s in Session.objects.all()] == [kept.pk]
        assert Message.objects.count() == 1
        assert repository.delete_user_data(sessions[0].user_id).sessions == 0

    def test_deleting_the_user_deletes_the_data(self, repository, session, user):
        repository.add_message_to_session(session.id, say())
        user.delete()
        assert Session.objects.count() == Message.objects.count() == 0


def test_counters_are_verified_and_repaired(repository, make_session, settings):
    settings.AGENT_SESSIONS_CLEANUP_BATCH_SIZE = 2
    sessions = [make_session() for _number in range(5)]
    for session in sessions[:4]:
        repository.add_messages(session.id, [say()] * 3)
    assert repository.verify_counters() == []
    Message.objects.get(session=sessions[0], sequence=2).delete()
    Session.objects.filter(pk=sessions[3].pk).update(message_count=9, last_sequence=1)
    Session.objects.filter(pk=sessions[4].pk).update(message_count=1)
    wrong = [sessions[0].pk, sessions[3].pk, sessions[4].pk]
    batches: list[int] = []
    assert repository.verify_counters(progress=batches.append) == wrong
    assert batches == [2, 2, 1]
    assert repository.verify_counters(repair=True) == wrong
    assert repository.verify_counters() == []
    stored = [repository.get(session.id) for session in sessions]
    assert [(s.message_count, s.last_sequence) for s in stored] == [
        (2, 3),
        (3, 3),
        (3, 3),
        (3, 3),
        (0, 0),
    ]


def test_at_most_two_queries(repository, session, user):
    repository.add_messages(session.id, [say()] * 3)
    reads = [
        lambda: repository.get(session.id),
        lambda: repository.get_user_sessions(user.pk),
        lambda: repository.get_session_with_messages(session.id),
        lambda: repository.get_messages(session.id, after=1),
        lambda: repository.get_messages(session.id, after=5),
        lambda: repository.get_session_stats(user.pk),
        lambda: repository.get_paginated_user_sessions(user.pk, 1, 10),
        lambda: repository.search_sessions(user.pk, "hello debug"),
        lambda: list(
            Session.objects.for_user(user)
            .newest_activity_first()
            .beyond("-activity", timezone.now(), session.id)[:50]
        ),
    ]
    keyed = say(idempotency_key="k")
    writes = [
        lambda: repository.add_message_to_session(session.id, say(), user_id=user.pk),
        lambda: repository.add_messages(session.id, [keyed, say()]),
        lambda: repository.add_message_to_session(session.id, keyed),
        lambda: repository.update_session_context(session.id, {"a": 1}),
        lambda: repository.bulk_update_session_status([session.id], "paused"),
        lambda: repository.cleanup_expired_sessions(),
    ]
    for operation in reads + (writes if connection.vendor == "postgresql" else []):
        with CaptureQueriesContext(connection) as queries:
            operation()
        sent = [q["sql"] for q in queries if "SAVEPOINT" not in q["sql"]]
        assert len(sent) <= 2, sent


def public(cls: type) -> dict[str, Any]:
    return {
        name: method
        for name, method in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


def test_the_two_repositories_are_equal():
    sync, awaited = public(SyncSessionRepository), public(SessionRepository)
    assert sync.keys() == awaited.keys()
    for name, method in sync.items():
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

    async def test_errors_arrive(self, user):
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
