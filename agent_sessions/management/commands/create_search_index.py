"""`create_search_index`: the index that makes search fast on PostgreSQL."""

from __future__ import annotations

from typing import Any

from django.core.management import CommandError, CommandParser
from django.db import DatabaseError, connections

from agent_sessions.management.options import DatabaseCommand, add_database
from agent_sessions.postgresql import search_index


class Command(DatabaseCommand):
    """Create the index where it is missing."""

    help = (
        "Create the search index of messages on PostgreSQL, with the extensions it needs, where "
        "migrate was not allowed to. Writers go on meanwhile; safe to interrupt and to repeat."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        add_database(parser)

    def handle(self, *args: object, **options: Any) -> None:
        """Create the index; raise CommandError if the database does not allow it."""
        connection = connections[options["database"]]
        if connection.vendor != "postgresql":
            raise CommandError(f"Only PostgreSQL has a search index, not {connection.vendor}.")
        try:
            search_index.create(connection, concurrently=True)
        except DatabaseError as error:
            raise CommandError(
                f"{str(error).strip()}\nAs a role that may do so run: {search_index.EXTENSIONS_SQL}"
            ) from error
        self.stdout.write("The search index is there.")
