from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.cache import cache
from rest_framework.renderers import BaseRenderer
from rest_framework.test import APIClient

from agent_sessions.api import streams
from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository

API = "/api/v1/"


def make_user(name: str, *permissions: str, staff: bool = False) -> Any:
    user = get_user_model().objects.create(username=name, is_staff=staff)
    for codename in permissions:
        user.user_permissions.add(
            Permission.objects.get(content_type__app_label="agent_sessions", codename=codename)
        )
    return user


class AnyJSON(BaseRenderer):
    """Writes what clients may write: null, lone surrogates as escapes, NaN."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(self, data: Any, *args: Any, **kwargs: Any) -> bytes:
        return json.dumps(data).encode("ascii")


class Client(APIClient):
    renderer_classes_list = [AnyJSON]

    def _encode_data(self, data: Any, format: Any = None, content_type: Any = None) -> Any:
        if data is None and format == "json":
            return b"null", "application/json"
        return super()._encode_data(data, format, content_type)


def client_of(user: Any) -> APIClient:
    client = Client()
    client.force_authenticate(user)
    return client


@pytest.fixture(autouse=True)
def no_requests_counted() -> None:
    """Users of several tests have one key, by which rates and open streams are counted."""
    cache.clear()
    streams._open.clear()


@pytest.fixture
def owner(db: None) -> Any:
    return make_user("owner")


@pytest.fixture
def stranger(db: None) -> Any:
    return make_user("stranger")


@pytest.fixture
def api(owner: Any) -> APIClient:
    """The API as the owner sees it."""
    return client_of(owner)


@pytest.fixture
def session(owner: Any) -> Session:
    return SyncSessionRepository().create(
        Session(user=owner, agent_id="code_agent", title="Debug Python script")
    )


def url(session: Any, *more: str) -> str:
    key = getattr(session, "pk", session)
    return f"{API}sessions/{key}/" + "".join(f"{part}/" for part in more)


def say(session: Session, *texts: str) -> None:
    SyncSessionRepository().add_messages(
        session.pk, [{"role": "user", "content": text} for text in texts]
    )
