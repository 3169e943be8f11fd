"""Every route and method of the schema, as everybody who may come.

The routes are read from the OpenAPI schema: one that is new and has no body listed here fails.
"""

from __future__ import annotations

import base64
import uuid
from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator

from agent_sessions.api.filters import SessionFilter
from agent_sessions.models import Message, Session
from agent_sessions.repository import SyncSessionRepository
from tests.api.conftest import Client, client_of, make_user, say

METHODS = ("get", "post", "put", "patch", "delete")
STAFF_ONLY = {"cleanUpSessions", "getCacheMetrics"}
NOBODYS = {"getHealth", "getCacheMetrics"}
ALL_PERMISSIONS = [
    f"{verb}_{model}"
    for verb in ("view", "add", "change", "delete")
    for model in ("session", "message")
]
SECRET = "the owner's secret"


def operations() -> list[tuple[str, str, str]]:
    schema = SchemaGenerator().get_schema(request=None, public=True)
    return [
        (method, path, operation["operationId"])
        for path, item in schema["paths"].items()
        if path.startswith("/api/v1/")
        for method, operation in item.items()
        if method in METHODS
    ]


OPERATIONS = operations()
ON_ONE_SESSION = [each for each in OPERATIONS if "{id}" in each[1]]
ON_ALL_SESSIONS = [each for each in OPERATIONS if "{id}" not in each[1] and each[2] not in NOBODYS]
every = pytest.mark.parametrize(("method", "path", "name"), OPERATIONS)
on_one = pytest.mark.parametrize(("method", "path", "name"), ON_ONE_SESSION)
on_all = pytest.mark.parametrize(("method", "path", "name"), ON_ALL_SESSIONS)
pytestmark = pytest.mark.django_db


def body_of(name: str, session: Session) -> Any:
    bodies: dict[str, Any] = {
        "createSession": {"agent_id": "a"},
        "changeSession": {"title": "changed"},
        "mergeSessionContext": {"changed": True},
        "replaceSessionContext": {"changed": True},
        "addMessages": {"role": "user", "content": "added"},
        "replaceMessage": {"role": "user", "content": "changed"},
        "replaceMessagesTail": {"after": 0, "messages": []},
        "popMessage": {},
        "setSessionStatuses": {"session_ids": [str(session.pk)], "status": "failed"},
        "eraseSessions": {"confirm": True},
        "cleanUpSessions": {},
    }
    return bodies[name]


def ask(client: Any, method: str, path: str, name: str, session: Session, **query: Any) -> Any:
    address = address_of(path, session.pk)
    if name == "searchSessions":
        query["q"] = "secret"
    address += "?" + "&".join(f"{key}={value}" for key, value in query.items())
    body = None if method in ("get", "delete") else body_of(name, session)
    return getattr(client, method)(address, body, format="json" if body is not None else None)


def address_of(path: str, key: object) -> str:
    return path.replace("{id}", str(key)).replace("{sequence}", "1")


def state() -> Any:
    return (
        list(Session.objects.order_by("pk").values()),
        list(Message.objects.order_by("pk").values()),
    )


def everything(response: Any) -> str:
    content = b"".join(response) if response.streaming else response.content
    return content.decode() + repr(sorted(response.headers.items()))


@pytest.fixture
def secret(owner: Any) -> Session:
    repository = SyncSessionRepository()
    session = repository.create(
        Session(user=owner, agent_id="a", title=SECRET, context={"secret": SECRET})
    )
    say(session, SECRET)
    return session


def test_the_schema_has_the_routes() -> None:
    assert len(ON_ONE_SESSION) >= 8
    assert len(ON_ALL_SESSIONS) >= 6


@every
def test_a_stranger_sees_and_changes_nothing(
    secret: Session, method: str, path: str, name: str
) -> None:
    before = state()
    response = ask(Client(), method, path, name, secret)
    assert response.status_code == (200 if name == "getHealth" else 401)
    assert SECRET not in everything(response)
    assert str(secret.pk) not in everything(response)
    assert state() == before


