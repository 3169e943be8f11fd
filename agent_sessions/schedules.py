"""Beat entries for the periodic work; merge `BEAT_SCHEDULE` into `CELERY_BEAT_SCHEDULE`.

The module can be imported from settings, and without Celery.
"""

from __future__ import annotations

from datetime import timedelta

CLEANUP_EVERY = timedelta(minutes=5)
PURGE_EVERY = timedelta(days=1)


def beat_schedule(
    cleanup_every: timedelta = CLEANUP_EVERY, purge_every: timedelta = PURGE_EVERY
) -> dict[str, dict[str, object]]:
    """Return entries that complete expired sessions and purge those past their retention.

    A run expires when the next one is due, so that a queue without workers does not fill.
    """
    return {
        "agent_sessions.cleanup_expired_sessions": _entry(
            "agent_sessions.cleanup_expired_sessions", cleanup_every
        ),
        "agent_sessions.purge_old_sessions": _entry(
            "agent_sessions.purge_old_sessions", purge_every
        ),
    }


def _entry(task: str, every: timedelta) -> dict[str, object]:
    return {
        "task": task,
        "schedule": every,
        "options": {"expires": every.total_seconds()},
    }


BEAT_SCHEDULE = beat_schedule()
