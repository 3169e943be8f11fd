from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.timezone import override
from drf_spectacular.generators import SchemaGenerator
from jsonschema import Draft202012Validator, FormatChecker
from rest_framework.renderers import JSONRenderer
from rest_framework.test import APIClient

from agent_sessions.api.serializers import (
    FoundSessionSerializer,
    SessionSerializer,
    SessionSummarySerializer,
    represent_session,
    summarize_session,
)
from agent_sessions.models import Message, Session, SessionStatus
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
    body = create(api, user=str(other.pk), user_id=str(other.pk), id=str(wish), message_count=7)
    stored = Session.objects.get()
    assert stored.user == owner
    assert stored.pk != wish
    assert body["message_count"] == stored.message_count == 0


def test_the_list_has_neither_messages_nor_context(api: APIClient, session: Session) -> None:
    [item] = api.get(SESSIONS).json()["results"]
    assert item["id"] == str(session.pk)
    assert item["title"] == "Debug Python script"
    assert "context" not in item
    assert "messages" not in item


def test_following_the_cursor_shows_every_session_once_in_both_directions(
    api: APIClient, owner: Any
) -> None:
    repository = SyncSessionRepository()
    made = [str(repository.create(Session(user=owner, agent_id="a")).pk) for _ in range(7)]
    pages, link = [], f"{SESSIONS}?page_size=3"
    while link:
        page = api.get(link).json()
        pages.append([item["id"] for item in page["results"]])
        # Neither a new session nor activity moves what is still to come.
        say(Session.objects.get(pk=made[0]), "hi")
        repository.create(Session(user=owner, agent_id="later"))
        last, link = page, page["next"]
    assert pages == [made[:-4:-1], made[3:0:-1], made[:1]]
    back = api.get(last["previous"]).json()
    assert [item["id"] for item in back["results"]] == pages[1]
    first = api.get(back["previous"]).json()
    assert [item["id"] for item in first["results"]] == pages[0]
    assert api.get(first["next"]).json()["results"] == back["results"]


def test_numbered_pages_give_totals_newest_activity_first(api: APIClient, owner: Any) -> None:
    made = [
        SyncSessionRepository().create(Session(user=owner, agent_id="a", title=str(number)))
        for number in range(5)
    ]
    say(made[0], "I am the most recent now")
    first = api.get(f"{SESSIONS}?page=1&page_size=2").json()
    assert [item["title"] for item in first["results"]] == ["0", "4"]
    assert (first["page"], first["page_size"]) == (1, 2)
    assert (first["total_items"], first["total_pages"]) == (5, 3)
    assert (first["has_next"], first["has_previous"]) == (True, False)
    last = api.get(first["next"].replace("page=2", "page=3")).json()
    assert len(last["results"]) == 1
    assert (last["has_next"], last["has_previous"], last["next"]) == (False, True, None)
    beyond = api.get(f"{SESSIONS}?page=99999999999999999999&page_size=2")
    assert beyond.status_code == 200
    assert beyond.json()["results"] == []


@pytest.mark.parametrize("ordering", ["created", "-created", "activity", "-activity"])
def test_both_ways_in_every_order(api: APIClient, owner: Any, ordering: str) -> None:
    repository = SyncSessionRepository()
    made = [repository.create(Session(user=owner, agent_id="a")) for _ in range(7)]
    # Equal moments too.
    for number, session in enumerate(made):
        moment = timezone.now() - timedelta(hours=(number * 3) % 5)
        moment = moment.replace(minute=0, second=0, microsecond=7)
        Session.objects.filter(pk=session.pk).update(last_activity_at=moment)
    field = "created_at" if "created" in ordering else "last_activity_at"
    stored = sorted(Session.objects.all(), key=lambda each: (getattr(each, field), each.pk))
    expected = [str(each.pk) for each in stored]
    if ordering.startswith("-"):
        expected.reverse()
    numbered = api.get(f"{SESSIONS}?page=1&ordering={ordering}").json()["results"]
    assert [item["id"] for item in numbered] == expected
    seen: list[str] = []
    pages, link = [], f"{SESSIONS}?page_size=3&ordering={ordering}"
    while link:
        page = api.get(link).json()
        pages.append([item["id"] for item in page["results"]])
        seen, last, link = [*seen, *pages[-1]], page, page["next"]
    assert seen == expected
    back = api.get(last["previous"]).json()
    assert [item["id"] for item in back["results"]] == pages[1]
    first = api.get(back["previous"]).json()
    assert ([item["id"] for item in first["results"]], first["previous"]) == (pages[0], None)


