"""Sending a signal once the transaction has committed."""

from __future__ import annotations

import logging
from functools import partial

from django.db import connections, transaction
from django.db.models import Model
from django.dispatch import Signal

logger = logging.getLogger("agent_sessions")


def after_commit(signal: Signal, sender: type[Model], using: str, **arguments: object) -> None:
    """Send the signal after the commit; not at all after a rollback or with no receivers.

    Where the project commits by hand (AUTOCOMMIT is off) Django tells nobody of the commit:
    then no signal is sent.
    """
    connection = connections[using]
    if connection.autocommit and not connection.in_atomic_block:
        # What on_commit() comes to here by way of nine calls more; an append has 158 in all.
        try:
            signal.send_robust(sender, using=using, **arguments)
        except Exception:
            logger.exception("A signal could not be sent.")
    elif connection.in_atomic_block and connection.commit_on_exit and signal.has_listeners(sender):
        send = partial(signal.send_robust, sender, using=using, **arguments)
        transaction.on_commit(send, using=using, robust=True)
