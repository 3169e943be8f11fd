"""Checks that the running demo answers and does its background work."""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.utils import timezone

from agent_sessions.models import Session, SessionStatus
from agent_sessions.repository import SyncSessionRepository

PAGES = ("/", "/admin/login/", "/api/schema/", "/api/docs/", "/static/admin/css/base.css")


class NotWorkingError(Exception):
    """A part of the demo did not answer in time."""


def fetch(port: int, path: str, login: tuple[str, str] | None = None) -> tuple[int, bytes]:
    """The status and body of a page; status 0 while nobody listens."""
    headers = {"Accept": "*/*"}
    if login:
        headers["Authorization"] = "Basic " + base64.b64encode(":".join(login).encode()).decode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def wait_until(what: str, happened: Callable[[], bool], seconds: float) -> None:
    """Wait until the condition holds. Raises NotWorkingError."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            raise NotWorkingError(f"{what}: not after {seconds:.0f} seconds.")
        time.sleep(0.1)


def check_pages(port: int, login: tuple[str, str]) -> None:
    """Every page answers, and the API has sessions for the demo user. Raises NotWorkingError."""
    for path in PAGES:
        status, _body = fetch(port, path)
        if status != 200:
            raise NotWorkingError(f"{path} answers {status}.")
    status, body = fetch(port, "/api/v1/sessions/", login)
    if status != 200 or not json.loads(body)["results"]:
        raise NotWorkingError(f"The API answers {status}: {body[:200]!r}")


def expired_session(user_id: Any) -> Session:
    """A session that expired a minute ago, for worker and beat to complete."""
    return SyncSessionRepository().create(
        Session(
            user_id=user_id,
            agent_id="demo",
            title="Expired, and completed by the Celery worker",
            expires_at=timezone.now() - timedelta(minutes=1),
        )
    )


def is_completed(session: Session) -> bool:
    """Return whether the session was completed."""
    return Session.objects.filter(pk=session.pk, status=SessionStatus.COMPLETED).exists()
