from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import ProtectedError
from django.db.models.signals import pre_delete
from django.utils import timezone
from rest_framework.test import APIClient

from agent_sessions.models import Message, Session
from agent_sessions.repository import SyncSessionRepository
from tests.api.conftest import API, client_of, make_user, say, url

pytestmark = pytest.mark.django_db
SESSIONS = f"{API}sessions/"


def create(api: APIClient, **body: Any) -> dict[str, Any]:
    response = api.post(SESSIONS, {"agent_id": "a", **body}, format="json")
    assert response.status_code == 201, response.content
    result: dict[str, Any] = response.json()
    return result


def test_a_session_is_created_for_the_caller(api: APIClient, owner: Any) -> None:
    response = api.post(
        SESSIONS,
        {
            "agent_id": "code_agent",
            "title": "Debug",
            "status": "paused",
            "context": {"language": "python"},
            "metadata": {"team": "web"},
        },
        format="json",
    )
    assert response.status_code == 201
    body = response.json()
    stored = Session.objects.get(pk=body["id"])
    assert stored.user == owner
    assert (stored.agent_id, stored.title, stored.status) == ("code_agent", "Debug", "paused")
    assert stored.context == body["context"] == {"language": "python"}
    assert stored.metadata == body["metadata"] == {"team": "web"}
    assert body["message_count"] == 0
    assert body["last_message_at"] is None
    assert body["created_at"].endswith("Z")
    assert response["Location"] == f"http://testserver{url(stored)}"
    assert api.get(response["Location"]).json() == body


def test_the_client_cannot_choose_owner_id_or_counters(api: APIClient, owner: Any) -> None:
    other = make_user("other")
    wish = uuid.uuid4()
    wishes = {"user": str(other.pk), "user_id": str(other.pk), "id": str(wish), "message_count": 7}
    for name, value in wishes.items():
        response = api.post(SESSIONS, {"agent_id": "a", name: value}, format="json")
        assert response.status_code == 400
        assert [error["pointer"] for error in response.json()["errors"]] == [f"#/{name}"]
    assert not Session.objects.exists()
    create(api)
    assert Session.objects.get().user == owner


def test_patch_changes_title_status_and_metadata_only(api: APIClient, session: Session) -> None:
    response = api.patch(
        url(session),
        {"title": "New", "status": "completed", "metadata": {"a": [1, None]}},
        format="json",
    )
    assert response.status_code == 200
    session.refresh_from_db()
    assert (session.title, session.status, session.metadata) == (
        "New",
        "completed",
        {"a": [1, None]},
    )
    assert session.agent_id == "code_agent"
    assert response.json() == api.get(url(session)).json()


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"title": "x" * 256}, "#/title"),
        ({"title": "a\x00b"}, "#/title"),
        ({"title": "a\ud800b"}, "#/title"),
        ({"title": 7}, "#/title"),
        ({"title": None}, "#/title"),
        ({"status": "asleep"}, "#/status"),
        ({"status": ["active"]}, "#/status"),
        ({"metadata": [1]}, "#/metadata"),
        ({"metadata": {"a": "b\x00"}}, "#/metadata"),
        ({"metadata": {"\ud800": 1}}, "#/metadata"),
        ({"title": 7, "metadata": [1]}, "#/metadata"),
        ({"title": "New", "agent_id": "evil"}, "#/agent_id"),
        ([], "#"),
        ("text", "#"),
        (None, "#"),
    ],
)
def test_bad_changes_are_400_and_change_nothing(
    api: APIClient, session: Session, body: Any, pointer: str
) -> None:
    response = api.patch(url(session), body, format="json")
    assert response.status_code == 400
    assert pointer in [error["pointer"] for error in response.json()["errors"]]
    session.refresh_from_db()
    assert (session.title, session.metadata) == ("Debug Python script", {})
    assert session.agent_id == "code_agent"


def test_delete_takes_the_messages_along(api: APIClient, session: Session) -> None:
    say(session, "one", "two")
    assert api.delete(url(session)).status_code == 204
    assert not Session.objects.exists()
    assert not Message.objects.exists()
    assert api.delete(url(session)).status_code == 404


def test_what_the_project_protects_is_not_deleted(api: APIClient, session: Session) -> None:
    say(session, "one")

    def protect(instance: Session, **kwargs: Any) -> None:
        raise ProtectedError("An invoice refers to it.", {instance})

    pre_delete.connect(protect, sender=Session)
    try:
        responses = [
            api.delete(url(session)),
            api.post(f"{SESSIONS}erase/", {"confirm": True}, format="json"),
        ]
    finally:
        pre_delete.disconnect(protect, sender=Session)
    assert [(each.status_code, each.json()["code"]) for each in responses] == [
        (409, "protected")
    ] * 2
    assert Message.objects.count() == 1


