"""System checks: settings, the schedule of the cleanup, what the database must have."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004
from django.db import connections, router

from agent_sessions.conf import PREFIX, Settings, settings
from agent_sessions.postgresql import append_function, search_index
from agent_sessions.querysets import LONGEST_DAYS

_RATE = re.compile(r"[1-9]\d*/[smhd]\w*")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e7


def _are_roles(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset) and all(
        isinstance(role, str) and 1 <= len(role) <= 64 and role.isprintable() for role in value
    )


def _is_rate(value: Any) -> bool:
    return value is None or (isinstance(value, str) and _RATE.fullmatch(value) is not None)


_RATES = 'a number per second, minute, hour or day such as "600/min", or None'
_ALLOWED: dict[str, tuple[str, Callable[[Any], bool], str]] = {
    "MAX_MESSAGES": ("E001", lambda v: v is None or _is_count(v), "a whole number from 1, or None"),
    "EXPIRY_HOURS": ("E002", lambda v: v is None or _is_amount(v), "hours above 0, or None"),
    "RETENTION_DAYS": (
        "E003",
        lambda v: v is None or (_is_amount(v) and v <= LONGEST_DAYS),
        f"days above 0 and up to {LONGEST_DAYS:,}, or None",
    ),
    "MAX_MESSAGE_BYTES": ("E004", _is_count, "a whole number from 1"),
    "EXTRA_ROLES": ("E005", _are_roles, "a list of names of at most 64 characters"),
    "MAX_PAGE_SIZE": ("E006", _is_count, "a whole number from 1"),
    "CLEANUP_BATCH_SIZE": ("E007", _is_count, "a whole number from 1"),
    "MAX_REQUEST_BYTES": ("E008", _is_count, "a whole number from 1"),
    "READ_RATE": ("E009", _is_rate, _RATES),
    "WRITE_RATE": ("E010", _is_rate, _RATES),
    "EVENTS_POLL_SECONDS": ("E011", _is_amount, "seconds above 0"),
    "EVENTS_KEEP_ALIVE_SECONDS": ("E012", _is_amount, "seconds above 0"),
    "EVENTS_MAX_SECONDS": ("E013", _is_amount, "seconds above 0"),
}


@register()
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Report settings with values that cannot work (E001 to E013)."""
    return [
        Error(
            f"{PREFIX}{name} is {getattr(settings, name)!r}.",
            hint=f"Allowed: {allowed}. The default is {default!r}.",
            id=f"agent_sessions.{check_id}",
        )
        for name, default in Settings.defaults().items()
        for check_id, is_allowed, allowed in [_ALLOWED[name]]
        if not is_allowed(getattr(settings, name))
    ]


@register()
def check_names(**kwargs: Any) -> list[CheckMessage]:
    """Report settings with our prefix that nothing reads (W001)."""
    known = [PREFIX + name for name in Settings.defaults()]
    found: list[CheckMessage] = []
    for name in sorted(dir(django_settings)):
        if name.startswith(PREFIX) and name not in known:
            near = get_close_matches(name, known, n=1)
            found.append(
                Warning(
                    f"{name} is not a setting of agent_sessions.",
                    hint=f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known)}.",
                    id="agent_sessions.W001",
                )
            )
    return found


@register()
def check_cleanup(**kwargs: Any) -> list[CheckMessage]:
    """Report a beat schedule that leaves out the cleanup of expired sessions (W002).

    Only a schedule kept in the settings can be judged: cron and databases are out of sight.
    """
    schedule = getattr(django_settings, "CELERY_BEAT_SCHEDULE", None)
    if not isinstance(schedule, dict) or not schedule or settings.EXPIRY_HOURS is None:
        return []
    tasks = [str(entry.get("task")) for entry in schedule.values()]
    if any(task.endswith("cleanup_expired_sessions") for task in tasks):
        return []
    return [
        Warning(
            "CELERY_BEAT_SCHEDULE does not clean up expired sessions.",
            hint="Merge agent_sessions.schedules.BEAT_SCHEDULE into it, or silence this check "
            "if something else runs the command cleanup_expired_sessions.",
            id="agent_sessions.W002",
        )
    ]


@register(Tags.database)
def check_append_function(
    databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Report PostgreSQL databases that cannot append messages (W004)."""
    from agent_sessions.models import Message

    return [
        # No error: the command that creates it would refuse to run.
        Warning(
            f"The function {append_function.NAME} is missing in database {alias!r}: "
            "no message can be appended.",
            hint=f"manage.py migrate --database {alias} creates it.",
            id="agent_sessions.W004",
        )
        for alias in databases or ()
        if connections[alias].vendor == "postgresql"
        and router.allow_migrate_model(alias, Message)
        and append_function.is_missing(connections[alias])
    ]


@register(Tags.database)
def check_search_index(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Report PostgreSQL databases whose messages have no search index (W003)."""
    from agent_sessions.models import Message

    found: list[CheckMessage] = []
    for alias in databases or ():
        connection = connections[alias]
        if connection.vendor != "postgresql" or not router.allow_migrate_model(alias, Message):
            continue
        with connection.cursor() as cursor:
            migrated = Message._meta.db_table in connection.introspection.table_names(cursor)
        if migrated and search_index.is_missing(connection):
            found.append(
                Warning(
                    f"Database {alias!r} lacks the search index {search_index.NAME}: "
                    "search works and is slow.",
                    hint=f"As a role that may do so run {search_index.EXTENSIONS_SQL} "
                    f"Then: manage.py create_search_index --database {alias}",
                    id="agent_sessions.W003",
                )
            )
    return found