@every
def test_the_owner_reaches_every_route_but_those_of_staff(
    owner: Any, secret: Session, method: str, path: str, name: str
) -> None:
    response = ask(client_of(owner), method, path, name, secret)
    if name in STAFF_ONLY:
        assert response.status_code == 403
    else:
        assert 200 <= response.status_code < 300, response.content


@on_one
@pytest.mark.parametrize("who", ["stranger", "staff", "staff with all permissions"])
def test_a_foreign_session_is_the_404_of_an_unknown_one(
    secret: Session, method: str, path: str, name: str, who: str
) -> None:
    permissions = ALL_PERMISSIONS if who.endswith("permissions") else []
    client = client_of(make_user("another", *permissions, staff=who != "stranger"))
    before = state()
    foreign = ask(client, method, path, name, secret)
    unknown = ask(client, method, path, name, Session(id=uuid.uuid4()))
    assert (foreign.status_code, unknown.status_code) == (404, 404)
    assert everything(foreign) == everything(unknown)
    assert state() == before


@on_all
@pytest.mark.parametrize("who", ["stranger", "staff", "staff with all permissions"])
def test_what_concerns_many_concerns_ones_own(
    owner: Any, secret: Session, method: str, path: str, name: str, who: str
) -> None:
    permissions = ALL_PERMISSIONS if who.endswith("permissions") else []
    client = client_of(make_user("another", *permissions, staff=who != "stranger"))
    before = state()
    response = ask(client, method, path, name, secret)
    assert SECRET not in everything(response)
    assert str(secret.pk) not in everything(response)
    Session.objects.exclude(user=owner).delete()
    assert state() == before
    if name == "setSessionStatuses":
        assert response.status_code == 404
    elif name in STAFF_ONLY and not permissions:
        assert response.status_code == 403
    else:
        assert 200 <= response.status_code < 300


@pytest.mark.parametrize(("method", "path", "name"), [*ON_ONE_SESSION, *ON_ALL_SESSIONS])
@pytest.mark.parametrize("who", ["stranger", "stranger with all permissions", "staff"])
def test_acting_for_another_user_is_403_for_all_but_permitted_staff(
    owner: Any, secret: Session, method: str, path: str, name: str, who: str
) -> None:
    permissions = ALL_PERMISSIONS if who.endswith("permissions") else []
    client = client_of(make_user("another", *permissions, staff=who == "staff"))
    before = state()
    known = ask(client, method, path, name, secret, user=owner.pk)
    unknown = ask(client, method, path, name, secret, user="no-such-user")
    assert (known.status_code, unknown.status_code) == (403, 403)
    assert everything(known) == everything(unknown)
    assert state() == before


@pytest.mark.parametrize(("method", "path", "name"), [*ON_ONE_SESSION, *ON_ALL_SESSIONS])
def test_permitted_staff_act_for_another_user_explicitly_and_on_record(
    owner: Any,
    secret: Session,
    method: str,
    path: str,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "agent_sessions.audit")
    staff = make_user("another", *ALL_PERMISSIONS, staff=True)
    response = ask(client_of(staff), method, path, name, secret, user=owner.pk)
    assert 200 <= response.status_code < 300, response.content
    lines = [r.getMessage() for r in caplog.records if r.name == "agent_sessions.audit"]
    assert any(str(staff.pk) in line and str(owner.pk) in line for line in lines)
    for nobody in ("no-such-user", "9" * 30, "%00", uuid.uuid4()):
        refused = ask(client_of(staff), method, path, name, secret, user=nobody)
        assert refused.status_code == 400


@pytest.mark.parametrize(
    ("held", "method", "path", "name"),
    [
        (permission, *operation)
        for operation in [*ON_ONE_SESSION, *ON_ALL_SESSIONS]
        for permission in ("view_session",)
        if operation[0] != "get"
    ],
)
def test_permission_to_view_is_none_to_change(
    owner: Any, secret: Session, held: str, method: str, path: str, name: str
) -> None:
    staff = make_user("another", held, staff=True)
    before = state()
    response = ask(client_of(staff), method, path, name, secret, user=owner.pk)
    assert response.status_code == 403
    assert state() == before


