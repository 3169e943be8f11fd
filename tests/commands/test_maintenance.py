from __future__ import annotations

import getpass
import io
import os
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from agent_sessions.models import Message, Session, SessionStatus
from agent_sessions.postgresql import search_index
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
    first, *tables, report = stdout.splitlines()
    assert first == "1 sessions with 3 messages deleted."
    assert tables == [
        "agent_sessions_message: 3 rows deleted",
        "agent_sessions_session: 1 rows deleted",
    ]
    assert f"erased by {getpass.getuser()}, 20" in report
    assert [session.user_id for session in Session.objects.all()] == [bob.pk]
    assert not Message.objects.exists()


def test_erasure_needs_an_answer(finished: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(CommandError, match="--no-input"):
        run("delete_user_data", "alice")
    assert Session.objects.count() == 1


@pytest.mark.parametrize("name", ["cleanup_expired_sessions", "verify_session_counters"])
def test_an_unknown_database_is_refused(name: str) -> None:
    with pytest.raises(CommandError, match="nowhere"):
        run(name, "--database", "nowhere")


def test_counters_are_verified_and_repaired(finished: Session, expired: Session) -> None:
    assert run("verify_session_counters") == ""
    Message.objects.filter(session=finished, sequence=1)._raw_delete("default")
    with pytest.raises(CommandError, match="1 sessions have wrong counters"):
        run("verify_session_counters")
    assert run("verify_session_counters", "--repair") == f"{finished.pk}\n"
    assert run("verify_session_counters") == ""
    finished.refresh_from_db()
    assert (finished.message_count, finished.last_sequence) == (2, 3)


def test_the_search_index_is_for_postgresql() -> None:
    if connection.vendor == "postgresql":
        pytest.skip("This is PostgreSQL.")
    with pytest.raises(CommandError, match="Only PostgreSQL"):
        run("create_search_index")


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_the_search_index_is_created() -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX {search_index.NAME}")
    assert search_index.is_missing(connection)
    for _time in range(2):
        assert run("create_search_index") == "The search index is there.\n"
        assert not search_index.is_missing(connection)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_who_may_not_create_the_search_index_learns_what_to_do() -> None:
    # Roles are the server's, not the database's.
    role = f"agent_sessions_nobody_{os.getpid()}"
    with connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX {search_index.NAME}")
        cursor.execute(f"CREATE ROLE {role}")
        try:
            cursor.execute(f"SET ROLE {role}")
            with pytest.raises(CommandError, match="CREATE EXTENSION IF NOT EXISTS pg_trgm"):
                run("create_search_index")
        finally:
            cursor.execute("RESET ROLE")
            cursor.execute(f"DROP ROLE {role}")
    run("create_search_index")


def test_an_erasure_prints_no_control_characters_of_who_asks(user: Any) -> None:
    report = run("delete_user_data", "alice", "--no-input", "--by", "dpo\x1b[2J")
    assert "erased by dpo" in report
    assert "\x1b" not in report