def test_context_is_merged_and_replaced(api: APIClient, session: Session) -> None:
    address = url(session, "context")
    assert api.get(address).json() == {}
    assert api.patch(address, {"a": 1, "b": {"c": 2}}, format="json").json() == {
        "a": 1,
        "b": {"c": 2},
    }
    assert api.patch(address, {"b": 3}, format="json").json() == {"a": 1, "b": 3}
    assert api.put(address, {"z": []}, format="json").json() == {"z": []}
    session.refresh_from_db()
    assert session.context == {"z": []}


@pytest.mark.parametrize("body", [[], "x", 3, None, {"a": "\x00"}, {"\ud800": 1}])
def test_a_bad_context_is_400(api: APIClient, session: Session, body: Any) -> None:
    for method in (api.put, api.patch):
        response = method(url(session, "context"), body, format="json")
        assert response.status_code == 400, response.content
    session.refresh_from_db()
    assert session.context == {}


def test_an_archived_session_is_read_only_until_it_leaves_the_archive(
    api: APIClient, session: Session
) -> None:
    assert api.patch(url(session), {"status": "archived"}, format="json").status_code == 200
    message = {"role": "user", "content": "hi"}
    attempts = [
        api.patch(url(session), {"title": "x"}, format="json"),
        api.patch(url(session, "context"), {"a": 1}, format="json"),
        api.post(url(session, "messages"), message, format="json"),
    ]
    for response in attempts:
        assert response.status_code == 409
        assert response.json()["code"] == "session_archived"
    assert api.get(url(session)).json()["title"] == "Debug Python script"
    assert api.patch(url(session), {"status": "active"}, format="json").status_code == 200
    assert api.post(url(session, "messages"), message, format="json").status_code == 201


def test_bulk_status_changes_the_sessions_named(
    api: APIClient, owner: Any, session: Session
) -> None:
    other = SyncSessionRepository().create(Session(user=owner, agent_id="a"))
    body = {"session_ids": [str(session.pk), str(other.pk), str(other.pk)], "status": "completed"}
    assert api.post(f"{SESSIONS}bulk-status/", body, format="json").json() == {"updated": 2}
    assert set(Session.objects.values_list("status", flat=True)) == {"completed"}
    empty = {"session_ids": [], "status": "active"}
    assert api.post(f"{SESSIONS}bulk-status/", empty, format="json").json() == {"updated": 0}
    misspelt = {**empty, "titel": "x"}
    assert api.post(f"{SESSIONS}bulk-status/", misspelt, format="json").status_code == 400


def test_bulk_status_with_an_id_of_another_user_or_of_none_is_the_same_404(
    api: APIClient, session: Session, stranger: Any
) -> None:
    foreign = SyncSessionRepository().create(Session(user=stranger, agent_id="a"))
    answers = [
        api.post(
            f"{SESSIONS}bulk-status/",
            {"session_ids": [str(session.pk), str(other)], "status": "failed"},
            format="json",
        )
        for other in (foreign.pk, uuid.uuid4())
    ]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].content == answers[1].content
    assert set(Session.objects.values_list("status", flat=True)) == {"active"}


@pytest.mark.parametrize(
    "body",
    [
        {"session_ids": ["x"], "status": "active"},
        {"session_ids": [1], "status": "active"},
        {"session_ids": "x", "status": "active"},
        {"session_ids": [], "status": "asleep"},
        {"session_ids": []},
        {"session_ids": [str(uuid.UUID(int=number)) for number in range(1001)], "status": "active"},
    ],
)
def test_bad_bulk_requests_are_400(api: APIClient, body: Any) -> None:
    response = api.post(f"{SESSIONS}bulk-status/", body, format="json")
    assert response.status_code == 400


def test_too_many_ids_are_one_error_and_not_one_each(api: APIClient) -> None:
    body = {"session_ids": ["x"] * 1001, "status": "active"}
    response = api.post(f"{SESSIONS}bulk-status/", body, format="json")
    (error,) = response.json()["errors"]
    assert (response.status_code, error["pointer"]) == (400, "#/session_ids")


def test_stats_count_the_callers_sessions(
    api: APIClient, owner: Any, session: Session, stranger: Any
) -> None:
    say(session, "one", "two", "three")
    SyncSessionRepository().create(Session(user=owner, agent_id="a", status="failed"))
    SyncSessionRepository().create(Session(user=stranger, agent_id="a"))
    body = api.get(f"{SESSIONS}stats/").json()
    assert body["total_sessions"] == 2
    assert body["active_sessions"] == 1
    assert body["total_messages"] == 3
    assert body["avg_messages_per_session"] == 1.5
    assert body["sessions_by_status"]["failed"] == 1


