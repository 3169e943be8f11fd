"""What any client may send, and what it gets for it."""

from __future__ import annotations

import base64
import uuid
from typing import Any

import pytest
from django.core.handlers.base import BaseHandler
from django.db import connections
from django.test import override_settings
from django.urls import resolve
from rest_framework.test import APIClient

from agent_sessions.models import Message, Session
from tests.api.conftest import API, Client, client_of, url

pytestmark = pytest.mark.django_db
SESSIONS = f"{API}sessions/"
JSON = "application/json"


def problem(response: Any) -> dict[str, Any]:
    assert response["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == response.status_code
    assert set(body) >= {"type", "title", "status", "detail", "code"}
    return body


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b'{"role": "user", "content": NaN}',
        b'{"role": "user", "content": ["x"], "metadata": {"n": 1e999}}',
        b'{"role": "user", "content": "x", "n": -Infinity}',
        b'{"role": "user", "content": "x", "n": ' + b"9" * 5000 + b"}",
        b'{"role": "user", "content": ["\xed\xa0\x80"]}',
        b'{"a":' * 600 + b"1" + b"}" * 600,
        b'{"role": "user", "content": "a", "content": "b"}',
        b'{"role": "user", "content": [{"a": 1, "a": 1}]}',
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"role": "user", "content": [{"a": ' + b"[" * 510 + b"]" * 510 + b"}]}",
    ],
)
def test_bad_json_is_400(api: APIClient, session: Session, body: bytes) -> None:
    for address in (url(session, "messages"), SESSIONS, f"{SESSIONS}bulk-status/"):
        response = api.post(address, body, content_type=JSON)
        assert response.status_code == 400, response.content
        # No body at all is none that could be parsed.
        assert problem(response)["code"] == ("parse_error" if body else "invalid")
    assert not Message.objects.exists()


def test_a_number_beyond_all_numbers_is_named(api: APIClient, session: Session) -> None:
    response = api.post(
        url(session, "messages"), b'{"role": "user", "content": "x", "n": 1e999}', content_type=JSON
    )
    assert response.status_code == 400
    assert "a number is out of range" in problem(response)["detail"]


def test_too_deep_json_is_named(api: APIClient, session: Session) -> None:
    body = b'{"role": "user", "content": [{"a": ' + b"[" * 600 + b"]" * 600 + b"}]}"
    response = api.post(url(session, "messages"), body, content_type=JSON)
    assert response.status_code == 400
    assert problem(response)["detail"] == "The JSON is nested too deeply."


def test_deep_json_within_the_limit_is_kept(api: APIClient, session: Session) -> None:
    nested: Any = 1
    for _ in range(400):
        nested = [nested]
    message = {"role": "user", "content": [{"deep": nested}]}
    response = api.post(url(session, "messages"), message, format="json")
    assert response.status_code == 201
    assert api.get(url(session, "messages")).json()["results"][0]["message"] == message


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "x", ""],
)
def test_other_content_types_are_415(api: APIClient, session: Session, content_type: str) -> None:
    response = api.generic("POST", url(session, "messages"), b"role=user", content_type)
    assert response.status_code == 415, response.content
    assert problem(response)["code"] == "unsupported_media_type"


def test_the_charset_of_the_content_type_changes_nothing(api: APIClient) -> None:
    for charset in ("utf-16", "rot13", "base64", "no-such"):
        response = api.generic("POST", SESSIONS, b'{"agent_id": "a"}', f"{JSON}; charset={charset}")
        assert response.status_code == 201


@override_settings(AGENT_SESSIONS_MAX_MESSAGE_BYTES=1000)
def test_an_oversized_message_is_400(api: APIClient, session: Session) -> None:
    body = {"role": "user", "content": "x" * 1001}
    response = api.post(url(session, "messages"), body, format="json")
    assert response.status_code == 400
    assert not Message.objects.exists()


def test_an_unacceptable_answer_is_406(api: APIClient) -> None:
    for response in (
        api.get(SESSIONS, HTTP_ACCEPT="image/png"),
        api.get(SESSIONS, HTTP_ACCEPT=";;q=x,,/"),
        api.get(f"{SESSIONS}?format=xml"),
    ):
        assert response.status_code == 406
        problem(response)


@pytest.mark.parametrize("method", ["put", "trace", "options", "brew"])
def test_other_methods_are_405_with_allow(api: APIClient, session: Session, method: str) -> None:
    response = api.generic(method.upper(), url(session))
    assert response.status_code == 405
    assert problem(response)["code"] == "method_not_allowed"
    assert set(response["Allow"].split(", ")) == {"GET", "HEAD", "PATCH", "DELETE"}


def test_head_is_get_without_a_body(api: APIClient, session: Session) -> None:
    for address in (SESSIONS, url(session), url(session, "messages"), url(uuid.uuid4())):
        head, get = api.head(address), api.get(address)
        assert (head.status_code, dict(head.headers)) == (get.status_code, dict(get.headers))
    # It tells that there is a stream, and does not hold it open.
    head = api.head(url(session, "events"))
    assert (head.status_code, head["Content-Type"]) == (200, "text/event-stream")
    assert not head.streaming


