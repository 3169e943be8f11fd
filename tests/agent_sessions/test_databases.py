"""Sessions in a database other than the default one."""

from __future__ import annotations

import subprocess
import sys

from tests.processes import ROOT

SCRIPT = """
import sys
import warnings

warnings.simplefilter("error")

import django
from django.conf import settings

def sqlite(name):
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": name}

settings.configure(
    SECRET_KEY="x",
    USE_TZ=True,
    DATABASES={"default": sqlite(":memory:"), "archive": sqlite(":memory:")},
    INSTALLED_APPS=["agent_sessions", "django.contrib.auth", "django.contrib.contenttypes"],
)
django.setup()

from django.contrib.auth.models import User
from django.core.management import call_command

from agent_sessions import Session, SyncSessionRepository

for alias in settings.DATABASES:
    call_command("migrate", database=alias, verbosity=0)
    User.objects.using(alias).create(pk=7, username="ada")

here, there = SyncSessionRepository(), SyncSessionRepository("archive")
session = there.create(Session(user_id=7, agent_id="code"))
there.add_messages(session.pk, [{"role": "user", "content": "hello", "idempotency_key": "1"}] * 2)
there.update_session_context(session.pk, {"a": 1})
there.update_session(session.pk, {"title": "Debug"})
there.bulk_update_session_status([session.pk], "paused")

assert here.get_user_sessions(7, active_only=False) == []
assert here.search_sessions(7, "hello") == []
assert here.verify_counters(repair=True) == there.verify_counters(repair=True) == []
assert there.search_sessions(7, "hello") == [session]
assert there.get_paginated_user_sessions(7, 1, 10).items == [session]
loaded = there.get_session_with_messages(session.pk)
assert [message._state.db for message in loaded.messages] == ["archive"]
assert (loaded.title, loaded.status, loaded.message_count) == ("Debug", "paused", 1)

# Django's way to copy a row to another database.
loaded.save(using="default")
assert here.get(session.pk).message_count == 1

there.delete(session.pk)
assert there.delete_user_data(7).sessions == 0
assert here.delete_user_data(7).sessions == 1
"""


def test_every_operation_stays_in_its_database() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
