"""Doing something when the database has committed.

Django's connections, and so its transactions, belong to a thread. In async code it is asked on
the thread where the ORM's awaited calls run, which takes longer than what is to be done: unless it
is known that no thread has a transaction.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

#: The connections that were opened, of all threads. Reading a copy of it is safe in any of them.
_opened: dict[int, weakref.ref[BaseDatabaseWrapper]] = {}
_all_known = False


def watch_connections() -> None:
    """Begin to know of all connections; called before there are threads that open some."""
    global _all_known
    connection_created.connect(_note, dispatch_uid="cache_layer.functions.transactions")
    for connection in connections.all(initialized_only=True):
        _note(connection)
    _all_known = True


def on_commit(action: Callable[[], object]) -> bool:
    """Do it when every open transaction of this thread is committed; return whether there is one.

    Where several databases have one open, it is done after each commit. A rollback drops it. What
    it raises is logged: the commit cannot be undone.
    """
    aliases = [
        connection.alias
        for connection in connections.all(initialized_only=True)
        if connection.in_atomic_block
    ]
    for alias in aliases:
        transaction.on_commit(action, using=alias, robust=True)
    return bool(aliases)


async def aon_commit(action: Callable[[], object]) -> bool:
    """See ``on_commit()``."""
    if _all_known and not any(map(_in_transaction, list(_opened.values()))):
        return False
    return await _on_the_thread(action)


_on_the_thread = sync_to_async(on_commit, thread_sensitive=True)


def _note(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    key = id(connection)
    _opened[key] = weakref.ref(connection, lambda _: _opened.pop(key, None))


def _in_transaction(opened: weakref.ref[BaseDatabaseWrapper]) -> bool:
    connection = opened()
    return connection is not None and connection.in_atomic_block
