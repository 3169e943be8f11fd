from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
sys.modules["drf_spectacular"] = None
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="x",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "agent_sessions"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    ROOT_URLCONF="agent_sessions.api.urls",
)
django.setup()
from django.test import RequestFactory
from django.urls import resolve
response = resolve("/sessions/").func(RequestFactory().get("/sessions/")).render()
print(response.status_code, response["Content-Type"])
"""


def test_the_api_needs_neither_spectacular_nor_an_installed_rest_framework() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, timeout=60
    )
    assert run.stderr == ""
    assert run.stdout.split() == ["403", "application/problem+json"]
