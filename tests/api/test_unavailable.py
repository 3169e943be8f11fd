"""A database that fails is a 503 that says when to come back, and one line of the log."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository
from tests.api.conftest import API, Client, client_of, make_user, url

MESSAGE = {"role": "user", "content": "Hello"}


@pytest.fixture
def stored(transactional_db: None) -> tuple[APIClient, Session]:
    owner = make_user("owner")
    session = SyncSessionRepository().create(Session(user=owner, agent_id="a"))
    return client_of(owner), session


def problem(response: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert response.status_code == 503
    assert response["Content-Type"] == "application/problem+json"
    assert response["Retry-After"] == "2"
    assert response.json()["code"] == "unavailable"
    [line] = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert "the database failed" in line.getMessage()
    assert line.exc_info is None


@pytest.mark.postgres
def test_a_terminated_backend_is_503_and_the_next_request_is_answered(
    stored: tuple[APIClient, Session], caplog: pytest.LogCaptureFixture
) -> None:
    api, session = stored
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        [pid] = cursor.fetchone()
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    other.close()
    problem(api.get(url(session)), caplog)
    health = Client().get(f"{API}health/")
    assert (health.status_code, health.json()) == (503, {"status": "unavailable"})
    connection.close_if_unusable_or_obsolete()
    assert api.post(url(session, "messages"), MESSAGE, format="json").status_code == 201


@pytest.mark.postgres
@pytest.mark.parametrize("timeout", ["lock_timeout", "statement_timeout"])
def test_a_timeout_of_the_database_is_503(
    stored: tuple[APIClient, Session], caplog: pytest.LogCaptureFixture, timeout: str
) -> None:
    api, session = stored
    other = connection.copy()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute(
                "SELECT 1 FROM agent_sessions_session WHERE id = %s FOR UPDATE", [session.pk]
            )
        with connection.cursor() as cursor:
            cursor.execute(f"SET {timeout} = '100ms'")
        problem(api.post(url(session, "messages"), MESSAGE, format="json"), caplog)
    finally:
        other.close()
        connection.close()


@pytest.mark.postgres
def test_an_append_whose_outcome_is_unknown_is_503_without_a_time_to_repeat_it(
    stored: tuple[APIClient, Session], caplog: pytest.LogCaptureFixture
) -> None:
    api, session = stored
    other = connection.copy()

    def losing(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "agent_sessions_append" in sql:
            with other.cursor() as cursor:
                pid = connection.connection.info.backend_pid
                cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        return execute(sql, params, many, context)

    with connection.execute_wrapper(losing):
        answer = api.post(url(session, "messages"), MESSAGE, format="json")
    other.close()
    assert answer.status_code == 503
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "outcome_unknown"
    assert "Retry-After" not in answer
    [line] = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert "the database failed" in line.getMessage()
    assert line.exc_info is None
    assert "\n" not in line.getMessage()
    assert api.post(url(session, "messages"), MESSAGE, format="json").status_code == 201
