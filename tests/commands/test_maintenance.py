from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from agent_sessions.models import Message, Session, SessionStatus
from agent_sessions.repository import SyncSessionRepository

pytestmark = pytest.mark.django_db


def run(name: str, *arguments: str) -> str:
    stdout = io.StringIO()
    call_command(name, *arguments, stdout=stdout)
    return stdout.getvalue()


@pytest.fixture
def user(django_user_model: Any) -> Any:
    return django_user_model.objects.create_user("alice")


@pytest.fixture
def expired(user: Any) -> Session:
    past = timezone.now() - timedelta(hours=1)
    return SyncSessionRepository().create(Session(user=user, agent_id="a", expires_at=past))


@pytest.fixture
def finished(user: Any) -> Session:
    session = Session.objects.create(user=user, agent_id="a", status=SessionStatus.COMPLETED)
    SyncSessionRepository().add_messages(session.pk, [{"role": "user", "content": "x"}] * 3)
    SyncSessionRepository().bulk_update_session_status([session.pk], SessionStatus.COMPLETED)
    Session.objects.filter(pk=session.pk).update(updated_at=timezone.now() - timedelta(days=10))
    return session


def test_cleanup_completes_expired_sessions(expired: Session) -> None:
    assert run("cleanup_expired_sessions") == "1 expired sessions completed.\n"
    expired.refresh_from_db()
    assert expired.status == SessionStatus.COMPLETED
    assert run("cleanup_expired_sessions") == "0 expired sessions completed.\n"


def test_cleanup_can_only_count(expired: Session) -> None:
    stdout = run("cleanup_expired_sessions", "--dry-run")
    assert stdout == "1 expired sessions would be completed.\n"
    expired.refresh_from_db()
    assert expired.status == SessionStatus.ACTIVE


def test_purge_needs_to_know_how_old(finished: Session) -> None:
    with pytest.raises(CommandError, match="AGENT_SESSIONS_RETENTION_DAYS"):
        run("purge_sessions")
    for days in ("-1", "1000000", "inf", "nan"):
        with pytest.raises(CommandError, match="The days are"):
            run("purge_sessions", "--days", days)
    assert Session.objects.count() == 1


def test_purge_deletes_what_is_older(finished: Session, settings: Any) -> None:
    assert run("purge_sessions", "--days", "11") == "0 sessions deleted.\n"
    settings.AGENT_SESSIONS_RETENTION_DAYS = 9
    assert run("purge_sessions", "--dry-run") == "1 sessions would be deleted.\n"
    assert run("purge_sessions") == "1 sessions deleted.\n"
    assert not Session.objects.exists()
    assert not Message.objects.exists()


def test_erasure_asks_first(finished: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    questions: list[str] = []

    def answer(question: str) -> str:
        questions.append(question)
        return "no"

    monkeypatch.setattr("builtins.input", answer)
    with pytest.raises(CommandError, match="Nothing was deleted"):
        run("delete_user_data", "alice")
    assert "Delete 1 sessions of alice" in questions[0]
    assert Session.objects.count() == 1


def test_erasure_deletes_one_users_data(finished: Session, django_user_model: Any) -> None:
    bob = django_user_model.objects.create_user("bob")
    SyncSessionRepository().create(Session(user=bob, agent_id="a"))
    stdout = run("delete_user_data", "alice", "--no-input")
    assert stdout == "1 sessions with 3 messages deleted.\n"
    assert [session.user_id for session in Session.objects.all()] == [bob.pk]
    assert not Message.objects.exists()
