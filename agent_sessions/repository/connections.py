"""Runs operations: repeats them, closes connections, and sends signals on commit."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from django.core.signals import request_finished, request_started
from django.db import InterfaceError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model
from django.dispatch import Signal

from cache_layer.exceptions import is_time_limit

logger = logging.getLogger("agent_sessions")

#: How often an operation is begun that others keep from being serialized.
MOST_ATTEMPTS = 25

_LONGEST_WAIT = 0.2
# Serialization failure and deadlock: PostgreSQL has rolled back.
_CONFLICTS = frozenset({"40001", "40P01"})

#: Whether the thread's connection outlives an operation, whoever opened it.
keeps_connection: ContextVar[bool] = ContextVar("agent_sessions_keeps_connection", default=False)

_thread = threading.local()


class HasDatabase(Protocol):
    """A repository."""

    @property
    def using(self) -> str:
        """The alias of the database."""


Self = TypeVar("Self", bound=HasDatabase)
P = ParamSpec("P")
R = TypeVar("R")


def operation(
    method: Callable[Concatenate[Self, P], R],
) -> Callable[Concatenate[Self, P], R]:
    """Decorate a method of a repository to survive database errors outside a transaction.

    After a lost connection the method is called once more on a new one, so it must be safe to
    repeat. After a serialization failure or a deadlock, which leave nothing written, it is called
    again, at most ``MOST_ATTEMPTS`` times in all.

    In a thread that serves no request, a connection that the call opened is closed again, because
    nobody else would close it. Inside a transaction of the caller the method is only called.

    Where the project commits by hand (AUTOCOMMIT is off), a thread that serves a request and the
    main thread have a caller who does so. In another thread nobody would: there an operation that
    begins outside a transaction commits its own work.
    """

    @wraps(method)
    def run(self: Self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        connection = connections[self.using]
        if _is_callers_transaction(connection):
            return method(self, *args, **kwargs)
        close_dead(connection)
        opens = connection.connection is None
        by_hand = not (connection.settings_dict["AUTOCOMMIT"] if opens else connection.autocommit)
        # An iterator would be empty at the second call.
        given: Any = [list(each) if isinstance(each, Iterator) else each for each in args]
        named: Any = {k: list(v) if isinstance(v, Iterator) else v for k, v in kwargs.items()}
        try:
            return _repeated(lambda: method(self, *given, **named), connection)
        finally:
            if opens and not (keeps_connection.get() or _has_caller()):
                connection.close()
            if by_hand:
                _commit_by_hand(connection)

    return run


@contextmanager
def committing(using: str) -> Iterator[None]:
    """Commit the changes inside the block on a database where the project commits by hand.

    For tasks and commands, whose callers do not commit. Inside a transaction of the caller, and if
    AUTOCOMMIT is on, it does nothing.
    """
    connection = connections[using]
    by_hand = (
        not connection.settings_dict["AUTOCOMMIT"]
        and not connection.in_atomic_block
        and (connection.connection is None or (not connection.autocommit and _is_free(connection)))
    )
    if by_hand:
        connection.set_autocommit(True)
    try:
        yield
    finally:
        if by_hand:
            _commit_by_hand(connection)


def close_dead(connection: BaseDatabaseWrapper) -> None:
    """Close a connection that the driver knows to be lost; the next use opens a new one."""
    if getattr(connection.connection, "closed", False):
        connection.close()


def is_lost(connection: BaseDatabaseWrapper) -> bool:
    """Return whether an open connection has stopped answering."""
    return connection.connection is not None and not connection.is_usable()


def after_commit(signal: Signal, sender: type[Model], using: str, **arguments: object) -> None:
    """Send the signal after the commit; not at all after a rollback or with no receivers.

    Where the project commits by hand (AUTOCOMMIT is off) Django tells nobody of the commit:
    then no signal is sent.
    """
    connection = connections[using]
    if connection.autocommit and not connection.in_atomic_block:
        # What on_commit() comes to here by way of nine calls more; an append has 158 in all.
        _send(signal, sender, using, arguments)
    elif connection.in_atomic_block and connection.commit_on_exit and signal.has_listeners(sender):
        transaction.on_commit(partial(_send, signal, sender, using, arguments), using=using)


def _send(signal: Signal, sender: type[Model], using: str, arguments: Mapping[str, object]) -> None:
    """Send the signal; log what fails, and raise the end of a task's time."""
    try:
        answers = signal.send_robust(sender, using=using, **arguments)
    except Exception as error:
        if is_time_limit(error):
            raise
        logger.exception("A signal could not be sent.")
        return
    for _receiver, answer in answers:
        # Django has logged it as an error of the receiver.
        if isinstance(answer, Exception) and is_time_limit(answer):
            raise answer


def _repeated(call: Callable[[], R], connection: BaseDatabaseWrapper) -> R:
    was_lost = False
    for attempt in range(1, MOST_ATTEMPTS + 1):
        connection.ensure_connection()
        if not connection.autocommit:
            connection.set_autocommit(True)
        opened = connection.connection
        try:
            return call()
        except (OperationalError, InterfaceError) as error:
            if _is_conflict(error) and attempt < MOST_ATTEMPTS:
                # Those who met here do not meet again.
                time.sleep(random.uniform(0, min(_LONGEST_WAIT, 0.002 * 2**attempt)))  # noqa: S311
                continue
            # Where the rollback failed, too, Django has opened another connection already.
            if was_lost or (connection.connection is opened and not is_lost(connection)):
                raise
            was_lost = True
            connection.close()
    raise AssertionError("The last attempt returns or raises.")


def _is_conflict(error: Exception) -> bool:
    cause = error.__cause__
    code = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return code in _CONFLICTS


def _is_callers_transaction(connection: BaseDatabaseWrapper) -> bool:
    if connection.in_atomic_block:
        return True
    if connection.connection is None:
        return _has_caller() and not connection.settings_dict["AUTOCOMMIT"]
    return not connection.autocommit and (_has_caller() or not _is_free(connection))


def _has_caller() -> bool:
    return (
        getattr(_thread, "serves_request", False)
        or threading.current_thread() is threading.main_thread()
    )


def _is_free(connection: BaseDatabaseWrapper) -> bool:
    """Return whether no transaction has begun, nor anybody asked for one, on an open connection."""
    driver: Any = connection.connection
    if connection.settings_dict["AUTOCOMMIT"]:
        return False
    if connection.vendor == "sqlite":
        return not driver.in_transaction
    return connection.vendor == "postgresql" and driver.info.transaction_status == 0


def _commit_by_hand(connection: BaseDatabaseWrapper) -> None:
    close_dead(connection)
    if connection.connection is not None:
        connection.set_autocommit(False)


def _begin_request(**kwargs: object) -> None:
    _thread.serves_request = True


def _end_request(**kwargs: object) -> None:
    _thread.serves_request = False


# Django closes the connections of threads that serve requests.
request_started.connect(_begin_request, dispatch_uid="agent_sessions.begin_request")
request_finished.connect(_end_request, dispatch_uid="agent_sessions.end_request")
