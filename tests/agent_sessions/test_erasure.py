"""An erasure leaves nothing in any table, and says what it erased where."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management import CommandError, call_command
from django.db import connection, models, transaction
from django.test import Client
from django.utils import timezone

from agent_sessions.admin.audit import DELETE_SESSION
from agent_sessions.models import Message, Session
from agent_sessions.repository import SyncSessionRepository
from agent_sessions.repository.remains import Remain, find_remains
from tests.agent_sessions.data import say

MARKER = "m\u00e4rker-of-the-erased"
LIST = "/admin/agent_sessions/session/"


def fill(user: Any) -> Session:
    """Give the user a session with the marker in every field that can hold it."""
    repository = SyncSessionRepository()
    values: dict[str, Any] = {
        field.name: {"key": [MARKER]} if isinstance(field, models.JSONField) else MARKER
        for field in Session._meta.concrete_fields
        if isinstance(field, models.CharField | models.TextField | models.JSONField)
        and field.name not in ("status", "idempotency_digest")
    }
    session = repository.create(Session(user=user, **values), [say(MARKER)])
    repository.add_messages(
        session.pk,
        [
            say(MARKER, idempotency_key=MARKER, metadata={MARKER: MARKER}, name=MARKER),
            {"role": "assistant", "content": None, "tool_calls": [{"function": MARKER}]},
            say([{"type": "text", "text": MARKER + "\ud800"}]),
        ],
    )
    for row in (session, *Message.objects.for_session(session)):
        # As an admin of the project's own writes it.
        LogEntry.objects.create(
            user_id=user.pk,
            content_type=ContentType.objects.get_for_model(row),
            object_id=str(row.pk),
            object_repr=MARKER[:200],
            action_flag=CHANGE,
            change_message=MARKER,
        )
    return session


@pytest.fixture
def staff(django_user_model: Any) -> Any:
    user = django_user_model.objects.create_user("staff", password="x", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(codename__in=["view_session", "delete_session"])
    )
    return user


def places(user: Any) -> set[tuple[str, str, str]]:
    return {
        (remain.table.removeprefix("public."), remain.column, remain.what)
        for remain in find_remains(user.pk, [MARKER], "default")
    }


def test_the_walk_finds_every_field_before_and_none_after(user: Any, other_user: Any) -> None:
    fill(user)
    kept = fill(other_user)
    SyncSessionRepository().delete(kept.pk)
    session, message = Session._meta.db_table, Message._meta.db_table
    before = places(user)
    assert {(session, "user_id", "user"), (message, "user_id", "user")} <= before
    texts = {(table, column) for table, column, what in before if what == "text"}
    assert texts == {
        *((session, name) for name in ("tenant", "agent_id", "title", "context", "metadata")),
        (session, "idempotency_key"),
        *((message, name) for name in ("content", "metadata", "payload", "idempotency_key")),
        ("django_admin_log", "object_repr"),
        ("django_admin_log", "change_message"),
    }
    erased = SyncSessionRepository().delete_user_data(user.pk, by="the test")
    assert erased.deleted == {session: 1, message: 4}
    assert erased.redacted == {"django_admin_log": 5}
    assert (erased.user, erased.by, erased.tenant) == (str(user.pk), "the test", None)
    assert erased.started_at <= erased.finished_at <= timezone.now()
    assert MARKER not in repr(erased)
    # Who did something in the admin stays known.
    assert places(user) == {("django_admin_log", "user_id", "user")}


@pytest.mark.parametrize("how", ["delete", "purge"])
def test_a_deletion_leaves_no_text_in_the_log_of_the_admin(user: Any, how: str) -> None:
    session = fill(user)
    if how == "delete":
        SyncSessionRepository().delete(session.pk)
    else:
        Session.objects.update(status="completed", updated_at=timezone.now())
        assert SyncSessionRepository().purge_old_sessions(days=0) == 1
    assert places(user) == {("django_admin_log", "user_id", "user")}
    assert LogEntry.objects.get(object_id=str(session.pk)).object_repr == str(session.pk)


def test_entries_about_other_objects_stay(user: Any, other_user: Any) -> None:
    session = fill(user)
    others = fill(other_user)
    LogEntry.objects.create(
        user_id=user.pk,
        content_type=ContentType.objects.get_for_model(user),
        object_id=str(session.pk),
        object_repr="kept",
        action_flag=CHANGE,
    )
    SyncSessionRepository().delete_user_data(user.pk)
    kept = LogEntry.objects.filter(object_repr=MARKER[:200])
    assert {entry.object_id for entry in kept} == {
        str(others.pk),
        *(str(message.pk) for message in others.messages.all()),
    }
    assert LogEntry.objects.filter(object_repr="kept").exists()


@pytest.mark.postgres
@pytest.mark.django_db
def test_the_walk_reads_tables_of_no_app_and_of_other_schemas(user: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute('CREATE SCHEMA "Else where"')
        kind = user._meta.pk.db_type(connection)
        kind = "bigint" if "bigint" in kind else kind
        cursor.execute(f'CREATE TABLE "Else where"."100%" (user_id {kind}, note varchar(80))')
        cursor.execute('INSERT INTO "Else where"."100%%" VALUES (%s, %s)', [user.pk, MARKER])
        # It cannot be read before its first refresh.
        cursor.execute("CREATE MATERIALIZED VIEW empty AS SELECT 1 AS user_id WITH NO DATA")
    assert find_remains(user.pk, [MARKER], "default") == [
        Remain("Else where.100%", "user_id", "user", 1),
        Remain("Else where.100%", "note", "text", 1),
    ]


def command(*arguments: str) -> str:
    stdout = io.StringIO()
    call_command("delete_user_data", "ada", "--no-input", *arguments, stdout=stdout)
    return stdout.getvalue()


def test_the_command_verifies_that_nothing_is_left(user: Any) -> None:
    fill(user)
    printed = command("--verify", "--by", "the officer")
    assert "django_admin_log: 5 rows redacted\n" in printed
    assert "erased by the officer" in printed
    assert printed.endswith(
        "Verified: no table has a conversation of the user or one of these titles.\n"
    )
    assert "Looked for the user's key and 1 of 1 titles in every table." in printed
    assert MARKER not in printed


def test_the_command_names_what_is_left(user: Any, staff: Any) -> None:
    fill(user)
    staff.first_name = MARKER
    staff.save()
    with pytest.raises(CommandError, match="1 rows are left"):
        command("--verify")


def test_staff_erase_the_users_of_selected_sessions(
    user: Any, other_user: Any, staff: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "agent_sessions.audit")
    session = fill(user)
    SyncSessionRepository().create(Session(user=user, agent_id="a", tenant="another"))
    kept = fill(other_user)
    client = Client()
    client.force_login(staff)
    chosen = {"action": "erase_users", "_selected_action": [str(session.pk)]}
    page = client.post(LIST, chosen)
    assert "2 sessions, 4 messages" in page.content.decode()
    assert Session.objects.count() == 3
    shown = client.post(LIST, {**chosen, "post": "yes"}, follow=True).content.decode()
    assert f"Erased the data of user {user.pk}." in shown
    assert [session.pk for session in Session.objects.all()] == [kept.pk]
    lines = [record.getMessage() for record in caplog.records if "audit" in record.name]
    assert [line for line in lines if "rase" in line] == [
        f"Erased the data of user {user.pk}: 2 sessions, 4 messages, by user {staff.pk}.",
        f"User {staff.pk} erases the data of user {user.pk} in the admin ({DELETE_SESSION}).",
    ]


def test_staff_who_may_not_delete_may_not_erase(user: Any, staff: Any) -> None:
    session = fill(user)
    staff.user_permissions.set(Permission.objects.filter(codename="view_session"))
    client = Client()
    client.force_login(staff)
    chosen = {"action": "erase_users", "_selected_action": [str(session.pk)], "post": "yes"}
    client.post(LIST, chosen)
    assert Session.objects.count() == 1


def test_the_command_says_how_much_it_looked_for(user: Any) -> None:
    titles = ["short", *(f"A longer title {number}" for number in range(101))]
    for title in titles:
        SyncSessionRepository().create(Session(user=user, agent_id="a", title=title))
    assert "100 of 102 titles" in command("--verify")


def test_the_command_erases_in_every_tenant_or_in_one(user: Any) -> None:
    for tenant in ("", "acme", "other"):
        SyncSessionRepository().create(Session(user=user, agent_id="a", tenant=tenant))
    assert "in tenant 'acme', erased by" in command("--tenant", "acme")
    assert {session.tenant for session in Session.objects.all()} == {"", "other"}
    with pytest.raises(CommandError, match="any tenant"):
        command("--tenant", "other", "--verify")
    assert "2 sessions" in command()


@pytest.mark.django_db(transaction=True)
def test_a_user_deleted_with_sessions_is_in_the_audit_log(
    repository: Any, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "agent_sessions.audit")
    repository.add_messages(session.pk, [{"role": "user", "content": "secret"}] * 2)
    user, key = session.user, session.user_id

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if "audit" in record.name]

    with transaction.atomic():
        user.delete()
        transaction.set_rollback(True)
    assert lines() == []
    get_user_model().objects.get(pk=key).delete()
    assert lines() == [f"Deleted user {key} with 1 sessions, 2 messages."]
