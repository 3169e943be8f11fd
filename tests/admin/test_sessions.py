from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import AsyncClient, Client
from django.urls import reverse

from agent_sessions.admin.listing import CappedPaginator
from agent_sessions.models import Message, Session, SessionStatus
from agent_sessions.repository import SyncSessionRepository

pytestmark = pytest.mark.django_db

LIST = "/admin/agent_sessions/session/"
MESSAGES = "/admin/agent_sessions/message/"


@pytest.fixture
def repository() -> SyncSessionRepository:
    return SyncSessionRepository()


@pytest.fixture
def alice(django_user_model: Any) -> Any:
    return django_user_model.objects.create_user("alice", password="x")


@pytest.fixture
def session(alice: Any, repository: SyncSessionRepository) -> Session:
    session = repository.create(
        Session(user=alice, agent_id="coder", title="Debug script", context={"mode": "debug"})
    )
    repository.add_messages(
        session.pk,
        [
            {"role": "user", "content": "Where is the needle?"},
            {"role": "assistant", "content": "In the haystack", "metadata": {"model": "m"}},
        ],
    )
    return session


def staff(django_user_model: Any, *permissions: str) -> Client:
    user = django_user_model.objects.create_user("staff", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def change(session: Session) -> str:
    return f"{LIST}{session.pk}/change/"


def form_of(session: Session, **values: Any) -> dict[str, Any]:
    session.refresh_from_db()
    expires = session.expires_at
    return {
        "title": session.title,
        "agent_id": session.agent_id,
        "status": session.status,
        "context": json.dumps(session.context),
        "metadata": json.dumps(session.metadata),
        "expires_at_0": expires.strftime("%Y-%m-%d") if expires else "",
        "expires_at_1": expires.strftime("%H:%M:%S") if expires else "",
        **values,
    }


def act(client: Client, action: str, *sessions: Session, **more: str) -> Any:
    data = {"action": action, "_selected_action": [str(one.pk) for one in sessions], **more}
    return client.post(LIST, data, follow=True)


def titles(response: Any) -> list[str]:
    return [one.title for one in response.context["cl"].result_list]


def test_the_list_shows_what_tells_sessions_apart(admin_client: Client, session: Session) -> None:
    text = admin_client.get(LIST).content.decode()
    for shown in ("Debug script", "alice", "coder", "active"):
        assert shown in text


@pytest.mark.parametrize("title", ["", " \u00a0", "\u200b\u202e"])
def test_a_title_that_cannot_be_seen_is_no_link(
    admin_client: Client, session: Session, title: str
) -> None:
    Session.objects.update(title=title)
    page = admin_client.get(LIST).content.decode()
    assert f">coder {session.pk}</a>" in page


def test_the_list_costs_the_same_with_many_sessions(
    admin_client: Client,
    session: Session,
    repository: SyncSessionRepository,
    django_assert_num_queries: Any,
) -> None:
    # The login (2), the count, the page, and the agents suggested to the filter.
    with django_assert_num_queries(5):
        admin_client.get(LIST)
    for number in range(60):
        repository.create(Session(user=session.user, agent_id=f"agent-{number}"))
    with django_assert_num_queries(5):
        assert len(titles(admin_client.get(LIST))) == 50


def test_the_newest_come_first_and_can_be_turned_round(
    admin_client: Client, session: Session, repository: SyncSessionRepository
) -> None:
    repository.create(Session(user=session.user, agent_id="a", title="later"))
    assert titles(admin_client.get(LIST)) == ["later", "Debug script"]
    created = 7
    assert titles(admin_client.get(LIST, {"o": str(created)})) == ["Debug script", "later"]


@pytest.mark.parametrize(
    ("term", "found"),
    [
        ("debug", True),
        ("NEEDLE", True),
        ("haystack needle", False),
        ("user:alice", True),
        ("user:alice haystack", True),
        ("user:alice nothing", False),
        ("user:admin haystack", False),
        ("user:nobody", False),
        ("100%", False),
        ("_", False),
        ("   ", True),
    ],
)
def test_search_is_the_repositorys(
    admin_client: Client, session: Session, term: str, found: bool
) -> None:
    assert titles(admin_client.get(LIST, {"q": term})) == (["Debug script"] if found else [])


def test_search_finds_a_session_by_its_id(admin_client: Client, session: Session) -> None:
    assert titles(admin_client.get(LIST, {"q": str(session.pk)})) == ["Debug script"]
    other = UUID(int=session.pk.int ^ 1)
    assert titles(admin_client.get(LIST, {"q": str(other)})) == []


def test_filters_work_alone_and_beside_a_search(
    admin_client: Client, session: Session, repository: SyncSessionRepository
) -> None:
    archived = SessionStatus.ARCHIVED
    repository.create(Session(user=session.user, agent_id="o&'<", title="other", status=archived))
    assert titles(admin_client.get(LIST, {"status__exact": "archived"})) == ["other"]
    response = admin_client.get(
        LIST, {"agent_id": "o&'<", "q": "other", "status__exact": "archived"}
    )
    assert titles(response) == ["other"]
    text = response.content.decode()
    assert '<input type="hidden" name="status__exact" value="archived">' in text
    assert '<input type="hidden" name="q" value="other">' in text
    assert "o&#x27;<" not in text
    assert titles(admin_client.get(LIST, {"agent_id": "unknown"})) == []
    assert titles(admin_client.get(LIST, {"user__exact": session.user_id})) == [
        "other",
        "Debug script",
    ]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("model", ["session", "message"])
def test_filters_no_column_can_hold_are_not_errors(admin_client: Client, model: str) -> None:
    address = f"/admin/agent_sessions/{model}/"
    fields = {"session": ("status__exact", "title"), "message": ("role__exact",)}
    latest = {"created_at__gte": "9999-12-31T23:59:59-23:59"}
    for query in ({"id__exact": "9" * 30}, latest, *({name: "\x00"} for name in fields[model])):
        response = admin_client.get(address, query, follow=True)
        assert response.status_code == 200
        assert all(target == f"{address}?e=1" for target, _status in response.redirect_chain)


def test_odd_filters_are_not_errors(admin_client: Client, session: Session) -> None:
    for query in ({"agent_id": "\x00"}, {"q": "\x00"}, {"q": "user:\x00"}, {"q": "x" * 5_000}):
        assert titles(admin_client.get(LIST, query)) in ([], ["Debug script"])


def test_only_so_many_rows_are_counted_and_listed(
    admin_client: Client,
    session: Session,
    repository: SyncSessionRepository,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for _ in range(60):
        repository.create(Session(user=session.user, agent_id="a"))
    assert b"Only the first" not in admin_client.get(LIST).content
    monkeypatch.setattr(CappedPaginator, "limit", 55)
    response = admin_client.get(LIST)
    assert b"Only the first 55 are listed" in response.content
    assert response.context["cl"].result_count == 55
    assert admin_client.get(LIST, {"p": "3"}).status_code == 302


def test_a_session_shows_its_last_messages_and_links_to_all(
    admin_client: Client,
    session: Session,
    repository: SyncSessionRepository,
    django_assert_max_num_queries: Any,
) -> None:
    repository.add_messages(
        session.pk,
        [{"role": "user", "content": f"text number {number}"} for number in range(500)],
    )
    # The login (2), the session, its user, its messages, and the type of the object.
    with django_assert_max_num_queries(6):
        text = admin_client.get(change(session)).content.decode()
    assert "text number 499" in text
    assert "text number 480" in text
    assert "text number 479" not in text
    assert "482 earlier messages" in text
    assert f"{MESSAGES}?session__id__exact={session.pk}" in text


def test_a_message_of_megabytes_does_not_fill_the_page(
    admin_client: Client, session: Session, repository: SyncSessionRepository
) -> None:
    message = repository.add_message_to_session(
        session.pk, {"role": "tool", "content": "x" * 4_000_000, "tool_call_id": "1"}
    )
    for page in (change(session), f"{MESSAGES}?session__id__exact={session.pk}"):
        response = admin_client.get(page)
        assert len(response.content) < 100_000
    page = admin_client.get(f"{MESSAGES}{message.pk}/change/").content
    assert b"characters more" in page
    assert len(page) < 1_000_000


def test_nothing_users_wrote_becomes_markup(
    admin_client: Client, alice: Any, repository: SyncSessionRepository
) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    session = repository.create(
        Session(user=alice, agent_id=evil, title=evil, context={evil: evil}, metadata={evil: evil})
    )
    message = repository.add_message_to_session(
        session.pk, {"role": "user", "content": evil, "metadata": {evil: evil}, evil: [evil]}
    )
    for page in (
        LIST,
        f"{LIST}?q={evil}",
        f"{LIST}?agent_id={evil}",
        change(session),
        f"{LIST}{session.pk}/delete/",
        MESSAGES,
        f"{MESSAGES}{message.pk}/change/",
    ):
        text = admin_client.get(page).content.decode()
        assert "<script>alert" not in text, page
        assert "<img src=x" not in text, page


def test_any_text_can_be_shown(
    admin_client: Client, session: Session, repository: SyncSessionRepository
) -> None:
    message = repository.add_message_to_session(
        session.pk, {"role": "user", "content": "lone \ud83d and NUL \x00 and 漢字"}
    )
    assert "漢字" in admin_client.get(change(session)).content.decode()
    text = admin_client.get(f"{MESSAGES}{message.pk}/change/").content.decode()
    assert "\\ud83d" in text


def test_fields_are_changed_through_the_repository(admin_client: Client, session: Session) -> None:
    values = {"title": "New", "context": '{"a": 1}', "metadata": '{"b": 2}', "status": "paused"}
    response = admin_client.post(change(session), form_of(session, **values))
    assert response.status_code == 302
    session.refresh_from_db()
    assert (session.title, session.status) == ("New", "paused")
    assert (session.context, session.metadata) == ({"a": 1}, {"b": 2})
    assert session.message_count == 2
    assert LogEntry.objects.count() == 1


def test_saving_an_old_form_keeps_what_was_appended_meanwhile(
    admin_client: Client, session: Session, repository: SyncSessionRepository
) -> None:
    form = form_of(session, title="Late")
    repository.add_message_to_session(session.pk, {"role": "user", "content": "meanwhile"})
    assert admin_client.post(change(session), form).status_code == 302
    session.refresh_from_db()
    assert (session.title, session.message_count, session.last_sequence) == ("Late", 3, 3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("context", "[]"),
        ("context", "{"),
        ("metadata", '"text"'),
        ("status", "lost"),
        ("title", "x" * 300),
        ("agent_id", ""),
        ("context", '{"a": "\\u0000"}'),
        ("context", '{"a": 1' + "0" * 5_000 + "}"),
        ("context", '{"a":' * 700 + "1" + "}" * 700),
        ("metadata", "[" * 2_000 + "]" * 2_000),
    ],
)
def test_bad_values_are_form_errors(
    admin_client: Client, session: Session, field: str, value: str
) -> None:
    response = admin_client.post(change(session), form_of(session, **{field: value}))
    assert response.status_code == 200
    assert response.context["adminform"].errors
    before = (session.title, session.context)
    session.refresh_from_db()
    assert (session.title, session.context) == before


def test_an_archived_session_must_leave_the_archive_to_change(
    admin_client: Client, session: Session, repository: SyncSessionRepository
) -> None:
    repository.bulk_update_session_status([session.pk], SessionStatus.ARCHIVED)
    response = admin_client.post(change(session), form_of(session, title="New"))
    assert b"The session is archived" in response.content
    form = form_of(session, title="New", status="active", context='{"x": 1}')
    assert admin_client.post(change(session), form).status_code == 302
    session.refresh_from_db()
    assert (session.title, session.status, session.context) == ("New", "active", {"x": 1})
    form = form_of(session, title="Newer", status="archived", context='{"x": 2}')
    assert admin_client.post(change(session), form).status_code == 302
    session.refresh_from_db()
    assert (session.title, session.status, session.context) == ("Newer", "archived", {"x": 2})


def test_a_session_can_be_added_for_a_user(admin_client: Client, alice: Any) -> None:
    data = {
        "user": str(alice.pk),
        "title": "By hand",
        "agent_id": "a",
        "status": "active",
        "context": "{}",
        "metadata": "{}",
    }
    assert admin_client.get(f"{LIST}add/").status_code == 200
    assert admin_client.post(f"{LIST}add/", data).status_code == 302
    assert Session.objects.get().user_id == alice.pk


def test_complete_and_archive(
    admin_client: Client, session: Session, repository: SyncSessionRepository
) -> None:
    archived = repository.create(Session(user=session.user, agent_id="a", status="archived"))
    response = act(admin_client, "complete", session, archived)
    assert b"1 session is now completed." in response.content
    archived.refresh_from_db()
    session.refresh_from_db()
    assert (session.status, archived.status) == ("completed", "archived")
    response = act(admin_client, "archive", session, archived)
    assert b"1 session is now archived." in response.content
    session.refresh_from_db()
    assert session.status == "archived"
    assert LogEntry.objects.filter(object_id=str(session.pk)).count() == 2


def test_actions_reach_all_that_was_filtered(
    admin_client: Client, alice: Any, repository: SyncSessionRepository
) -> None:
    for number in range(1_100):
        repository.create(Session(user=alice, agent_id="many" if number else "one"))
    chosen = Session.objects.filter(agent_id="many").first()
    assert chosen is not None
    data = {"action": "complete", "_selected_action": [str(chosen.pk)], "select_across": "1"}
    response = admin_client.post(f"{LIST}?agent_id=many&status__exact=active", data, follow=True)
    assert b"1099 sessions are now completed." in response.content
    assert Session.objects.filter(status="active").count() == 1


def lines(response: Any) -> list[dict[str, Any]]:
    text = b"".join(response.streaming_content).decode()
    return [json.loads(line) for line in text.split("\n") if line]


def test_export_downloads_the_chosen_sessions(
    admin_client: Client, session: Session, repository: SyncSessionRepository
) -> None:
    repository.create(Session(user=session.user, agent_id="a", title="not chosen"))
    response = act(admin_client, "export", session)
    assert response["Content-Disposition"] == 'attachment; filename="sessions.jsonl"'
    [line] = lines(response)
    assert line["title"] == "Debug script"
    assert [message["role"] for message in line["messages"]] == ["user", "assistant"]
    address = reverse("admin:agent_sessions_session_export", args=[session.pk])
    assert lines(admin_client.get(address)) == [line]


def test_export_of_a_search_downloads_what_was_found(
    admin_client: Client, session: Session, repository: SyncSessionRepository
) -> None:
    repository.create(Session(user=session.user, agent_id="a", title="not found"))
    data = {"action": "export", "_selected_action": [str(session.pk)], "select_across": "1"}
    response = admin_client.post(f"{LIST}?q=needle", data)
    assert [line["title"] for line in lines(response)] == ["Debug script"]


async def test_export_streams_under_asgi(session: Session, django_user_model: Any) -> None:
    admin = await django_user_model.objects.acreate_superuser("root", password="x")
    client = AsyncClient()
    await client.aforce_login(admin)
    address = reverse("admin:agent_sessions_session_export", args=[session.pk])
    response: Any = await client.get(address)
    data = b"".join([piece async for piece in response.streaming_content])
    assert json.loads(data)["title"] == "Debug script"


def test_export_of_what_is_not_there_is_404(admin_client: Client, session: Session) -> None:
    for wrong in (UUID(int=5), "nonsense"):
        address = reverse("admin:agent_sessions_session_export", args=[wrong])
        assert admin_client.get(address).status_code == 404


def test_deletion_counts_the_messages_without_loading_them(
    admin_client: Client,
    session: Session,
    repository: SyncSessionRepository,
    django_assert_max_num_queries: Any,
) -> None:
    repository.add_messages(session.pk, [{"role": "user", "content": "x"}] * 5_000)
    with django_assert_max_num_queries(6):
        response = admin_client.get(f"{LIST}{session.pk}/delete/")
    assert "5002" in response.content.decode().replace(",", "").replace("\xa0", "")
    assert len(response.content) < 20_000
    response = admin_client.post(f"{LIST}{session.pk}/delete/", {"post": "yes"})
    assert response.status_code == 302
    assert not Session.objects.exists()
    assert not Message.objects.exists()


def test_chosen_sessions_are_deleted_with_their_messages(
    admin_client: Client, session: Session, repository: SyncSessionRepository
) -> None:
    kept = repository.create(Session(user=session.user, agent_id="a", title="kept"))
    response = act(admin_client, "delete_selected", session)
    assert b"Debug script" in response.content
    act(admin_client, "delete_selected", session, post="yes")
    assert list(Session.objects.all()) == [kept]
    assert not Message.objects.exists()


def test_a_user_can_be_deleted_with_the_sessions(
    admin_client: Client, session: Session, alice: Any
) -> None:
    model = alice._meta
    page = f"/admin/{model.app_label}/{model.model_name}/{alice.pk}/delete/"
    assert admin_client.post(page, {"post": "yes"}).status_code == 302
    assert not Session.objects.exists()
    assert not Message.objects.exists()


# --- Permissions ------------------------------------------------------------------------------


def test_staff_without_permission_sees_nothing(session: Session, django_user_model: Any) -> None:
    client = staff(django_user_model)
    message = session.messages.first()
    assert message is not None
    export = reverse("admin:agent_sessions_session_export", args=[session.pk])
    for page in (LIST, change(session), export, MESSAGES, f"{MESSAGES}{message.pk}/change/"):
        assert client.get(page).status_code == 403, page


def test_staff_who_may_view_reads_and_exports_only(
    session: Session, django_user_model: Any
) -> None:
    client = staff(django_user_model, "view_session", "view_message")
    text = client.get(change(session)).content.decode()
    assert "agent-sessions-json" in text
    assert "&quot;mode&quot;: &quot;debug&quot;" in text
    assert 'name="title"' not in text
    response = act(client, "export", session)
    assert lines(response)[0]["title"] == "Debug script"
    act(client, "complete", session)
    act(client, "archive", session)
    act(client, "delete_selected", session, post="yes")
    client.post(change(session), form_of(session, title="New"))
    client.post(f"{LIST}{session.pk}/delete/", {"post": "yes"})
    session.refresh_from_db()
    assert (session.status, session.title) == ("active", "Debug script")


def test_the_public_is_sent_to_the_login(client: Client, session: Session) -> None:
    export = reverse("admin:agent_sessions_session_export", args=[session.pk])
    for page in (LIST, change(session), export, MESSAGES):
        response = client.get(page)
        assert response.status_code == 302
        assert "/admin/login/" in response["Location"]
