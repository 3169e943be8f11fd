from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository


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
