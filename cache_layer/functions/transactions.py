"""Runs an action when the database transactions of a thread have ended.

Django's connections, and so its transactions, belong to a thread. Async code must ask on the thread
of the ORM's awaited calls, which takes longer than the action itself. It need not ask while no
thread has a transaction.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable

from asgiref.sync import sync_to_async
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from cache_layer.conf import settings

logger = logging.getLogger("cache_layer")

Action = Callable[[], object]

#: The open connections of all threads. Any thread may read a copy of the set.
_opened: dict[int, weakref.ref[BaseDatabaseWrapper]] = {}
_all_known = False
#: Tasks that wait for the thread of the ORM; an event loop has only weak references to them.
_settling: set[asyncio.Task[None]] = set()


def watch_connections() -> None:
    """Begin to record all connections; called before other threads open connections."""
    global _all_known
    connection_created.connect(_note, dispatch_uid="cache_layer.functions.transactions")
    for connection in connections.all(initialized_only=True):
        _note(connection)
    _all_known = True


def on_commit(action: Action) -> bool:
    """Run an action when the open transactions of this thread have ended, by commit or rollback.

    If several databases have one open, the action runs after the end of each. Its exceptions are
    logged, because a commit cannot be undone.

    Returns:
        Whether the action will run. If False, the caller has to run it at once: no database has a
        transaction open, or one of several has none, so that its changes are committed already, or
        the transaction is that of Django's ``TestCase``, which never commits.
    """
    waits, committed = False, False
    for connection in connections.all(initialized_only=True):
        if _ends_by_hand(connection):
            _after_manual_end(connection, _Pending(action))
            waits = True
        elif connection.in_atomic_block:
            if not _is_test_case(connection, outermost=False):
                transaction.on_commit(_Pending(action), using=connection.alias, robust=True)
            waits = True
            committed |= _is_test_case(connection, outermost=True)
        else:
            committed |= connection.connection is not None
    return waits and not committed


async def aon_commit(action: Action) -> bool:
    """See ``on_commit()``."""
    if _all_known and not any(map(_in_transaction, list(_opened.values()))):
        return False
    return await _on_the_thread(action)


async def asettle(action: Action) -> None:
    """Run an action once the thread of the ORM has ended its current call, which may still commit.

    A cancelled call leaves its query running on that thread. This waits for at most
    ``CACHE_LAYER_OPERATION_TIMEOUT`` seconds, and then goes on waiting in the background.
    """
    task = asyncio.ensure_future(_settle_on_the_thread(action))
    _settling.add(task)
    task.add_done_callback(_settled)
    await asyncio.wait([task], timeout=settings.OPERATION_TIMEOUT)


class _Pending:
    """An action that is done once: when it is called, or when Django drops it on a rollback."""

    def __init__(self, action: Action) -> None:
        self._action: Action | None = action

    def __call__(self) -> None:
        action, self._action = self._action, None
        if action is not None:
            action()

    def __del__(self) -> None:
        try:
            self()
        except Exception:
            logger.exception("Invalidating after a rollback failed.")


def _settle(action: Action) -> None:
    if not on_commit(action):
        action()


_on_the_thread = sync_to_async(on_commit, thread_sensitive=True)
_settle_on_the_thread = sync_to_async(_settle, thread_sensitive=True)


def _settled(task: asyncio.Task[None]) -> None:
    _settling.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.warning("Invalidating after a cancelled call failed.", exc_info=error)


def _note(connection: BaseDatabaseWrapper, **kwargs: object) -> None:
    key = id(connection)
    _opened[key] = weakref.ref(connection, lambda _: _opened.pop(key, None))


def _in_transaction(opened: weakref.ref[BaseDatabaseWrapper]) -> bool:
    connection = opened()
    return connection is not None and (connection.in_atomic_block or _ends_by_hand(connection))


def _is_test_case(connection: BaseDatabaseWrapper, *, outermost: bool) -> bool:
    """Return whether Django's ``TestCase`` opened the outermost, or the innermost, block."""
    blocks = getattr(connection, "atomic_blocks", ())
    return bool(blocks) and getattr(blocks[0 if outermost else -1], "_from_testcase", False)


def _ends_by_hand(connection: BaseDatabaseWrapper) -> bool:
    """Return whether the project commits by itself, so that ``on_commit`` would never run."""
    if connection.connection is None or connection.autocommit:
        return False
    return not (connection.in_atomic_block and connection.commit_on_exit)


def _after_manual_end(connection: BaseDatabaseWrapper, pending: _Pending) -> None:
    waiting: list[_Pending] | None = connection.__dict__.get("_cache_layer_pending")
    if waiting is None:
        waiting = connection.__dict__["_cache_layer_pending"] = []
        for name in ("commit", "rollback", "close"):
            setattr(connection, name, _then_do(getattr(connection, name), waiting))
    waiting.append(pending)


def _then_do(end: Callable[[], None], waiting: list[_Pending]) -> Callable[[], None]:
    def ended() -> None:
        try:
            end()
        finally:
            actions = waiting.copy()
            waiting.clear()
            for action in actions:
                try:
                    action()
                except Exception:
                    logger.exception("Invalidating after a transaction failed.")

    return ended
