"""The project's permissions and rates apply to the API as to its other views."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import AllowAny, BasePermission
from rest_framework.test import APIClient, APIRequestFactory, force_authenticate
from rest_framework.throttling import SimpleRateThrottle

from agent_sessions.api.base import ApiView
from agent_sessions.api.permissions import permitted_readers
from agent_sessions.api.sessions import SessionViewSet
from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository
from tests.api.conftest import API, Client, client_of, make_user, url

pytestmark = pytest.mark.django_db
SESSIONS = f"{API}sessions/"


class NobodyMay(BasePermission):
    def has_permission(self, request: Any, view: Any) -> bool:
        return False


class OwnerMay(BasePermission):
    def has_permission(self, request: Any, view: Any) -> bool:
        return request.user.username == "owner"


class NotOnHold(BasePermission):
    def has_object_permission(self, request: Any, view: Any, obj: Session) -> bool:
        return obj.title != "held"


class TokenUser:
    """A user as the claims of a token describe it: its key is text."""

    is_authenticated = is_active = True
    is_staff = False

    def __init__(self, user: Any) -> None:
        self.pk = str(user.pk)


class TwoPerHour(SimpleRateThrottle):
    rate = "2/hour"

    def get_cache_key(self, request: Any, view: Any) -> str:
        return f"two-per-hour-{request.user.pk}"


class ByNumber(BaseAuthentication):
    """Logs in by the number of the user, and takes for granted that it is one."""

    def authenticate(self, request: Any) -> Any:
        int(request.headers["Authorization"])
        raise AssertionError("No test sends a number.")

    def authenticate_header(self, request: Any) -> str:
        return "Number"


@pytest.fixture
def host(settings: Any) -> Any:
    def configure(**options: Any) -> None:
        settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, **options}

    return configure


def test_a_project_that_denies_all_by_default_denies_every_session_route(
    api: APIClient, session: Session, host: Any
) -> None:
    host(DEFAULT_PERMISSION_CLASSES=[f"{__name__}.NobodyMay"])
    for path in (SESSIONS, url(session), url(session, "messages"), url(session, "events")):
        assert api.get(path).status_code == 403
    assert (
        api.post(
            url(session, "messages"), {"role": "user", "content": "?"}, format="json"
        ).status_code
        == 403
    )
    staff = client_of(make_user("staff", staff=True))
    assert staff.get(f"{API}cache/metrics/").status_code == 403
    # A load balancer has no login.
    assert Client().get(f"{API}health/").status_code == 200


def test_a_setting_names_other_permissions_for_the_api(
    api: APIClient, stranger: Any, host: Any, settings: Any
) -> None:
    host(DEFAULT_PERMISSION_CLASSES=[f"{__name__}.NobodyMay"])
    settings.AGENT_SESSIONS_PERMISSION_CLASSES = [f"{__name__}.OwnerMay"]
    assert api.get(SESSIONS).status_code == 200
    assert client_of(stranger).get(SESSIONS).status_code == 403
    # The API's own permission stays.
    assert Client().get(SESSIONS).status_code == 401


def test_a_view_of_a_project_that_lets_everybody_in_gives_nobody_the_sessions_of_all(
    session: Session, host: Any
) -> None:
    host(DEFAULT_PERMISSION_CLASSES=[])

    class Open(SessionViewSet):
        permission_classes = [AllowAny]

    requests = APIRequestFactory()
    message = {"role": "user", "content": "?"}
    append = Open.as_view({"post": "add_messages"})
    listed = Open.as_view({"get": "list"})(requests.get("/"))
    assert listed.data["results"] == []
    answer = append(requests.post("/", message, format="json"), id=str(session.pk))
    assert answer.status_code in (401, 403)
    session.refresh_from_db()
    assert session.message_count == 0


@pytest.mark.parametrize(
    ("method", "more", "body"),
    [
        ("get", [], None),
        ("get", ["messages"], None),
        ("get", ["context"], None),
        ("get", ["export"], None),
        ("get", ["events"], None),
        ("post", ["messages"], {"role": "user", "content": "?"}),
        ("patch", ["context"], {"a": 1}),
        ("patch", [], {"title": "x"}),
        ("delete", [], None),
    ],
)
def test_a_permission_of_the_project_may_refuse_one_session(
    api: APIClient, owner: Any, session: Session, host: Any, method: str, more: Any, body: Any
) -> None:
    host(DEFAULT_PERMISSION_CLASSES=[f"{__name__}.NotOnHold"])
    held = SyncSessionRepository().create(Session(user=owner, agent_id="a", title="held"))
    ask = getattr(api, method)
    assert ask(url(held, *more), body, format="json").status_code == 403
    assert ask(url(session, *more), body, format="json").status_code < 300
    stored = Session.objects.get(pk=held.pk)
    assert (stored.title, stored.context, stored.message_count) == ("held", {}, 0)


def test_a_permission_of_the_project_may_refuse_one_of_many_sessions(
    api: APIClient, owner: Any, session: Session, host: Any
) -> None:
    host(DEFAULT_PERMISSION_CLASSES=[f"{__name__}.NotOnHold"])
    held = SyncSessionRepository().create(Session(user=owner, agent_id="a", title="held"))
    change = {"session_ids": [str(session.pk), str(held.pk)], "status": "failed"}
    assert api.post(f"{SESSIONS}bulk-status/", change, format="json").status_code == 403
    assert {*Session.objects.values_list("status", flat=True)} == {"active"}
    change["session_ids"] = [str(session.pk)]
    assert api.post(f"{SESSIONS}bulk-status/", change, format="json").data == {"updated": 1}


def test_health_is_answered_where_the_project_has_nobody_for_the_user(db: None, host: Any) -> None:
    host(UNAUTHENTICATED_USER=None)
    assert Client().get(f"{API}health/").status_code == 200
    assert Client().get(SESSIONS).status_code == 401


def test_errors_of_a_whole_body_are_those_of_the_body_by_any_name(
    api: APIClient, session: Session, host: Any
) -> None:
    host(NON_FIELD_ERRORS_KEY="__all__")
    for answer in (
        api.patch(url(session), [], format="json"),
        api.post(url(session, "messages"), [], format="json"),
    ):
        assert [error["pointer"] for error in answer.json()["errors"]] == ["#"]


def test_a_user_of_a_token_without_a_row_keeps_the_stream_and_the_keys_of_messages(
    owner: Any, session: Session
) -> None:
    api = client_of(TokenUser(owner))
    assert [each["id"] for each in api.get(SESSIONS).json()["results"]] == [str(session.pk)]
    message = {"role": "user", "content": "?", "idempotency_key": "k"}
    assert api.post(url(session, "messages"), message, format="json").status_code == 201
    again = client_of(owner).post(url(session, "messages"), message, format="json")
    assert again.json()["sequence"] == 1

    readers = []

    class Watched(SessionViewSet):
        def events(self, request: Any, **kwargs: Any) -> Any:
            readers.append(self.reader)
            return super().events(request, **kwargs)

    request = APIRequestFactory().get("/")
    force_authenticate(request, TokenUser(owner))
    answer = Watched.as_view({"get": "events"})(request, id=str(session.pk))
    assert answer.status_code == 200
    assert permitted_readers(readers) == {*readers}
    assert readers[0].owner_id == session.user_id


def test_the_projects_default_throttles_count_requests_of_the_api(
    api: APIClient, host: Any, settings: Any
) -> None:
    host(DEFAULT_THROTTLE_CLASSES=[f"{__name__}.TwoPerHour"])
    assert [api.get(SESSIONS).status_code for _ in range(3)] == [200, 200, 429]
    settings.AGENT_SESSIONS_THROTTLE_CLASSES = []
    assert api.get(SESSIONS).status_code == 200


def test_wrong_passwords_are_throttled_and_so_is_the_right_one_after_them(
    owner: Any, settings: Any
) -> None:
    settings.AGENT_SESSIONS_LOGIN_RATE = "3/day"
    owner.set_password("right")
    owner.save()

    def answer(password: str, address: str) -> int:
        text = base64.b64encode(f"owner:{password}".encode()).decode()
        client = Client(REMOTE_ADDR=address)
        return client.get(SESSIONS, headers={"Authorization": f"Basic {text}"}).status_code

    assert [answer("wrong", "10.9.8.7") for _ in range(5)] == [401, 401, 401, 429, 429]
    assert answer("right", "10.9.8.7") == 429
    assert answer("right", "10.9.8.6") == 200


def test_credentials_that_the_project_cannot_read_are_401(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ApiView, "authentication_classes", [ByNumber])
    settings.AGENT_SESSIONS_LOGIN_RATE = "1/day"
    refused = Client(REMOTE_ADDR="10.9.8.3").get(SESSIONS, headers={"Authorization": "seven"})
    assert (refused.status_code, refused["WWW-Authenticate"]) == (401, "Number")
    # It counts as a wrong password.
    again = Client(REMOTE_ADDR="10.9.8.3").get(SESSIONS, headers={"Authorization": "eight"})
    assert again.status_code == 429


def test_health_is_throttled_by_address(settings: Any) -> None:
    settings.AGENT_SESSIONS_READ_RATE = "2/day"
    health = f"{API}health/"
    here, there = Client(REMOTE_ADDR="10.9.8.5"), Client(REMOTE_ADDR="10.9.8.4")
    assert [here.get(health).status_code for _ in range(3)] == [200, 200, 429]
    assert there.get(health).status_code == 200
    assert int(here.get(health)["Retry-After"]) > 0
