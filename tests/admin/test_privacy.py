"""Who may see texts in the admin, and what the audit log and the admin's log keep."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.contrib.admin import site
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client

from agent_sessions.models import Message, Session
from agent_sessions.repository import SyncSessionRepository

pytestmark = pytest.mark.django_db

LIST = "/admin/agent_sessions/session/"
MESSAGES = "/admin/agent_sessions/message/"


@pytest.fixture
def session(django_user_model: Any) -> Session:
    alice = django_user_model.objects.create_user("alice", password="x")
    session = SyncSessionRepository().create(
        Session(user=alice, agent_id="coder", title="Zebra divorce", context={"mode": "c"})
    )
    SyncSessionRepository().add_message_to_session(
        session.pk, {"role": "user", "content": "Where is the needle?"}
    )
    return session


def staff(django_user_model: Any, *permissions: str) -> Client:
    user = django_user_model.objects.create_user("staff", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.INFO, "agent_sessions.audit")

    def audited() -> list[str]:
        found = [each.getMessage() for each in caplog.records if "audit" in each.name]
        caplog.clear()
        return found

    return audited


def test_staff_without_view_message_get_no_text_by_any_way(
    session: Session, django_user_model: Any
) -> None:
    client = staff(django_user_model, "view_session")
    page = client.get(f"{LIST}{session.pk}/change/")
    assert page.status_code == 200
    assert b"needle" not in page.content
    assert b"/export/" not in page.content
    assert client.get(f"{LIST}{session.pk}/export/").status_code == 403
    chosen = {"action": "export", "_selected_action": [str(session.pk)]}
    assert b"needle" not in client.post(LIST, chosen, follow=True).content
    assert client.get(MESSAGES).status_code == 403
    assert b"Zebra" not in client.get(f"{LIST}?q=needle").content
    assert b"Zebra" in client.get(f"{LIST}?q=divorce").content


def test_staff_with_view_message_see_search_and_export_texts(
    session: Session, django_user_model: Any
) -> None:
    client = staff(django_user_model, "view_session", "view_message")
    page = client.get(f"{LIST}{session.pk}/change/").content
    assert b"needle" in page
    assert b"/export/" in page
    assert b"Zebra" in client.get(f"{LIST}?q=needle").content
    assert b"needle" in b"".join(client.get(f"{LIST}{session.pk}/export/"))
    chosen = {"action": "export", "_selected_action": [str(session.pk)]}
    assert b"needle" in b"".join(client.post(LIST, chosen))


def test_reads_searches_exports_and_deletions_are_in_the_audit_log(
    session: Session, django_user_model: Any, lines: Any
) -> None:
    client = staff(django_user_model, "view_session", "view_message", "delete_session")
    user = django_user_model.objects.get(username="staff").pk
    message = Message.objects.get()
    by = "in the admin (agent_sessions.view_message)."
    whose = f"{session.pk} of user {session.user_id}"
    for address, line in (
        (f"{LIST}{session.pk}/change/", f"reads session and last messages {whose}"),
        (f"{LIST}?q=needle%0AUser", r"searches sessions for \u201cneedle\nUser\u201d"),
        (f"{LIST}{session.pk}/export/", f"exports session {whose}"),
        (MESSAGES, r"lists messages \u201c\u201d"),
        (f"{MESSAGES}?q=needle", r"lists messages \u201cq=needle\u201d"),
        (
            f"{MESSAGES}{message.pk}/change/",
            f"reads message 1 of session {session.pk}",
        ),
    ):
        client.get(address)
        assert lines() == [f"User {user} {line} {by}"]
    client.get(f"{LIST}?status__exact=active")
    listed = r"lists sessions \u201cstatus__exact=active\u201d in the admin"
    assert lines() == [f"User {user} {listed} (agent_sessions.view_session)."]
    other = SyncSessionRepository().create(Session(user_id=session.user_id, agent_id="coder"))
    chosen = {"action": "export", "_selected_action": [str(session.pk), str(other.pk)]}
    client.post(LIST, chosen)
    both = f"{other.pk} of user {session.user_id}, {whose}"
    assert f"User {user} exports 2 sessions: {both} {by}" in lines()
    client.post(f"{LIST}{session.pk}/delete/", {"post": "yes"})
    assert lines()[-1] == (
        f"User {user} deletes session {whose} in the admin (agent_sessions.delete_session)."
    )


def test_a_search_of_messages_beside_the_list_is_in_the_audit_log(
    session: Session, django_user_model: Any, rf: Any, lines: Any
) -> None:
    request = rf.get("/admin/autocomplete/")
    request.user = django_user_model.objects.create_superuser("root")
    admin = site.get_model_admin(Message)
    found, _many = admin.get_search_results(request, Message.objects.all(), "needle")
    assert len(found) == 1
    searched = r"searches messages for \u201cneedle\u201d in the admin (superuser)."
    assert lines() == [f"User {request.user.pk} {searched}"]


def test_who_deletes_a_user_sees_no_text_of_a_message(
    session: Session, django_user_model: Any
) -> None:
    client = staff(django_user_model, "view_user", "delete_user", "delete_session")
    page = client.get(f"/admin/auth/user/{session.user_id}/delete/")
    assert page.status_code in (200, 404)
    assert b"needle" not in page.content


def test_an_erasure_leaves_nothing_of_a_session_that_the_admin_changed(
    session: Session, admin_client: Client
) -> None:
    form = {
        "title": "Zebra divorce 2",
        "agent_id": "coder",
        "status": "active",
        "context": "{}",
        "metadata": "{}",
        "expires_at_0": "",
        "expires_at_1": "",
    }
    assert admin_client.post(f"{LIST}{session.pk}/change/", form).status_code == 302
    chosen = {"_selected_action": [str(session.pk)]}
    admin_client.post(LIST, {**chosen, "action": "complete"})
    other = SyncSessionRepository().create(
        Session(user_id=session.user_id, agent_id="coder", title="Zebra too")
    )
    admin_client.post(f"{LIST}{other.pk}/delete/", {"post": "yes"})
    third = SyncSessionRepository().create(
        Session(user_id=session.user_id, agent_id="coder", title="Zebra three")
    )
    chosen = {"_selected_action": [str(third.pk)], "post": "yes"}
    admin_client.post(LIST, {**chosen, "action": "delete_selected"})
    assert not Session.objects.filter(pk__in=[other.pk, third.pk]).exists()
    SyncSessionRepository().delete_user_data(session.user_id)
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            # Messages to staff are in their session until they are shown.
            if table != "django_session":
                cursor.execute(f'SELECT * FROM "{table}"')
                assert not [row for row in cursor.fetchall() if "Zebra" in str(row)], table