@pytest.mark.parametrize("path", sorted({each[1] for each in OPERATIONS}))
def test_undocumented_methods_are_refused(owner: Any, secret: Session, path: str) -> None:
    documented = {method for method, other, _ in OPERATIONS if other == path}
    client = client_of(owner)
    before = state()
    for method in {*METHODS, "options", "trace"} - documented:
        response = getattr(client, method)(address_of(path, secret.pk))
        assert response.status_code == (403 if path.endswith("metrics/") else 405)
    assert state() == before


@pytest.mark.parametrize("who", ["anonymous", "stranger", "staff with all permissions"])
@pytest.mark.parametrize("path", sorted({each[1] for each in ON_ONE_SESSION if each[0] == "get"}))
def test_head_tells_of_a_foreign_session_what_it_tells_of_an_unknown_one(
    secret: Session, path: str, who: str
) -> None:
    permissions = ALL_PERMISSIONS if who.endswith("permissions") else []
    client = Client()
    if who != "anonymous":
        client = client_of(make_user("another", *permissions, staff=bool(permissions)))
    foreign = client.head(address_of(path, secret.pk))
    unknown = client.head(address_of(path, uuid.uuid4()))
    assert foreign.status_code == unknown.status_code == (401 if who == "anonymous" else 404)
    assert everything(foreign) == everything(unknown)


def test_tags_and_keys_of_another_user_open_nothing(owner: Any, secret: Session) -> None:
    mine, stranger = client_of(owner), client_of(make_user("another"))
    address = f"/api/v1/sessions/{secret.pk}/"
    tag = mine.get(address)["ETag"]
    key = {"Idempotency-Key": "k"}
    body = {"role": "user", "content": SECRET}
    assert mine.post(f"{address}messages/", body, "json", headers=key).status_code == 201
    before = state()
    attempts = [
        stranger.get(address, headers={"If-None-Match": tag}),
        stranger.get(f"{address}context/", headers={"If-None-Match": "*"}),
        stranger.patch(address, {"title": "x"}, "json", headers={"If-Match": tag}),
        stranger.delete(address, headers={"If-Match": "*"}),
        stranger.post(f"{address}messages/", body, "json", headers=key),
        stranger.post(f"{address}messages/", {"messages": [body]}, "json", headers=key),
        stranger.post(f"{address}messages/", {**body, "idempotency_key": "k"}, "json"),
        stranger.get(f"{address}events/", headers={"Last-Event-ID": "0"}),
    ]
    assert [attempt.status_code for attempt in attempts] == [404] * len(attempts)
    assert len({attempt.content for attempt in attempts}) == 1
    assert state() == before


def test_the_key_of_a_user_is_not_the_key_of_staff(owner: Any) -> None:
    mine = client_of(owner)
    staff = client_of(make_user("another", "add_session", "add_message", staff=True))
    key = {"Idempotency-Key": "k"}
    theirs = f"?user={owner.pk}"
    sessions = "/api/v1/sessions/"
    body = {"agent_id": "a"}
    first = mine.post(sessions, body, "json", headers=key).json()["id"]
    again = [staff.post(sessions + theirs, body, "json", headers=key).json()["id"] for _ in "12"]
    assert again[0] == again[1] != first
    address = f"{sessions}{first}/messages/"
    message = {"role": "user", "content": "x"}
    one = mine.post(address, message, "json", headers=key).json()["sequence"]
    two = [
        staff.post(address + theirs, message, "json", headers=key).json()["sequence"] for _ in "12"
    ]
    assert (one, two) == (1, [2, 2])


