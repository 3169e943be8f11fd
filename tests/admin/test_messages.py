from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from agent_sessions.models import Message, Session
from agent_sessions.repository import SyncSessionRepository

pytestmark = pytest.mark.django_db

LIST = "/admin/agent_sessions/message/"


@pytest.fixture
def session(django_user_model: Any) -> Session:
    user = django_user_model.objects.create_user("alice")
    repository = SyncSessionRepository()
    other = repository.create(Session(user=user, agent_id="a", title="Other"))
    repository.add_message_to_session(other.pk, {"role": "user", "content": "elsewhere"})
    session = repository.create(Session(user=user, agent_id="a", title="Long"))
    repository.add_messages(
        session.pk,
        [
            {"role": "assistant" if number % 2 else "user", "content": f"word{number}"}
            for number in range(250)
        ],
    )
    return session


def shown(response: Any) -> list[int]:
    return [message.sequence for message in response.context["cl"].result_list]


def test_the_messages_of_a_session_in_order(
    admin_client: Client, session: Session, django_assert_num_queries: Any
) -> None:
    # The login (2), the count and the page.
    with django_assert_num_queries(4):
        response = admin_client.get(LIST, {"session__id__exact": str(session.pk)})
    assert shown(response) == list(range(1, 101))
    response = admin_client.get(LIST, {"session__id__exact": str(session.pk), "p": "3"})
    assert shown(response) == list(range(201, 251))


def test_a_list_of_messages_does_not_load_contexts_of_sessions(
    admin_client: Client, session: Session
) -> None:
    with CaptureQueriesContext(connection) as queries:
        admin_client.get(LIST)
    for column in ("context", "metadata"):
        assert f'"agent_sessions_session"."{column}"' not in str(queries.captured_queries)


def test_messages_of_all_sessions_name_theirs(admin_client: Client, session: Session) -> None:
    text = admin_client.get(LIST).content.decode()
    assert "Other" in text
    assert "elsewhere" in text


def test_search_and_role_filter_stay_in_the_session(admin_client: Client, session: Session) -> None:
    where = {"session__id__exact": str(session.pk)}
    assert shown(admin_client.get(LIST, {**where, "q": "WORD77"})) == [78]
    assert shown(admin_client.get(LIST, {**where, "q": "elsewhere"})) == []
    assert shown(admin_client.get(LIST, {**where, "q": "%"})) == []
    roles = shown(admin_client.get(LIST, {**where, "role": "assistant"}))
    assert roles[:3] == [2, 4, 6]


def test_a_message_is_shown_as_it_was_given(admin_client: Client, session: Session) -> None:
    message = SyncSessionRepository().add_message_to_session(
        session.pk, {"role": "assistant", "content": None, "tool_calls": [{"id": "call-7"}]}
    )
    text = admin_client.get(f"{LIST}{message.pk}/change/").content.decode()
    assert "call-7" in text
    assert f"/admin/agent_sessions/session/{session.pk}/change/" in text
    assert "_save" not in text


def test_nobody_writes_messages_here(admin_client: Client, session: Session) -> None:
    message = session.messages.first()
    assert message is not None
    assert admin_client.get(f"{LIST}add/").status_code == 403
    assert admin_client.post(f"{LIST}add/", {"role": "user"}).status_code == 403
    assert admin_client.post(f"{LIST}{message.pk}/change/", {"role": "tool"}).status_code == 403
    data = {"action": "delete_selected", "_selected_action": [str(message.pk)], "post": "yes"}
    admin_client.post(LIST, data)
    assert Message.objects.get(pk=message.pk).role == "user"


def test_a_deleted_message_is_taken_out_of_its_session(
    admin_client: Client, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "agent_sessions.audit")
    message = session.messages.get(sequence=7)
    address = f"{LIST}{message.pk}/delete/"
    assert "word6" not in admin_client.get(address).content.decode()
    assert admin_client.post(address, {"post": "yes"}).status_code == 302
    stored = SyncSessionRepository().get(session.pk)
    assert (stored.message_count, stored.last_sequence) == (249, 251)
    (change,) = SyncSessionRepository().get_changes(session.pk, after=250)
    assert (change.sequence, change.message) == (7, None)
    assert f"deletes message 7 of session {session.pk}" in caplog.text
    assert "word6" not in str(LogEntry.objects.values_list())


def test_only_who_may_delete_messages_deletes_one(
    client: Client, session: Session, django_user_model: Any
) -> None:
    staff = django_user_model.objects.create_user("staff", is_staff=True)
    staff.user_permissions.add(Permission.objects.get(codename="view_message"))
    client.force_login(staff)
    message = session.messages.get(sequence=7)
    text = client.get(f"{LIST}{message.pk}/change/").content.decode()
    assert "deletelink" not in text
    assert client.post(f"{LIST}{message.pk}/delete/", {"post": "yes"}).status_code == 403
    assert Message.objects.filter(pk=message.pk).exists()


def test_odd_addresses_are_not_errors(admin_client: Client, session: Session) -> None:
    odd = ({"session__id__exact": "nonsense"}, {"p": "x"}, {"p": "999999"}, {"role": "x"})
    for query in (*odd, {"role": "\x00"}, {"q": "\x00"}):
        assert admin_client.get(LIST, query).status_code in {200, 302}
    assert admin_client.get(f"{LIST}nonsense/change/").status_code == 302
