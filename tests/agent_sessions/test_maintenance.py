from __future__ import annotations

import logging
import uuid

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from agent_sessions.models import Message, Session, SessionStatus
from agent_sessions.signals import session_status_changed, sessions_deleted
from tests.agent_sessions.data import age, say

pytestmark = pytest.mark.django_db


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

    def test_a_wrong_status_or_id_changes_nothing(self, repository, session):
        with pytest.raises(ValidationError) as error:
            repository.bulk_update_session_status([session.id], "asleep")
        assert set(error.value.message_dict) == {"status"}
        with pytest.raises(ValidationError):
            repository.bulk_update_session_status([session.id, "x"], "failed")
        assert repository.get(session.id).status == "active"

    def test_many_sessions_are_changed_in_batches(
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
        assert Session.objects.filter(status="completed").count() == 4
        assert Session.objects.filter(status="active").count() == 2
        assert repository.cleanup_expired_sessions() == 0

    def test_a_message_saves_the_session(self, repository, session):
        age(session, seconds=1)
        repository.add_message_to_session(session.id, say())
        assert repository.cleanup_expired_sessions() == 0

    def test_a_purge_deletes_finished_sessions_past_their_retention(
        self, repository, make_session, settings
    ):
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
        assert Session.objects.filter(status="completed").count() == 1


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
        assert len(deletes) == 3
        assert len(queries) <= 8

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
        assert "tenant" not in caplog.text
        assert [s.pk for s in Session.objects.all()] == [kept.pk]
        assert Message.objects.count() == 1
        assert repository.delete_user_data(sessions[0].user_id).sessions == 0

    @pytest.mark.postgres
    def test_of_a_user_locks_all_sessions_at_once(self, repository, make_session, user):
        for _number in range(3):
            repository.add_message_to_session(make_session().id, say())

        users = type(user).objects.filter(pk=user.pk)
        # What was locked is free again after a rollback.
        for _attempt in range(2):
            with CaptureQueriesContext(connection) as queries, transaction.atomic():
                users.delete()
                transaction.set_rollback(True)
            assert len([query for query in queries if "FOR UPDATE" in query["sql"]]) == 1

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
    # Past the querysets, which would count.
    Message.objects.filter(session=sessions[0], sequence=2)._raw_delete("default")
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