@pytest.mark.postgres
@pytest.mark.parametrize("ordering", ["created", "-created", "activity", "-activity"])
def test_every_order_is_an_indexs(api: APIClient, owner: Any, ordering: str) -> None:
    Session.objects.bulk_create(Session(user=owner, agent_id="a") for _ in range(2_000))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE agent_sessions_session")
    link = api.get(f"{SESSIONS}?page_size=10&ordering={ordering}").json()["next"]
    with CaptureQueriesContext(connection) as queries:
        api.get(link)
    [query] = [query["sql"] for query in queries if "agent_sessions_session" in query["sql"]]
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {query}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Sort" not in plan, plan
    assert "Index" in plan, plan


@pytest.mark.parametrize(
    "query",
    [
        "page=0",
        "page=-1",
        "page=x",
        "page_size=0",
        "page_size=101",
        "page_size=1e3",
        "cursor=x",
        "cursor=n!!",
        "cursor=",
        "ordering=title",
        "ordering=-id",
        "ordering=",
        "status=asleep",
        "active=perhaps",
        "created_after=yesterday",
        "agent_id=a%00b",
        "agent_id=" + "a" * 256,
        "text=%00",
    ],
)
def test_odd_list_parameters_are_400_and_named(api: APIClient, query: str) -> None:
    response = api.get(f"{SESSIONS}?{query}")
    assert response.status_code == 400
    assert response["Content-Type"] == "application/problem+json"
    assert [error["parameter"] for error in response.json()["errors"]] == [query.split("=")[0]]


