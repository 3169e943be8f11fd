from __future__ import annotations

from typing import Any

import pytest

from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository
from tests.browser.conftest import Visit

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
]


def test_the_start_page_leads_everywhere(visit: Visit) -> None:
    page = visit.open("/")
    addresses = {link.get_attribute("href") or "" for link in page.locator("a").all()}
    assert {"/admin/", "/api/docs/", "/api/schema/"} <= addresses
    # The API itself asks for the login, and the schema is a file.
    for address in sorted(addresses - {"/api/v1/sessions/", "/api/schema/"}):
        visit.open(address)


def test_the_api_documentation_needs_nothing_from_elsewhere(visit: Visit) -> None:
    page = visit.open("/api/docs/")
    page.wait_for_selector(".opblock-summary-path")
    text = page.inner_text("#swagger-ui")
    assert "/api/v1/sessions/" in text.replace("\u200b", "")


def test_the_browsable_api_after_its_login(visit: Visit, admin_user: Any) -> None:
    SyncSessionRepository().create(Session(user=admin_user, agent_id="a", title="Mine"))
    page = visit.open("/api/auth/login/?next=/api/v1/sessions/")
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", "password")
    page.click("input[type=submit]")
    page.wait_for_url("**/api/v1/sessions/")
    assert "Mine" in page.inner_text("body")