def test_no_filter_or_order_reaches_behind_the_owner(owner: Any, secret: Session) -> None:
    client = client_of(make_user("another"))
    filters = (
        "text=secret",
        "agent_id=a",
        "status=active",
        "active=true",
        "active=false",
        "created_after=2000-01-01",
        "created_before=9000-01-01",
        "activity_after=2000-01-01",
        "activity_before=9000-01-01",
    )
    assert {text.partition("=")[0] for text in filters} == set(SessionFilter.base_filters)
    for query in (
        *filters,
        "page=1",
        f"user_id={owner.pk}",
        f"user__id={owner.pk}",
        f"owner={owner.pk}",
        f"id={secret.pk}",
        "ordering=activity",
        "order_by=user_id",
        f"search={SECRET}",
    ):
        page = client.get(f"/api/v1/sessions/?{query}").json()
        assert page["results"] == []
        assert page.get("total_items", 0) == 0


def test_forged_cursors_reach_nothing(owner: Any, secret: Session) -> None:
    client = client_of(make_user("another"))
    for position in (0, secret.pk.int, secret.pk.int + 1, secret.pk.int - 1, 2**128 - 1):
        for activity in (0, 2**63, 2**63 - 1, 2**50):
            place = activity.to_bytes(8, "big") + position.to_bytes(16, "big")
            for direction in "np":
                cursor = direction + base64.urlsafe_b64encode(place).decode()
                for ordering in ("created", "-created", "activity", "-activity"):
                    query = {"cursor": cursor, "ordering": ordering}
                    page = client.get("/api/v1/sessions/", query).json()
                    assert page == {"next": None, "previous": None, "results": []}


def test_a_cursor_of_another_user_is_only_a_place(owner: Any, stranger: Any) -> None:
    repository = SyncSessionRepository()
    for user in (owner, stranger, owner, stranger, owner):
        repository.create(Session(user=user, agent_id=user.username))
    page = client_of(owner).get("/api/v1/sessions/?page_size=1").json()
    seen = client_of(stranger).get(page["next"]).json()["results"]
    assert {item["agent_id"] for item in seen} <= {"stranger"}


def tenant_of(request: Any) -> str:
    return str(request.headers.get("Tenant", ""))


@pytest.fixture
def elsewhere(settings: Any, owner: Any) -> Any:
    """The client of the owner of the secret, in another tenant."""
    settings.AGENT_SESSIONS_API_TENANT = "tests.api.test_isolation.tenant_of"
    client = client_of(owner)
    client.credentials(HTTP_TENANT="globex")
    return client


@on_one
@pytest.mark.parametrize("headers", [{}, {"If-Match": '"x"'}], ids=["plain", "conditional"])
def test_a_session_of_another_tenant_is_the_404_of_an_unknown_one(
    elsewhere: Any, secret: Session, method: str, path: str, name: str, headers: dict[str, str]
) -> None:
    elsewhere.defaults.update(
        {f"HTTP_{k.upper().replace('-', '_')}": v for k, v in headers.items()}
    )
    before = state()
    foreign = ask(elsewhere, method, path, name, secret)
    unknown = ask(elsewhere, method, path, name, Session(id=uuid.uuid4()))
    assert (foreign.status_code, unknown.status_code) == (404, 404)
    assert everything(foreign) == everything(unknown)
    assert state() == before


@on_all
def test_what_concerns_many_concerns_those_of_one_tenant(
    elsewhere: Any, secret: Session, method: str, path: str, name: str
) -> None:
    before = state()
    response = ask(elsewhere, method, path, name, secret)
    assert SECRET not in everything(response)
    assert str(secret.pk) not in everything(response)
    Session.objects.filter(tenant="globex").delete()
    assert state() == before
    if name == "setSessionStatuses":
        assert response.status_code == 404
    elif name in STAFF_ONLY:
        assert response.status_code == 403
    else:
        assert 200 <= response.status_code < 300


@pytest.mark.parametrize(("method", "path", "name"), [*ON_ONE_SESSION, *ON_ALL_SESSIONS])
def test_staff_act_for_a_user_in_the_tenant_of_their_request(
    elsewhere: Any, owner: Any, secret: Session, method: str, path: str, name: str
) -> None:
    elsewhere.force_authenticate(make_user("another", *ALL_PERMISSIONS, staff=True))
    before = state()
    response = ask(elsewhere, method, path, name, secret, user=owner.pk)
    assert SECRET not in everything(response)
    Session.objects.filter(tenant="globex").delete()
    assert state() == before
