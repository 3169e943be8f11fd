"""Runs in processes of its own: `python -m tests.agent_sessions.worker DATABASE OPERATION …`.

Each worker prints "ready", waits for a line on its input, works, and prints its result as JSON.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from typing import Any

import django
from django.conf import settings


def append(session_id: str, count: str, name: str) -> list[int]:
    return [
        repository()
        .add_message_to_session(session_id, {"role": "user", "content": f"{name} {number}"})
        .sequence
        for number in range(int(count))
    ]


def append_forever(session_id: str) -> None:
    while True:
        repository().add_messages(session_id, [{"role": "user", "content": "x" * 50}] * 3)
        print("added", flush=True)


def change_forever(session_id: str) -> None:
    while True:
        repository().replace_tail(session_id, 3, [{"role": "user", "content": "x" * 50}] * 3)
        repository().pop_message(session_id)
        print("changed", flush=True)


def append_keyed(session_id: str, count: str) -> list[int]:
    keys = list(range(int(count)))
    random.shuffle(keys)
    added = {
        key: repository()
        .add_message_to_session(
            session_id, {"role": "user", "content": str(key), "idempotency_key": f"k{key}"}
        )
        .sequence
        for key in keys
    }
    return [added[key] for key in sorted(added)]


def merge(session_id: str, count: str, name: str) -> None:
    for number in range(int(count)):
        repository().update_session_context(session_id, {f"{name}-{number}": number})


def set_statuses(*session_ids: str) -> None:
    ids = list(session_ids)
    for status in ("paused", "active", "failed") * 5:
        random.shuffle(ids)
        repository().bulk_update_session_status(ids, status)


def cleanup() -> int:
    return repository().cleanup_expired_sessions()


def clean_until_killed() -> None:
    settings.AGENT_SESSIONS_CLEANUP_BATCH_SIZE = 10

    def pause(count: int) -> None:
        print("batch", flush=True)
        sys.stdin.readline()

    repository().cleanup_expired_sessions(progress=pause)


def count_again(times: str) -> list[str]:
    wrong = []
    for _time in range(int(times)):
        wrong += repository().verify_counters(repair=True)
    return [str(session_id) for session_id in wrong]


def create_keyed(user_id: str, count: str) -> list[str]:
    from agent_sessions.models import Session

    return [
        str(
            repository()
            .create(Session(user_id=user_id, agent_id="x", idempotency_key=f"k{number}"))
            .id
        )
        for number in range(int(count))
    ]


def repository() -> Any:
    from agent_sessions.repository import SyncSessionRepository

    return SyncSessionRepository()


def main() -> None:
    database, operation, *arguments = sys.argv[1:]
    settings.DATABASES["default"]["NAME"] = database
    # Quick to start: no admin, no REST framework.
    needed = {"django.contrib.auth", "django.contrib.contenttypes", "agent_sessions", "tests.users"}
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app in needed]
    django.setup()
    work: Callable[..., Any] = globals()[operation]
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(work(*arguments)), flush=True)


if __name__ == "__main__":
    main()
