from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository
from agent_sessions.signals import session_created, session_status_changed, sessions_deleted


@pytest.fixture
def repository() -> SyncSessionRepository:
    return SyncSessionRepository()


@pytest.fixture
def user(db: None) -> Any:
    return get_user_model().objects.create_user(username="ada", password="x")


@pytest.fixture
def other_user(db: None) -> Any:
    return get_user_model().objects.create_user(username="bob", password="x")


@pytest.fixture
def make_session(repository: SyncSessionRepository, user: Any) -> Callable[..., Session]:
    def make(**values: Any) -> Session:
        values.setdefault("user", user)
        values.setdefault("agent_id", "code_agent")
        return repository.create(Session(**values))

    return make


@pytest.fixture
def session(make_session: Callable[..., Session]) -> Session:
    return make_session(title="Debug Python Script")


@pytest.fixture
def received(django_capture_on_commit_callbacks: Any) -> Iterator[list[tuple[Any, dict[str, Any]]]]:
    heard: list[tuple[Any, dict[str, Any]]] = []

    def receive(signal: Any, **arguments: Any) -> None:
        heard.append((signal, arguments))

    signals = (session_created, session_status_changed, sessions_deleted)
    for signal in signals:
        signal.connect(receive)
    yield heard
    for signal in signals:
        signal.disconnect(receive)
