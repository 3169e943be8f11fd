from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connections
from playwright.sync_api import Page, sync_playwright

from tests import services

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Visit:
    """A browser window on the live server, and what went wrong in it."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.trouble: list[str] = []
        page.on("dialog", self._dialog)
        page.on("pageerror", lambda error: self.trouble.append(f"error: {error}"))
        page.on("requestfailed", self._failed)
        page.on("response", self._response)
        page.on("request", self._request)

    def _failed(self, request: Any) -> None:
        # What becomes a download counts as an aborted page.
        if request.failure != "net::ERR_ABORTED":
            self.trouble.append(f"failed: {request.url} {request.failure}")

    def _dialog(self, dialog: Any) -> None:
        self.trouble.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _response(self, response: Any) -> None:
        if response.status >= 400 and not response.url.endswith("/favicon.ico"):
            self.trouble.append(f"{response.status}: {response.url}")

    def _request(self, request: Any) -> None:
        if urlsplit(request.url).scheme != "data" and not request.url.startswith(self.address):
            self.trouble.append(f"left the machine: {request.url}")

    def open(self, path: str) -> Page:
        self.page.goto(self.address + path)
        return self.page

    def log_in(self, username: str, password: str) -> None:
        self.open("/admin/login/")
        self.page.fill("#id_username", username)
        self.page.fill("#id_password", password)
        self.page.click("input[type=submit]")
        self.page.wait_for_url("**/admin/")


@pytest.fixture
def visit(live_server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Visit]:
    """A fresh Chromium; the test fails if a script, a request or a dialog misbehaved in it."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        services.missing("Chromium", "install the program chromium")
    # Playwright keeps an event loop in this thread, and Django would refuse the ORM beside it.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        page = browser.new_page(viewport={"width": 1300, "height": 900}, locale="en")
        visit = Visit(page, live_server.url)
        yield visit
        browser.close()
        # Beside a running loop Django keeps other connections than without one, and only here
        # they can be closed.
        connections.close_all()
    assert visit.trouble == []
