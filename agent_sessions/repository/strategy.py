"""Chooses between the strategy for PostgreSQL and the portable one."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from agent_sessions.ids import Owner
from agent_sessions.message_format import JsonObject
from agent_sessions.models import Message, Session
from agent_sessions.repository import portable, postgresql
from agent_sessions.repository.results import Window


class Strategy(Protocol):
    """The interface of the modules ``postgresql`` and ``portable``."""

    @property
    def HAS_LATERAL(self) -> bool:  # noqa: N802
        """Whether search may use lateral joins and materialized subqueries."""

    def insert(
        self, session_id: UUID, rows: list[Message], owner: Owner, connection: BaseDatabaseWrapper
    ) -> int | None:
        """Insert the rows behind the last message and complete them with their numbers.

        Returns:
            The session's count of messages; None if the session is missing, archived, not the
            owner's or has a message with one of the idempotency keys.

        Raises:
            IntegrityError: A message with one of the keys came at that moment.
        """

    def pop(
        self, session_id: UUID, owner: Owner, connection: BaseDatabaseWrapper
    ) -> tuple[Message, int] | None:
        """Delete the last message, and return it with the number of its deletion.

        None if the session has none, is missing, archived or not the owner's.
        """

    def is_usable_after_error(self, connection: BaseDatabaseWrapper) -> bool:
        """Return whether statements can follow an error of ``insert()``."""

    def window(self, wanted: Window, connection: BaseDatabaseWrapper) -> list[Message] | None:
        """Return the first messages behind a number, in order, or the last ones from the end.

        None if the session is missing or not the owner's.
        """

    def merge_context(
        self,
        session_id: UUID,
        context: JsonObject,
        replace: bool,
        owner: Owner,
        connection: BaseDatabaseWrapper,
    ) -> Session | None:
        """Merge into the context, or replace it, and return the session.

        None if the session is missing, archived or not the owner's.
        """


def strategy_for(using: str) -> Strategy:
    """Return the strategy for the database of an alias."""
    return postgresql if connections[using].vendor == "postgresql" else portable
