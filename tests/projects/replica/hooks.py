"""Copies the primary into the replica after each step, and never before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management import call_command
from django.db import connections

from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository

#: In the order of their references.
TABLES = ("auth_user", "agent_sessions_session", "agent_sessions_message")


def prepare() -> None:
    for alias in ("default", "replica"):
        call_command("migrate", database=alias, verbosity=0)


def follow() -> None:
    """Bring the replica up to date, row by row."""
    with connections["default"].cursor() as source, connections["replica"].cursor() as target:
        target.execute(f"TRUNCATE {', '.join(TABLES)} CASCADE")
        for table in TABLES:
            source.execute(f"SELECT coalesce(json_agg(t), '[]')::text FROM {table} t")
            target.execute(
                f"INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, %s)",
                source.fetchone(),
            )


@contextmanager
def around(name: str) -> Iterator[None]:
    follow()
    yield
    follow()


def after(tour: Any) -> None:
    repository = SyncSessionRepository().for_user(tour.owner)
    made = repository.create(Session(agent_id="a", title="before"))
    follow()
    # Read from the replica, while others append to the primary.
    old = Session.objects.get(pk=made.pk)
    assert old._state.db == "replica"
    for _ in range(3):
        repository.add_message_to_session(made.pk, {"role": "user", "content": "x"})
    old.title = "after"
    old.save()
    stored = Session.objects.using("default").get(pk=made.pk)
    assert stored.title == "after"
    assert (stored.message_count, stored.last_sequence) == (3, 3)
    assert stored.last_message_at is not None
    added = repository.add_message_to_session(made.pk, {"role": "user", "content": "x"})
    assert added.sequence == 4
    print("ok saved from the replica")
