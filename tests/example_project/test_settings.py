from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from example_project.local_key import local_secret_key
from tests.processes import ROOT

# A fresh process for each.
pytestmark = pytest.mark.slow

SHOW = """
import json, sys, warnings
warnings.simplefilter("error")
from example_project import settings
print(json.dumps({name: getattr(settings, name) for name in sys.argv[1:]}, default=str))
"""


def settings_with(environment: dict[str, str], tmp_path: Path, *names: str) -> dict[str, Any]:
    """The settings as a fresh process reads them."""
    done = subprocess.run(
        [sys.executable, "-c", SHOW, *names],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "DJANGO_READ_DOT_ENV": "0",
            "DATA_DIR": str(tmp_path / "data"),
            **environment,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_without_any_variable_no_service_is_needed(tmp_path: Path) -> None:
    found = settings_with(
        {}, tmp_path, "DEBUG", "DATABASES", "CACHES", "CELERY_BROKER_URL", "ALLOWED_HOSTS"
    )
    assert found["DEBUG"] is False
    database = found["DATABASES"]["default"]
    assert database["ENGINE"] == "django.db.backends.sqlite3"
    assert database["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert found["CACHES"]["default"]["BACKEND"] == "cache_layer.backends.ResilientCache"
    assert not found["CACHES"]["default"].get("LOCATION")
    assert found["CELERY_BROKER_URL"] == "filesystem://"
    assert found["ALLOWED_HOSTS"] == ["localhost", "127.0.0.1", "[::1]"]


def test_an_empty_variable_is_one_that_is_not_set(tmp_path: Path) -> None:
    names = ["DATABASES", "CACHES", "CELERY_BROKER_URL", "CELERY_BEAT_SCHEDULE", "LOGGING"]
    names += ["ALLOWED_HOSTS", "AGENT_SESSIONS_MAX_MESSAGES", "SECRET_KEY"]
    variables = ["DATABASE_URL", "DATABASE_POOL", "REDIS_URL", "CACHE_DEFAULT_TTL", "LOG_LEVEL"]
    variables += ["CELERY_BROKER_URL", "BROKER_DIR", "ALLOWED_HOSTS", "DEBUG", "SECRET_KEY"]
    variables += ["SESSION_MAX_MESSAGES", "SESSION_CLEANUP_SECONDS"]
    empty = dict.fromkeys(variables, "")
    assert settings_with(empty, tmp_path, *names) == settings_with({}, tmp_path, *names)


def test_each_service_is_switched_on_by_its_url(tmp_path: Path) -> None:
    found = settings_with(
        {
            "DATABASE_URL": "postgres://u:p@db:5433/name?sslmode=require",
            "DATABASE_POOL": "true",
            "REDIS_URL": "redis://cache:6379/2",
            "CELERY_BROKER_URL": "amqp://guest:guest@broker//",
        },
        tmp_path,
        *("DATABASES", "CACHES", "CELERY_BROKER_URL"),
    )
    database = found["DATABASES"]["default"]
    assert database["ENGINE"] == "django.db.backends.postgresql"
    assert (database["HOST"], database["PORT"], database["NAME"]) == ("db", 5433, "name")
    assert database["OPTIONS"] == {"pool": True, "sslmode": "require"}
    assert found["CACHES"]["default"]["LOCATION"] == "redis://cache:6379/2"
    assert found["CELERY_BROKER_URL"] == "amqp://guest:guest@broker//"


def test_the_session_variables(tmp_path: Path) -> None:
    names = (
        "AGENT_SESSIONS_MAX_MESSAGES",
        "AGENT_SESSIONS_EXPIRY_HOURS",
        "AGENT_SESSIONS_RETENTION_DAYS",
    )
    assert list(settings_with({}, tmp_path, *names).values()) == [100, 24, None]
    found = settings_with(
        {
            "SESSION_MAX_MESSAGES": "200",
            "SESSION_EXPIRY_HOURS": "none",
            "SESSION_RETENTION_DAYS": "1.5",
        },
        tmp_path,
        *names,
    )
    assert list(found.values()) == [200, None, 1.5]


def test_a_bad_number_is_left_for_the_checks_to_report(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "DJANGO_READ_DOT_ENV": "0",
            "DATA_DIR": str(tmp_path),
            "SESSION_MAX_MESSAGES": "many",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "AGENT_SESSIONS_MAX_MESSAGES" in done.stderr
    assert "many" in done.stderr


def test_deployment_checks_have_nothing_to_say_with_https(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "DJANGO_READ_DOT_ENV": "0",
            "DATA_DIR": str(tmp_path),
            "HTTPS": "true",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_each_installation_makes_one_key_and_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "key"
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(local_secret_key, [path] * 40))
    assert len(keys) == 1
    assert len(keys.pop()) >= 50
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    assert local_secret_key(path) != local_secret_key(tmp_path / "other")
