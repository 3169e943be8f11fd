"""The admin classes in a site of the project's own, beside Django's."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import path

from agent_sessions.admin import MessageAdmin, SessionAdmin
from agent_sessions.models import Message, Session
from agent_sessions.repository import SyncSessionRepository

backstage = admin.AdminSite("backstage")
backstage.register(Session, SessionAdmin)
backstage.register(Message, MessageAdmin)

urlpatterns = [path("admin/", admin.site.urls), path("backstage/", backstage.urls)]

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


def test_links_stay_in_the_site(admin_client: Client, admin_user: Any) -> None:
    repository = SyncSessionRepository()
    session = repository.create(Session(user=admin_user, agent_id="a"))
    messages = repository.add_messages(session.pk, [{"role": "user", "content": "x"}] * 30)
    here = "/backstage/agent_sessions"
    for page in (
        "session/",
        f"session/{session.pk}/change/",
        f"session/{session.pk}/delete/",
        "message/",
        f"message/{messages[0].pk}/change/",
    ):
        text = admin_client.get(f"{here}/{page}").content.decode()
        assert f'href="{here}/session/' in text
        assert 'href="/admin/' not in text
