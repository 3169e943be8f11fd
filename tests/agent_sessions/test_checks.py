from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.core.checks import run_checks
from django.db import connection

from agent_sessions import checks
from agent_sessions.conf import Settings
from agent_sessions.conf import settings as our_settings
from agent_sessions.postgresql import search_index

# Django's own checks ask SQLite once whether it knows JSON.
pytestmark = pytest.mark.django_db


def ours(**options: Any) -> dict[str, Any]:
    found = {m.id: m for m in run_checks(**options) if m.id and m.id.startswith("agent_sessions.")}
    return {check_id.removeprefix("agent_sessions."): m for check_id, m in found.items()}


def test_the_defaults_are_fine():
    assert ours() == {}


def test_settings_are_read_at_each_use(settings):
    assert our_settings.MAX_MESSAGES == 100
    settings.AGENT_SESSIONS_MAX_MESSAGES = 5
    assert our_settings.MAX_MESSAGES == 5
    del settings.AGENT_SESSIONS_MAX_MESSAGES
    assert our_settings.MAX_MESSAGES == Settings.defaults["MAX_MESSAGES"] == 100


@pytest.mark.parametrize(
    ("name", "value", "check_id"),
    [
        ("MAX_MESSAGES", "abc", "E001"),
        ("MAX_MESSAGES", -1, "E001"),
        ("MAX_MESSAGES", True, "E001"),
        ("EXPIRY_HOURS", "24", "E002"),
        ("EXPIRY_HOURS", 0, "E002"),
        ("EXPIRY_HOURS", float("inf"), "E002"),
        ("EXPIRY_HOURS", float("nan"), "E002"),
        ("RETENTION_DAYS", -3, "E003"),
        ("RETENTION_DAYS", 1_000_000, "E003"),
        ("MAX_MESSAGE_BYTES", None, "E004"),
        ("EXTRA_ROLES", "critic", "E005"),
        ("EXTRA_ROLES", ["x" * 65], "E005"),
        ("MAX_PAGE_SIZE", 0, "E006"),
        ("CLEANUP_BATCH_SIZE", 1.5, "E007"),
        ("MAX_REQUEST_BYTES", "1 MB", "E008"),
        ("READ_RATE", "often", "E009"),
        ("WRITE_RATE", 5, "E010"),
        ("EVENTS_POLL_SECONDS", 0, "E011"),
        ("EVENTS_KEEP_ALIVE_SECONDS", "15", "E012"),
        ("EVENTS_MAX_SECONDS", None, "E013"),
        ("PERMISSION_CLASSES", [".x"], "E015"),
        ("PERMISSION_CLASSES", ["rest_framework.throttling.UserRateThrottle"], "E015"),
        ("THROTTLE_CLASSES", ["..x"], "E016"),
        ("THROTTLE_CLASSES", ["rest_framework.permissions.IsAdminUser"], "E016"),
        ("API_TENANT", ".x", "E022"),
        ("API_TENANT", "..x", "E022"),
        ("CIPHER", ".x", "E024"),
        ("CIPHER", "..x", "E024"),
    ],
)
def test_a_bad_value_is_named(settings, name, value, check_id):
    setattr(settings, f"AGENT_SESSIONS_{name}", value)
    found = ours()
    assert list(found) == [check_id]
    assert f"AGENT_SESSIONS_{name} is {value!r}: it must be " in found[check_id].msg
    assert found[check_id].hint == f"The default is {Settings.defaults[name]!r}."


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_MESSAGES", None),
        ("EXPIRY_HOURS", 0.5),
        ("EXPIRY_HOURS", None),
        ("RETENTION_DAYS", 30),
        ("EXTRA_ROLES", ["critic"]),
        ("READ_RATE", "600/min"),
    ],
)
def test_a_good_value_is_not(settings, name, value):
    setattr(settings, f"AGENT_SESSIONS_{name}", value)
    assert ours() == {}


def test_an_unknown_name_gets_a_suggestion(settings):
    settings.AGENT_SESSIONS_EXPIRY_HOUR = 5
    found = ours()
    assert list(found) == ["W001"]
    assert found["W001"].hint == "Did you mean AGENT_SESSIONS_EXPIRY_HOURS?"


def test_a_schedule_without_cleanup(settings):
    settings.CELERY_BEAT_SCHEDULE = {"mail": {"task": "mail.send", "schedule": 5}}
    assert list(ours()) == ["W002"]
    settings.AGENT_SESSIONS_EXPIRY_HOURS = None
    assert ours() == {}


def test_no_schedule_is_no_news(settings):
    settings.CELERY_BEAT_SCHEDULE = {}
    assert ours() == {}


def in_database() -> list[str]:
    """Return the ids that checks of the database report, but for a server without autovacuum."""
    found = [*ours(databases=["default"])]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SHOW autovacuum")
            if cursor.fetchone() == ("off",):
                found.remove("W007")
    return found


class TestDatabase:
    def test_a_database_in_order_has_no_messages(self):
        assert in_database() == []

    @pytest.mark.postgres
    def test_a_missing_index_is_reported(self):
        with connection.cursor() as cursor:
            cursor.execute(f"DROP INDEX {search_index.NAME}")
        assert in_database() == ["W003"]
        found = ours(databases=["default"])
        assert "CREATE EXTENSION IF NOT EXISTS pg_trgm" in found["W003"].hint
        assert ours() == {}

    @pytest.mark.postgres
    def test_autovacuum_that_is_off_is_reported(self):
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE agent_sessions_session SET (autovacuum_enabled = false)")
        assert "W007" in ours(databases=["default"])

    @pytest.mark.postgres
    def test_a_database_that_cannot_hold_every_text_is_reported(self, monkeypatch):
        name = f"latin1_{uuid.uuid4().hex}"
        database, admin = connection.copy(), connection.copy()
        database.settings_dict["NAME"], admin.settings_dict["NAME"] = name, "postgres"
        with admin.cursor() as cursor:
            cursor.execute(
                f"CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' "
                "TEMPLATE template0"
            )
            monkeypatch.setattr(checks, "connections", {"default": database})
            try:
                assert [each.id for each in checks.check_encoding(["default"])] == [
                    "agent_sessions.W009"
                ]
            finally:
                database.close()
                cursor.execute(f"DROP DATABASE {name}")
        admin.close()

    def test_a_project_that_commits_by_hand_is_told(self, monkeypatch):
        monkeypatch.setitem(connection.settings_dict, "AUTOCOMMIT", False)
        assert in_database() == ["W005"]

    @pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite locks whole databases.")
    @pytest.mark.parametrize(("mode", "ids"), [("DEFERRED", ["W006"]), ("IMMEDIATE", [])])
    def test_transactions_of_sqlite_that_begin_by_reading_are_reported(
        self, monkeypatch, mode, ids
    ):
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], "transaction_mode", mode)
        assert in_database() == ids
