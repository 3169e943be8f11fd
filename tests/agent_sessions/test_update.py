from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from agent_sessions import (
    SessionArchived,
)
from agent_sessions.models import Session
from tests.agent_sessions.data import say

pytestmark = pytest.mark.django_db


class TestUpdateSession:
    def test_an_update_changes_the_given_fields(self, repository, session):
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

    def test_an_archived_session_changes_only_when_it_leaves_the_archive(self, repository, session):
        repository.update_session(session.id, {"status": "archived"})
        with pytest.raises(SessionArchived):
            repository.update_session(session.id, {"title": "x"})
        changed = repository.update_session(session.id, {"status": "active", "title": "x"})
        assert (changed.status, changed.title) == ("active", "x")

    def test_a_missing_session_cannot_be_updated(self, repository, db):
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
    def test_a_context_is_merged_by_its_top_level_keys(self, repository, session):
        repository.update_session_context(session.id, {"language": "python", "a": {"x": 1}})
        session = repository.update_session_context(session.id, {"mode": "debug", "a": {"y": 2}})
        assert session.context == {"language": "python", "mode": "debug", "a": {"y": 2}}
        assert repository.get(session.id).context == session.context

    def test_a_context_is_replaced_when_asked_for(self, repository, session):
        repository.update_session_context(session.id, {"a": 1})
        assert repository.update_session_context(session.id, {"b": 2}, replace=True).context == {
            "b": 2
        }
        assert repository.get(session.id).context == {"b": 2}

    def test_moves_the_moment_of_the_last_change_and_never_back(self, repository, session):
        changed = repository.update_session_context(session.id, {"a": 1})
        assert changed.updated_at > session.updated_at
        ahead = timezone.now() + timedelta(minutes=5)
        Session.objects.update(updated_at=ahead)
        assert repository.update_session_context(session.id, {"b": 1}).updated_at == ahead

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
    def test_a_context_that_is_no_storable_object_is_refused(self, repository, session, context):
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
