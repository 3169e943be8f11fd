"""Commits what a step did, as such a project does at the end of each request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management import call_command
from django.db import transaction


def prepare() -> None:
    transaction.set_autocommit(True)
    call_command("migrate", verbosity=0)
    transaction.set_autocommit(False)


@contextmanager
def around(name: str) -> Iterator[None]:
    yield
    if not transaction.get_autocommit():
        transaction.commit()
