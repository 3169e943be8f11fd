"""The project's permissions and rates apply to the API as to its other views."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import AllowAny, BasePermission
from rest_framework.test import APIClient, APIRequestFactory
from rest_framework.throttling import SimpleRateThrottle

from agent_sessions.api.base import ApiView
from agent_sessions.api.sessions import SessionViewSet
from agent_sessions.models import Session
from tests.api.conftest import API, Client, client_of, make_user, url

pytestmark = pytest.mark.django_db
SESSIONS = f"{API}sessions/"


class NobodyMay(BasePermission):
    def has_permission(self, request: Any, view: Any) -> bool:
        return False


class OwnerMay(BasePermission):
    def has_permission(self, request: Any, view: Any) -> bool:
        return request.user.username == "owner"


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
