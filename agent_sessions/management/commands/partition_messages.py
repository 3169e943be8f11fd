"""`partition_messages`: divide the table of messages on PostgreSQL."""

from __future__ import annotations

from typing import Any

from django.core.management import CommandError, CommandParser
from django.db import connections

from agent_sessions.management.options import DatabaseCommand, add_database
from agent_sessions.postgresql.partitioning import CannotPartition, partition_messages


class Command(DatabaseCommand):
    """Parse the options."""

    help = (
        "Divide the table of messages by the hash of the session (PostgreSQL). Nobody reads or "
        "writes messages while the rows are copied; after a failure everything is as before."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--partitions", type=int, required=True, help="How many parts.")
        add_database(parser)

    def handle(self, *args: object, **options: Any) -> None:
        """Divide the table; raise CommandError if it cannot be."""
        try:
            partition_messages(connections[options["database"]], options["partitions"])
        except CannotPartition as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"The messages lie in {options['partitions']} partitions.")
