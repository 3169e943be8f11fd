"""Many append to one session at once, where the database lets transactions fail for that."""

from __future__ import annotations

from typing import Any

from django.db import connection

from agent_sessions.repository import SyncSessionRepository
from tests.threads import at_once

EACH = 15


def after(tour: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SHOW default_transaction_isolation")
        assert cursor.fetchone()[0] in ("repeatable read", "serializable")
    made = tour.ask("sessions/", {"agent_id": "a"}).json()["id"]
    numbers: list[int] = []

    def append(_thread: int) -> None:
        repository = SyncSessionRepository().for_user(tour.owner)
        for _ in range(EACH):
            message = {"role": "user", "content": "x"}
            numbers.append(repository.add_message_to_session(made, message).sequence)

    at_once(append, range(4))
    assert sorted(numbers) == list(range(1, 4 * EACH + 1))
    print("ok contended appends")