@pytest.mark.parametrize("path", ["sessions", "health", "cache/metrics", "sessions/search?q=a%2Fb"])
def test_a_forgotten_slash_keeps_method_and_body(api: APIClient, path: str) -> None:
    name, _, query = path.partition("?")
    for method in ("GET", "POST", "DELETE"):
        response = api.generic(method, f"{API}{path}")
        assert response.status_code == 308
        assert response["Location"] == f"{API}{name}/" + (f"?{query}" if query else "")
    body = {"agent_id": "a"}
    assert api.post(f"{API}sessions", body, "json", follow=True).status_code == 201


def test_addresses_that_are_none_are_404_problems(api: APIClient, session: Session) -> None:
    for address in (url(session, "nothing"), f"{SESSIONS}a/b/c", f"{API}cache/", f"{API}health/x/"):
        # There is nothing to forge either.
        for client in (api, Client(), Client(enforce_csrf_checks=True)):
            for method in ("GET", "POST", "DELETE"):
                response = client.generic(method, address)
                assert response.status_code == 404
                assert problem(response)["code"] == "not_found"


@pytest.mark.parametrize(
    "credentials",
    [
        b"owner:wrong",
        b"a\x00b:c",
        b"owner:\x00",
        "\udcff:x".encode("utf-8", "surrogateescape"),
        b"nocolon",
        b"",
    ],
)
def test_wrong_credentials_are_401(owner: Any, credentials: bytes) -> None:
    header = "Basic " + base64.b64encode(credentials).decode()
    response = Client().get(SESSIONS, HTTP_AUTHORIZATION=header)
    assert response.status_code == 401
    assert response["WWW-Authenticate"].startswith("Basic")
    problem(response)


def test_a_session_cookie_no_database_can_hold_is_no_login(owner: Any) -> None:
    client = Client()
    client.cookies["sessionid"] = "a\x00bcdefghij"
    assert client.get(SESSIONS).status_code == 401


def test_a_form_without_its_csrf_token_changes_nothing(owner: Any) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(owner)
    response = client.post(SESSIONS, {"agent_id": "a"}, format="json")
    assert response.status_code == 403
    problem(response)
    assert not Session.objects.exists()


def test_the_hosts_error_format_stays_its_own(api: APIClient, settings: Any) -> None:
    settings.REST_FRAMEWORK = {
        **settings.REST_FRAMEWORK,
        "EXCEPTION_HANDLER": "rest_framework.views.exception_handler",
    }
    assert problem(api.get(url(uuid.uuid4())))["code"] == "not_found"


def test_answers_stay_out_of_shared_caches(api: APIClient, session: Session) -> None:
    for address in (SESSIONS, url(session), url(session, "messages"), url(uuid.uuid4())):
        assert "private" in api.get(address)["Cache-Control"]
    # What has no ETag is not kept at all.
    for address in (SESSIONS, url(session, "messages"), url(uuid.uuid4())):
        assert "no-store" in api.get(address)["Cache-Control"]


@override_settings(AGENT_SESSIONS_READ_RATE="3/min", AGENT_SESSIONS_WRITE_RATE="2/min")
def test_rates_are_each_users_own(owner: Any, stranger: Any) -> None:
    mine, theirs = client_of(owner), client_of(stranger)
    codes = [mine.get(SESSIONS).status_code for _ in range(4)]
    assert codes == [200, 200, 200, 429]
    refused = mine.get(SESSIONS)
    assert problem(refused)["code"] == "throttled"
    assert int(refused["Retry-After"]) > 0
    codes = [mine.post(SESSIONS, {"agent_id": "a"}, format="json").status_code for _ in range(3)]
    assert codes == [201, 201, 429]
    assert theirs.get(SESSIONS).status_code == 200


def test_the_browsable_pages_survive_any_text(owner: Any, api: APIClient, session: Session) -> None:
    hostile = "<script>alert(1)</script>\x00\ud800"
    api.post(url(session, "messages"), {"role": "user", "content": hostile}, format="json")
    api.patch(url(session), {"title": "<script>alert(1)</script>"}, format="json")
    browser = Client()
    browser.force_login(owner)
    for address in (SESSIONS, url(session), url(session, "messages"), url(uuid.uuid4())):
        page = browser.get(address, HTTP_ACCEPT="text/html")
        assert page.status_code in (200, 404)
        assert page["Content-Type"].startswith("text/html")
        assert b"<script>alert(1)" not in page.content


def test_no_request_is_a_transaction_in_any_database(monkeypatch: pytest.MonkeyPatch) -> None:
    for alias in connections:
        monkeypatch.setitem(connections.settings[alias], "ATOMIC_REQUESTS", True)
    for path in (SESSIONS, url(uuid.uuid4(), "messages"), f"{API}health/"):
        view = resolve(path).func
        assert BaseHandler().make_view_atomic(view) is view
