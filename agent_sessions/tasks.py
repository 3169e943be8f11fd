"""Celery tasks: the repository's periodic operations, each a task of a few lines.

`agent_sessions.schedules.BEAT_SCHEDULE` runs them. Runs that overlap do no harm. A run that no
worker has begun when the next one is due expires.
"""

from __future__ import annotations

from celery import shared_task

from agent_sessions.repository import SyncSessionRepository
from agent_sessions.repository.connections import committing
from agent_sessions.schedules import CLEANUP_EVERY, PURGE_EVERY


# Schedulers that keep their entries in a database drop the `expires` of an entry.
@shared_task(name="agent_sessions.cleanup_expired_sessions", expires=CLEANUP_EVERY.total_seconds())
def cleanup_expired_sessions() -> int:
    """Complete the sessions past their expiry; return how many this run changed."""
    repository = SyncSessionRepository()
    with committing(repository.using):
        return repository.cleanup_expired_sessions()


@shared_task(name="agent_sessions.purge_old_sessions", expires=PURGE_EVERY.total_seconds())
def purge_old_sessions() -> int:
    """Delete sessions finished for more than AGENT_SESSIONS_RETENTION_DAYS; return how many.

    Without that setting nothing is deleted.
    """
    repository = SyncSessionRepository()
    with committing(repository.using):
        return repository.purge_old_sessions()
