"""Doing something when the database has committed.

Django's connections, and so its transactions, belong to a thread. In async code it is asked on
the thread where the ORM's awaited calls run.
"""

from __future__ import annotations

from collections.abc import Callable

from asgiref.sync import sync_to_async
from django.db import connections, transaction


def after_commit(action: Callable[[], object]) -> bool:
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


aafter_commit = sync_to_async(after_commit, thread_sensitive=True)