def test_filters(api: APIClient, owner: Any) -> None:
    repository = SyncSessionRepository()

    def make(title: str, **fields: Any) -> Session:
        return repository.create(Session(user=owner, agent_id="a", title=title, **fields))

    plain = make("plain")
    repository.create(Session(user=owner, agent_id="b", title="other agent"))
    make("paused", status=SessionStatus.PAUSED)
    make("expired", expires_at=timezone.now() - timedelta(hours=1))
    old = make("old")
    long_ago = timezone.now() - timedelta(days=400)
    Session.objects.filter(pk=old.pk).update(created_at=long_ago, last_activity_at=long_ago)
    say(plain, "The café is 100% open")

    def titles(query: str) -> set[str]:
        response = api.get(f"{SESSIONS}?{query}")
        assert response.status_code == 200, response.content
        return {item["title"] for item in response.json()["results"]}

    assert titles("agent_id=b") == {"other agent"}
    assert titles("status=paused") == {"paused"}
    assert titles("status=paused&status=completed") == {"paused"}
    assert titles("active=true") == {"plain", "other agent", "old"}
    assert titles("active=false") == {"paused", "expired"}
    assert titles("text=100%25") == {"plain"}
    assert titles("text=pau") == {"paused"}
    a_year_ago = (timezone.now() - timedelta(days=365)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert titles(f"created_before={a_year_ago}") == {"old"}
    assert "old" not in titles(f"activity_after={a_year_ago}")
    assert titles("text=plain&agent_id=b") == set()


@pytest.mark.parametrize(
    "moment",
    [
        "0001-01-01T00:00:00%2B23:59",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00",
        "2024-02-29T00:00:00.123456789Z",
    ],
)
def test_moments_at_the_ends_of_the_calendar(api: APIClient, session: Session, moment: str) -> None:
    after = api.get(f"{SESSIONS}?created_after={moment}")
    before = api.get(f"{SESSIONS}?created_before={moment}")
    assert (after.status_code, before.status_code) == (200, 200)
    assert len(after.json()["results"]) + len(before.json()["results"]) == 1


def test_patch_changes_title_status_and_metadata_only(api: APIClient, session: Session) -> None:
    response = api.patch(
        url(session),
        {"title": "New", "status": "completed", "metadata": {"a": [1, None]}, "agent_id": "evil"},
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


def test_delete_takes_the_messages_along(api: APIClient, session: Session) -> None:
    say(session, "one", "two")
    assert api.delete(url(session)).status_code == 204
    assert not Session.objects.exists()
    assert not Message.objects.exists()
    assert api.delete(url(session)).status_code == 404


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


def test_bulk_status(api: APIClient, owner: Any, session: Session) -> None:
    other = SyncSessionRepository().create(Session(user=owner, agent_id="a"))
    body = {"session_ids": [str(session.pk), str(other.pk), str(other.pk)], "status": "completed"}
    assert api.post(f"{SESSIONS}bulk-status/", body, format="json").json() == {"updated": 2}
    assert set(Session.objects.values_list("status", flat=True)) == {"completed"}
    empty = {"session_ids": [], "status": "active"}
    assert api.post(f"{SESSIONS}bulk-status/", empty, format="json").json() == {"updated": 0}


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


def test_stats(api: APIClient, owner: Any, session: Session, stranger: Any) -> None:
    say(session, "one", "two", "three")
    SyncSessionRepository().create(Session(user=owner, agent_id="a", status="failed"))
    SyncSessionRepository().create(Session(user=stranger, agent_id="a"))
    body = api.get(f"{SESSIONS}stats/").json()
    assert body["total_sessions"] == 2
    assert body["active_sessions"] == 1
    assert body["total_messages"] == 3
    assert body["avg_messages_per_session"] == 1.5
    assert body["sessions_by_status"]["failed"] == 1


def test_search(api: APIClient, owner: Any, session: Session, stranger: Any) -> None:
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
    for unconfirmed in ({}, {"confirm": False}, {"confirm": "yes"}, {"confirm": 1}):
        response = api.post(f"{SESSIONS}erase/", unconfirmed, format="json")
        assert response.status_code == 400
    assert Session.objects.count() == 2
    caplog.set_level("INFO", "agent_sessions.audit")
    response = api.post(f"{SESSIONS}erase/", {"confirm": True}, format="json")
    assert response.json() == {"sessions": 1, "messages": 2}
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


def test_answers_are_what_the_serializers_describe(session: Session) -> None:
    say(session, "one")
    session.refresh_from_db()
    for moment in (session.created_at, session.created_at.replace(microsecond=0)):
        session.created_at = moment
        with override(ZoneInfo("Asia/Kathmandu")):
            assert represent_session(session) == SessionSerializer(session).data
            assert summarize_session(session) == SessionSummarySerializer(session).data


def test_what_search_answers_is_what_the_serializer_and_the_schema_describe(
    api: APIClient, owner: Any, session: Session
) -> None:
    say(session, "no match", "before " * 60 + "Python 🐍 <b>\x00\ud83d" + " behind" * 60)
    SyncSessionRepository().create(
        Session(user=owner, agent_id="a", title="python", expires_at=None, metadata={"a": [1]})
    )
    body = api.get(f"{SESSIONS}search/?q=python").json()
    found = SyncSessionRepository().search_sessions(owner.pk, "python")
    assert sorted(len(each.excerpts) for each in found) == [0, 1]
    described = FoundSessionSerializer(found, many=True).data
    assert body == {"results": json.loads(JSONRenderer().render(described))}

    schema = SchemaGenerator().get_schema(public=True)
    (answer,) = (
        operation["responses"]["200"]["content"]["application/json"]["schema"]
        for path in schema["paths"].values()
        for operation in path.values()
        if operation["operationId"] == "searchSessions"
    )
    validator = Draft202012Validator(
        {**_closed(answer), "components": _closed(schema["components"])},
        format_checker=FormatChecker(),
    )
    validator.validate(body)
    excerpt = next(each["excerpts"][0] for each in body["results"] if each["excerpts"])
    assert excerpt["begins_inside"] is excerpt["ends_inside"] is True
    for wrong in (
        {"results": [{**body["results"][0], "more": 1}]},
        {"results": [{**body["results"][0], "excerpts": [{**excerpt, "segments": [{}]}]}]},
    ):
        assert not validator.is_valid(wrong)


def _closed(schema: Any) -> Any:
    """Return the schema with no other properties than those it names."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(inner) for name, inner in schema.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed["additionalProperties"] = False
    return closed


@pytest.mark.parametrize("path", ["x", "0", "00000000", "%00", "🦊", "a" * 5000])
def test_what_is_no_id_is_the_404_of_an_unknown_id(api: APIClient, path: str) -> None:
    unknown = api.get(url(uuid.uuid4()))
    malformed = api.get(url(path))
    assert (unknown.status_code, malformed.status_code) == (404, 404)
    assert malformed.content == unknown.content


def test_other_spellings_of_an_id_are_not_the_id(api: APIClient, session: Session) -> None:
    for spelling in (session.pk.hex, f"{{{session.pk}}}", f"urn:uuid:{session.pk}"):
        assert api.get(url(spelling)).status_code == 404
    assert api.get(url(str(session.pk).upper())).status_code == 200
