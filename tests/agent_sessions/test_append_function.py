"""What an append does to its session, in the function of PostgreSQL and elsewhere."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from agent_sessions import SessionArchived
from agent_sessions.models import Message, Session, SessionStatus
from tests.agent_sessions.data import say

pytestmark = pytest.mark.django_db


def test_counters_and_activity_move_along(repository, session):
    before = timezone.now()
    repository.add_message_to_session(session.id, say())
    repository.add_messages(session.id, [say(), say()])
    stored = repository.get(session.id)
    assert (stored.message_count, stored.last_sequence) == (3, 3)
    assert stored.last_message_at >= before
    assert stored.last_activity_at == stored.last_message_at
    assert stored.updated_at == stored.last_message_at


@pytest.mark.postgres
def test_the_strategy_for_postgresql_stores_a_batch_in_one_statement(repository, session):
    with CaptureQueriesContext(connection) as queries:
        repository.add_messages(session.id, [say()] * 20)
    assert len(queries) == 1


def test_numbers_are_never_reused(repository, session):
    repository.add_messages(session.id, [say(), say()])
    Message.objects.get(sequence=2).delete()
    # The deletion has the number 3.
    assert repository.add_message_to_session(session.id, say()).sequence == 4


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_reopens_a_finished_session(repository, session, status):
    repository.update_session(session.id, {"status": status})
    repository.add_message_to_session(session.id, say())
    assert repository.get(session.id).status == SessionStatus.ACTIVE


def test_leaves_a_paused_session_paused(repository, session):
    repository.update_session(session.id, {"status": "paused"})
    repository.add_message_to_session(session.id, say())
    assert repository.get(session.id).status == SessionStatus.PAUSED


def test_an_archived_session_is_read_only(repository, session):
    repository.update_session(session.id, {"status": "archived"})
    with pytest.raises(SessionArchived) as error:
        repository.add_message_to_session(session.id, say())
    assert error.value.session_id == session.id
    with pytest.raises(SessionArchived):
        repository.add_messages(session.id, [])
    assert Message.objects.count() == 0
    assert repository.get(session.id).message_count == 0


class TestExpiry:
    def test_an_append_moves_the_expiry_forward(self, repository, make_session, settings):
        settings.AGENT_SESSIONS_EXPIRY_HOURS = 2
        session = make_session(expires_at=timezone.now() + timedelta(minutes=1))
        repository.add_message_to_session(session.id, say())
        stored = repository.get(session.id)
        assert stored.expires_at - stored.last_message_at >= timedelta(hours=2)

    def test_never_moves_back(self, repository, make_session):
        far = timezone.now() + timedelta(days=300)
        session = make_session(expires_at=far)
        repository.add_message_to_session(session.id, say())
        assert repository.get(session.id).expires_at == far

    def test_never_stays_never(self, repository, make_session):
        session = make_session(expires_at=None)
        repository.add_message_to_session(session.id, say())
        assert repository.get(session.id).expires_at is None

    def test_without_the_setting_an_append_ends_the_expiry(
        self, repository, make_session, settings
    ):
        settings.AGENT_SESSIONS_EXPIRY_HOURS = None
        assert make_session().expires_at is None
        session = make_session(expires_at=timezone.now() + timedelta(hours=1))
        repository.add_message_to_session(session.id, say())
        assert repository.get(session.id).expires_at is None


def test_times_of_messages_never_go_backwards(repository, session):
    ahead = timezone.now() + timedelta(minutes=5)
    Session.objects.filter(pk=session.pk).update(
        last_message_at=ahead, last_activity_at=ahead, updated_at=ahead
    )
    added = repository.add_messages(session.id, [say(), say()])
    assert [message.created_at for message in added] == [ahead, ahead]
    assert [message.created_at for message in Message.objects.all()] == [ahead, ahead]
    stored = repository.get(session.id)
    assert (stored.last_message_at, stored.last_activity_at, stored.updated_at) == (ahead,) * 3
