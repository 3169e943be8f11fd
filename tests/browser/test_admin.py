from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from agent_sessions.models import Message, Session
from agent_sessions.repository import SyncSessionRepository
from tests.browser.conftest import Visit

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
]

EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest.fixture
def session(admin_user: Any) -> Session:
    repository = SyncSessionRepository()
    for number in range(3):
        repository.create(Session(user=admin_user, agent_id="other", title=f"Other {number}"))
    session = repository.create(
        Session(user=admin_user, agent_id="coder", title=f"Debug {EVIL}", context={"a": EVIL})
    )
    repository.add_messages(
        session.pk,
        [
            {"role": "assistant" if number % 2 else "user", "content": f"line {number} {EVIL}"}
            for number in range(1_050)
        ],
    )
    return session


@pytest.fixture
def logged_in(visit: Visit, session: Session) -> Visit:
    visit.log_in("admin", "password")
    return visit


def test_from_the_search_to_the_last_message(logged_in: Visit, session: Session) -> None:
    page = logged_in.open("/admin/agent_sessions/session/")
    expect(page.locator("#result_list tbody tr")).to_have_count(4)
    page.fill("#searchbar", "line 1049")
    page.press("#searchbar", "Enter")
    page.wait_for_url("**q=line*")
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    page.click("#result_list tbody th a")
    panel = page.locator(".agent-sessions-conversation")
    expect(panel.locator("li")).to_have_count(20)
    expect(panel.locator("li").last).to_contain_text(f"line 1049 {EVIL}")
    page.click(".object-tools >> text=All messages")
    page.click(".paginator >> text='11'")
    expect(page.locator("#result_list tbody tr")).to_have_count(50)
    page.click("#result_list tbody tr:last-child .field-excerpt a")
    expect(page.locator(".field-text pre")).to_have_text(f"line 1049 {EVIL}")
    expect(page.locator("input[type=submit]")).to_have_count(0)


@pytest.mark.parametrize("name", ["session", "message"])
def test_all_columns_of_a_list_fit_beside_the_filters(logged_in: Visit, name: str) -> None:
    SyncSessionRepository().create(
        Session(user_id=Session.objects.first().user_id, agent_id="chatterbot-yoruba", title="long")
    )
    page = logged_in.open(f"/admin/agent_sessions/{name}/")
    page.set_viewport_size({"width": 1280, "height": 800})
    sizes = page.evaluate(
        "() => { const it = document.querySelector('#changelist .results');"
        " return [it.scrollWidth, it.clientWidth]; }"
    )
    assert sizes[0] <= sizes[1]


def test_the_agent_filter_keeps_the_rest_of_the_question(
    logged_in: Visit, session: Session
) -> None:
    page = logged_in.open("/admin/agent_sessions/session/?status__exact=active")
    page.fill("input[name=agent_id]", "other")
    page.press("input[name=agent_id]", "Enter")
    page.wait_for_url("**agent_id=other*")
    assert "status__exact=active" in page.url
    expect(page.locator("#result_list tbody tr")).to_have_count(3)
    page.click(".agent-sessions-filter >> text=Clear")
    expect(page.locator("#result_list tbody tr")).to_have_count(4)


def test_sessions_are_archived_exported_and_deleted(
    logged_in: Visit, session: Session, tmp_path: Path
) -> None:
    page = logged_in.open("/admin/agent_sessions/session/")
    page.check("#result_list tbody tr:nth-child(1) input.action-select")
    page.select_option("select[name=action]", "export")
    with page.expect_download() as download:
        page.click("button[name=index]")
    download.value.save_as(tmp_path / "sessions.jsonl")
    [line] = (tmp_path / "sessions.jsonl").read_text().splitlines()
    assert json.loads(line)["title"] == f"Debug {EVIL}"
    assert len(json.loads(line)["messages"]) == 1_050

    page.select_option("select[name=action]", "archive")
    page.click("button[name=index]")
    page.wait_for_selector(".messagelist .success")
    assert page.inner_text(".messagelist") == "1 session is now archived."
    session.refresh_from_db()
    assert session.status == "archived"

    page.check("#result_list tbody tr:nth-child(1) input.action-select")
    page.select_option("select[name=action]", "delete_selected")
    page.click("button[name=index]")
    expect(page.locator("#content")).to_contain_text(re.compile("Messages: 1,?050"))
    page.click("input[type=submit]")
    page.wait_for_selector(".messagelist .success")
    assert Session.objects.count() == 3
    assert not Message.objects.exists()


def test_a_session_is_changed_in_the_form(logged_in: Visit, session: Session) -> None:
    page = logged_in.open(f"/admin/agent_sessions/session/{session.pk}/change/")
    assert json.loads(page.input_value("#id_context")) == {"a": EVIL}
    page.fill("#id_title", "Renamed")
    page.fill("#id_context", "{")
    page.click("input[name=_save]")
    expect(page.locator(".field-context .errorlist")).to_contain_text("Enter a valid JSON")
    page.fill("#id_context", '{"b": 2}')
    page.click("input[name=_save]")
    page.wait_for_selector(".messagelist .success")
    session.refresh_from_db()
    assert (session.title, session.context) == ("Renamed", {"b": 2})
