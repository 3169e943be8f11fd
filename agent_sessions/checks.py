"""The system checks of agent_sessions; docs/checks.md lists their ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router
from django.utils.module_loading import import_string

from agent_sessions import encryption
from agent_sessions.conf import settings
from agent_sessions.postgresql import functions, search_index
from agent_sessions.querysets import LONGEST_DAYS
from cache_layer.app_settings import COUNT, SECONDS, Rule, is_amount, unknown_names, wrong_values

_LOOKED_AT: Final = 20
_RATE_TEXT: Final = re.compile(r"[1-9]\d*/[smhd]\w*")


def _are_roles(value: object) -> bool:
    return isinstance(value, list | tuple | set | frozenset) and all(
        isinstance(role, str) and 1 <= len(role) <= 64 and role.isprintable() for role in value
    )


def _are_days(value: object) -> bool:
    return isinstance(value, int | float) and is_amount(value) and value <= LONGEST_DAYS


def _is_rate(value: object) -> bool:
    return isinstance(value, str) and _RATE_TEXT.fullmatch(value) is not None


def _imported(value: object) -> object:
    """Return the object with the dotted name; None if there is none."""
    try:
        return import_string(value) if isinstance(value, str) else None
    except (ImportError, TypeError, ValueError):
        # A TypeError and a ValueError are names that begin with a dot.
        return None


def _classes(kind: str, method: str) -> Rule:
    def are_classes(value: object) -> bool:
        return isinstance(value, list | tuple) and all(
            isinstance(found, type) and hasattr(found, method) for found in map(_imported, value)
        )

    return Rule(f"a list of dotted names of {kind} classes", are_classes)


def _is_function(value: object) -> bool:
    return callable(_imported(value))


def _is_importable(value: object) -> bool:
    return _imported(value) is not None


_RATE: Final = Rule('a number per second, minute, hour or day such as "600/min"', _is_rate)

#: The number of the check and the rule of each setting. A new setting takes the next number.
RULES: Final = {
    "MAX_MESSAGES": ("E001", COUNT.or_none()),
    "EXPIRY_HOURS": ("E002", Rule("a number of hours above 0", is_amount).or_none()),
    "RETENTION_DAYS": (
        "E003",
        Rule(f"a number of days above 0 and up to {LONGEST_DAYS:,}", _are_days).or_none(),
    ),
    "MAX_MESSAGE_BYTES": ("E004", COUNT),
    "EXTRA_ROLES": ("E005", Rule("a list of names of at most 64 characters", _are_roles)),
    "MAX_PAGE_SIZE": ("E006", COUNT),
    "CLEANUP_BATCH_SIZE": ("E007", COUNT),
    "MAX_REQUEST_BYTES": ("E008", COUNT),
    "READ_RATE": ("E009", _RATE.or_none()),
    "WRITE_RATE": ("E010", _RATE.or_none()),
    "EVENTS_POLL_SECONDS": ("E011", SECONDS),
    "EVENTS_KEEP_ALIVE_SECONDS": ("E012", SECONDS),
    "EVENTS_MAX_SECONDS": ("E013", SECONDS),
    "MAX_REQUEST_ITEMS": ("E017", COUNT),
    "MAX_OBJECT_BYTES": ("E018", COUNT),
    "MAX_STREAMS_PER_USER": ("E019", COUNT),
    "MAX_EXPORTS_PER_USER": ("E020", COUNT),
    "MAX_STREAMS": ("E021", COUNT),
    "MAX_WSGI_EXPORTS": ("E023", COUNT),
    "API_TENANT": ("E022", Rule("the dotted name of a function", _is_function).or_none()),
    "CIPHER": ("E024", Rule("the dotted name of a cipher", _is_importable).or_none()),
    # Its own check says what is wrong with the keys, and shows none of them.
    "CIPHER_KEYS": ("E025", Rule("a mapping of ids to keys", lambda value: True)),
    "TOKEN_COUNTER": ("E027", Rule("the dotted name of a function", _is_function).or_none()),
    "ENCRYPT": ("E026", Rule("True or False", lambda value: isinstance(value, bool))),
    "LOGIN_RATE": ("E014", _RATE.or_none()),
    "PERMISSION_CLASSES": ("E015", _classes("permission", "has_permission").or_none()),
    "THROTTLE_CLASSES": ("E016", _classes("throttle", "allow_request").or_none()),
}


@register()
def check_settings(**kwargs: object) -> list[CheckMessage]:
    """Report ``AGENT_SESSIONS_*`` settings of a wrong value or an unknown name."""
    return [
        *wrong_values("agent_sessions", settings, RULES),
        *unknown_names("agent_sessions", settings),
    ]


@register()
def check_cipher(**kwargs: object) -> list[CheckMessage]:
    """Report a cipher that cannot be used, such as one with bad keys (E025)."""
    if not _is_importable(settings.CIPHER):
        return []
    try:
        encryption.cipher()
    except ImproperlyConfigured as error:
        return [Error(str(error), id=f"agent_sessions.{RULES['CIPHER_KEYS'][0]}")]
    return []


@register(Tags.database)
def check_decryption(
    databases: Sequence[str] | None = None, **kwargs: object
) -> list[CheckMessage]:
    """Report databases whose oldest or newest sessions cannot be decrypted (W008).

    A key that was lost or forgotten shows there; ``reencrypt_conversations --check`` reads all.
    """
    from agent_sessions.models import Session
    from agent_sessions.repository.undecryptable import of_sessions

    found: list[CheckMessage] = []
    if settings.CIPHER is not None and check_cipher():
        return []
    for alias in databases or ():
        if not router.allow_migrate_model(alias, Session):
            continue
        connection = connections[alias]
        with connection.cursor() as cursor:
            if Session._meta.db_table not in connection.introspection.table_names(cursor):
                continue
        sessions = Session.objects.using(alias)
        failures = [
            failure
            for order in ("pk", "-pk")
            for failure in of_sessions(sessions.order_by(order)[:_LOOKED_AT])
        ]
        if failures:
            found.append(
                Warning(
                    f"Sessions in database {alias!r} cannot be decrypted, such as "
                    f"{failures[0].session_id}: {failures[0].reason}",
                    hint="Is a key missing in AGENT_SESSIONS_CIPHER_KEYS? "
                    f"manage.py reencrypt_conversations --check --database {alias} names all rows.",
                    id="agent_sessions.W008",
                )
            )
    return found


@register()
def check_cleanup(**kwargs: object) -> list[CheckMessage]:
    """Report a beat schedule that leaves out the cleanup of expired sessions (W002).

    It sees only a schedule in the settings, not one in cron or in a database.
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
def check_functions(databases: Sequence[str] | None = None, **kwargs: object) -> list[CheckMessage]:
    """Report PostgreSQL databases that cannot append messages, or take them back (W004)."""
    from agent_sessions.models import Message

    return [
        # A warning, because an error would stop the command that creates the functions.
        Warning(
            f"The function {name} is missing in database {alias!r}: "
            "messages cannot be appended or taken back.",
            hint=f"manage.py migrate --database {alias} creates it.",
            id="agent_sessions.W004",
        )
        for alias in databases or ()
        if connections[alias].vendor == "postgresql" and router.allow_migrate_model(alias, Message)
        for name in functions.missing(connections[alias])
    ]


