"""Sending a signal once the transaction has committed."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import Model
from django.dispatch import Signal


def after_commit(signal: Signal, sender: type[Model], using: str, **arguments: Any) -> None:
    """Send the signal after the commit; not at all after a rollback or with no receivers."""
    if signal.has_listeners(sender):
        send = partial(signal.send_robust, sender, using=using, **arguments)
        transaction.on_commit(send, using=using, robust=True)