def test_search_finds_the_callers_sessions(
    api: APIClient, owner: Any, session: Session, stranger: Any
) -> None:
    foreign = SyncSessionRepository().create(
        Session(user=stranger, agent_id="a", title="python secrets")
    )
    say(foreign, "python")
    other = SyncSessionRepository().create(Session(user=owner, agent_id="a", title="Other"))
    say(other, "I like PYTHONS")
    found = api.get(f"{SESSIONS}search/?q=python").json()["results"]
    assert [item["title"] for item in found] == ["Debug Python script", "Other"]
    assert [item["excerpts"] for item in found] == [
        [],
        [
            {
                "sequence": 1,
                "role": "user",
                "segments": [
                    {"text": "I like ", "is_match": False},
                    {"text": "PYTHON", "is_match": True},
                    {"text": "S", "is_match": False},
                ],
                "begins_inside": False,
                "ends_inside": False,
            }
        ],
    ]
    assert len(api.get(f"{SESSIONS}search/?q=python&limit=1").json()["results"]) == 1
    assert api.get(f"{SESSIONS}search/?q=").json() == {"results": []}
    assert api.get(f"{SESSIONS}search/?q=%25").json() == {"results": []}
    for query in ("", "?q=a%00", "?q=" + "a" * 501, "?q=a&limit=0", "?q=a&limit=101"):
        assert api.get(f"{SESSIONS}search/{query}").status_code == 400


def test_cleanup_is_for_staff_with_the_permission(session: Session, stranger: Any) -> None:
    Session.objects.update(expires_at=timezone.now() - timedelta(minutes=1))
    for user in (stranger, make_user("staff", staff=True), make_user("p", "change_session")):
        assert client_of(user).post(f"{SESSIONS}cleanup/").status_code == 403
    assert Session.objects.get().status == "active"
    allowed = client_of(make_user("cleaner", "change_session", staff=True))
    assert allowed.post(f"{SESSIONS}cleanup/").json() == {"completed": 1}
    assert Session.objects.get().status == "completed"


def test_erase_deletes_all_of_the_callers_data_and_nobody_elses(
    api: APIClient, session: Session, stranger: Any, caplog: pytest.LogCaptureFixture
) -> None:
    say(session, "one", "two")
    kept = SyncSessionRepository().create(Session(user=stranger, agent_id="a"))
    say(kept, "mine")
    # The last two would erase more than they say.
    for unconfirmed in (
        *({}, {"confirm": False}, {"confirm": "yes"}, {"confirm": 1}),
        *({"confirm": True, "user": str(stranger.pk)}, {"confirm": True, "tenant": "acme"}),
    ):
        response = api.post(f"{SESSIONS}erase/", unconfirmed, format="json")
        assert response.status_code == 400
    assert Session.objects.count() == 2
    caplog.set_level("INFO", "agent_sessions.audit")
    response = api.post(f"{SESSIONS}erase/", {"confirm": True}, format="json")
    report = response.json()
    assert (report["sessions"], report["messages"]) == (1, 2)
    assert report["user"] == str(session.user_id)
    assert report["by"] == f"user {session.user_id}"
    assert report["deleted"] == {"agent_sessions_session": 1, "agent_sessions_message": 2}
    assert report["started_at"] <= report["finished_at"]
    assert list(Session.objects.all()) == [kept]
    assert Message.objects.count() == 1
    assert any(record.name == "agent_sessions.audit" for record in caplog.records)


def test_nothing_of_an_erased_user_remains_in_any_table(
    api: APIClient, session: Session, owner: Any
) -> None:
    key = {"Idempotency-Key": "erased-key"}
    body = {"agent_id": "a", "title": "erased-title", "context": {"a": "erased-context"}}
    made = api.post(SESSIONS, {**body, "metadata": {"a": "erased"}}, "json", headers=key).json()
    messages = [{"role": "user", "content": f"erased {number}"} for number in range(3)]
    api.post(url(made["id"], "messages"), {"messages": messages}, "json", headers=key)
    assert api.post(f"{SESSIONS}erase/", {"confirm": True}, "json").json()["messages"] == 3
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            for row in cursor.fetchall():
                assert "erased" not in str(row), table
                assert made["id"] not in str(row), table
                assert str(session.pk) not in str(row), table


def test_deleting_a_session_is_on_record(
    api: APIClient, session: Session, owner: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "agent_sessions.audit")
    key = session.pk
    assert api.delete(url(session)).status_code == 204
    [record] = caplog.records
    assert record.name == "agent_sessions.audit"
    assert record.getMessage() == f"User {owner.pk} deleted session {key} of user {owner.pk}."
