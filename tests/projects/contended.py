"""Many append to one session at once, where the database lets transactions fail for that."""

from __future__ import annotations

import threading
from typing import Any

from django.db import connection

from agent_sessions.repository import SyncSessionRepository

EACH = 15


def after(tour: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SHOW default_transaction_isolation")
        assert cursor.fetchone()[0] in ("repeatable read", "serializable")
    made = tour.ask("sessions/", {"agent_id": "a"}).json()["id"]
    numbers: list[int] = []
    errors: list[Exception] = []

    def append() -> None:
        repository = SyncSessionRepository().for_user(tour.owner)
        try:
            for _ in range(EACH):
                message = {"role": "user", "content": "x"}
                numbers.append(repository.add_message_to_session(made, message).sequence)
        except Exception as error:  # noqa: BLE001
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=append) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(numbers) == list(range(1, 4 * EACH + 1))
    print("ok contended appends")