@register(Tags.database)
def check_search_index(
    databases: Sequence[str] | None = None, **kwargs: object
) -> list[CheckMessage]:
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


@register(Tags.database)
def check_transactions(
    databases: Sequence[str] | None = None, **kwargs: object
) -> list[CheckMessage]:
    """Report databases whose settings of transactions cause errors or delays (W005, W006)."""
    found: list[CheckMessage] = []
    for alias in databases or ():
        connection = connections[alias]
        if not router.allow_migrate(alias, "agent_sessions", model_name="session"):
            continue
        if not connection.settings_dict["AUTOCOMMIT"]:
            found.append(
                Warning(
                    f"Database {alias!r} has AUTOCOMMIT off: signals of agent_sessions are not "
                    "sent there, and event streams look for messages at intervals.",
                    hint="Turn AUTOCOMMIT on, and use transaction.atomic().",
                    id="agent_sessions.W005",
                )
            )
        mode = str(connection.settings_dict["OPTIONS"].get("transaction_mode", ""))
        if connection.vendor == "sqlite" and mode.upper() not in ("IMMEDIATE", "EXCLUSIVE"):
            found.append(
                Warning(
                    f"Transactions of database {alias!r} that read before they write fail with "
                    '"database is locked" when another one writes.',
                    hint='Set OPTIONS = {"transaction_mode": "IMMEDIATE"} for the database.',
                    id="agent_sessions.W006",
                )
            )
    return found


@register(Tags.database)
def check_autovacuum(
    databases: Sequence[str] | None = None, **kwargs: object
) -> list[CheckMessage]:
    """Report PostgreSQL databases that do not clean up after appends (W007).

    Each append leaves a dead version of its session's row.
    """
    found: list[CheckMessage] = []
    for alias in databases or ():
        connection = connections[alias]
        if connection.vendor != "postgresql":
            continue
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_setting('autovacuum')::boolean AND NOT EXISTS ("
                "SELECT FROM pg_class WHERE oid = to_regclass('agent_sessions_session') "
                "AND 'autovacuum_enabled=false' = ANY (reloptions))"
            )
            (is_on,) = cursor.fetchone()
        if not is_on:
            found.append(
                Warning(
                    f"Autovacuum is off for the sessions of database {alias!r}: each append leaves "
                    "a dead row, and lists become slower and slower.",
                    hint="Turn autovacuum on. docs/scaling.md has settings for many appends.",
                    id="agent_sessions.W007",
                )
            )
    return found


@register(Tags.database)
def check_encoding(databases: Sequence[str] | None = None, **kwargs: object) -> list[CheckMessage]:
    """Report PostgreSQL databases that cannot hold every text (W009)."""
    from agent_sessions.models import Message

    found: list[CheckMessage] = []
    for alias in databases or ():
        connection = connections[alias]
        if connection.vendor != "postgresql" or not router.allow_migrate_model(alias, Message):
            continue
        with connection.cursor() as cursor:
            cursor.execute("SHOW server_encoding")
            (encoding,) = cursor.fetchone()
        if encoding != "UTF8":
            found.append(
                Warning(
                    f"Database {alias!r} has the encoding {encoding}: messages with other "
                    "characters, such as emoji, cannot be stored.",
                    hint="Create it anew with ENCODING 'UTF8', and copy the data.",
                    id="agent_sessions.W009",
                )
            )
    return found
