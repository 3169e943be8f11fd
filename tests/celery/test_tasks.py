from __future__ import annotations

import os
import socket
import subprocess
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.utils import timezone

from agent_sessions.models import Session, SessionStatus
from agent_sessions.repository import SyncSessionRepository
from agent_sessions.schedules import BEAT_SCHEDULE, beat_schedule
from agent_sessions.tasks import cleanup_expired_sessions, purge_old_sessions
from example_project.celery import app
from tests import services
from tests.processes import Project, end, project, wait_until

MAKE_EXPIRED = """
from datetime import timedelta
from django.contrib.auth import get_user_model
from django.utils import timezone
from agent_sessions.models import Session
user = get_user_model().objects.create_user("alice")
Session.objects.create(
    user=user, agent_id="a", expires_at=timezone.now() - timedelta(hours=1)
)
Session.objects.create(user=user, agent_id="a")
"""
COMPLETED = "SELECT COUNT(*) FROM agent_sessions_session WHERE status = 'completed'"


@pytest.fixture
def user(django_user_model: Any) -> Any:
    return django_user_model.objects.create_user("alice")


@pytest.mark.django_db
def test_cleanup_task_returns_how_many_it_completed(user: Any) -> None:
    past = timezone.now() - timedelta(hours=1)
    session = SyncSessionRepository().create(Session(user=user, agent_id="a", expires_at=past))
    assert cleanup_expired_sessions() == 1
    session.refresh_from_db()
    assert session.status == SessionStatus.COMPLETED


@pytest.mark.django_db
def test_purge_task_follows_the_setting(user: Any, settings: Any) -> None:
    session = SyncSessionRepository().create(
        Session(user=user, agent_id="a", status=SessionStatus.COMPLETED)
    )
    Session.objects.filter(pk=session.pk).update(updated_at=timezone.now() - timedelta(days=9))
    assert purge_old_sessions() == 0
    settings.AGENT_SESSIONS_RETENTION_DAYS = 5
    assert purge_old_sessions() == 1
    assert not Session.objects.exists()


@pytest.mark.django_db
def test_every_scheduled_task_exists() -> None:
    app.loader.import_default_modules()
    assert {entry["task"] for entry in BEAT_SCHEDULE.values()} <= set(app.tasks)
    assert settings.CELERY_BEAT_SCHEDULE.keys() == BEAT_SCHEDULE.keys()


def test_a_run_expires_when_the_next_is_due() -> None:
    entry = beat_schedule(cleanup_every=timedelta(seconds=90))[
        "agent_sessions.cleanup_expired_sessions"
    ]
    assert entry["schedule"] == timedelta(seconds=90)
    assert entry["options"] == {"expires": 90}


def test_a_run_expires_whatever_a_scheduler_keeps_of_its_entry() -> None:
    for entry in BEAT_SCHEDULE.values():
        # Some keep no options.
        task: Any = app.tasks[str(entry["task"])]
        assert timedelta(seconds=task.expires) == entry["schedule"]


def complete_by_worker_and_beat(example: Project) -> None:
    """Let a real worker and a real beat do it, on the broker in the environment."""
    example.environment["SESSION_CLEANUP_SECONDS"] = "1"
    example.environment["CELERY_QUEUE"] = f"test_{uuid.uuid4().hex}"
    example.environment["C_FORCE_ROOT"] = "1"
    example.manage("shell", "-v0", "-c", MAKE_EXPIRED)
    assert example.scalar(COMPLETED) == 0
    celery = ("-m", "celery", "--app", "example_project")
    log = (example.directory / "celery.log").open("wb")
    output = {"stdout": log, "stderr": subprocess.STDOUT}
    schedule = str(example.directory / "schedule")
    worker = example.start(*celery, "worker", "--pool", "solo", "--loglevel", "INFO", **output)
    beat = example.start(*celery, "beat", "--schedule", schedule, "--pidfile", "", **output)
    try:
        wait_until(
            "Completion by the worker",
            lambda: example.scalar(COMPLETED) == 1 or worker.poll() or beat.poll(),
        )
    finally:
        end(beat)
        end(worker)
        log.close()
    text = (example.directory / "celery.log").read_text()
    assert example.scalar(COMPLETED) == 1, text
    assert "Traceback" not in text
    assert "agent_sessions.cleanup_expired_sessions" in text


@pytest.mark.slow
def test_worker_and_beat_complete_an_expired_session_without_a_broker(tmp_path: Path) -> None:
    with project(tmp_path) as example:
        complete_by_worker_and_beat(example)


@pytest.mark.slow
@pytest.mark.rabbitmq
def test_worker_and_beat_complete_an_expired_session_over_rabbitmq(tmp_path: Path) -> None:
    url = os.environ.get("CELERY_BROKER_URL") or "amqp://guest:guest@127.0.0.1:5672//"
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname or "", address.port or 5672), 2).close()
    except OSError:
        services.missing("RabbitMQ", f"nothing listens at {address.hostname}:{address.port}")
    with project(tmp_path) as example:
        example.environment["CELERY_BROKER_URL"] = url
        complete_by_worker_and_beat(example)
        delete_queue(url, example.environment["CELERY_QUEUE"])


def delete_queue(url: str, name: str) -> None:
    from kombu import Connection, Exchange

    with Connection(url) as connection:
        channel = connection.default_channel
        channel.queue_delete(name)
        Exchange(name, channel=channel).delete()
