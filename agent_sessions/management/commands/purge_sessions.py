"""`purge_sessions`: delete sessions that were finished long ago."""

from __future__ import annotations

from typing import Any

from django.core.management import CommandError, CommandParser

from agent_sessions.conf import settings
from agent_sessions.management.options import DatabaseCommand, add_database, advance, progress_bar
from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository


class Command(DatabaseCommand):
    """Parse the options and print the count."""

    help = (
        "Delete completed and failed sessions, with their messages, that have not changed for a "
        "number of days. Safe to interrupt, and to run several times at once."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--days",
            type=float,
            help="Delete what is older than this. Default: AGENT_SESSIONS_RETENTION_DAYS.",
        )
        parser.add_argument("--dry-run", action="store_true", help="Only say how many there are.")
        add_database(parser)

    def handle(self, *args: object, **options: Any) -> None:
        """Delete the sessions, or count them."""
        database = options["database"]
        days = settings.RETENTION_DAYS if options["days"] is None else options["days"]
        if days is None:
            raise CommandError(
                "Sessions are kept without end: AGENT_SESSIONS_RETENTION_DAYS is not set. "
                "Set it or give --days."
            )
        try:
            old = Session.objects.using(database).finished_for(days)
        except ValueError as error:
            raise CommandError(str(error)) from None
        if options["dry_run"]:
            count = old.count()
            self.stdout.write(f"{count} sessions would be deleted.")
            return
        with progress_bar(options["verbosity"], unit=" sessions") as bar:
            count = SyncSessionRepository(database).purge_old_sessions(days, advance(bar))
        self.stdout.write(f"{count} sessions deleted.")
