"""`cleanup_expired_sessions`: complete expired sessions."""

from __future__ import annotations

from typing import Any

from django.core.management import CommandParser

from agent_sessions.management.options import DatabaseCommand, add_database, advance, progress_bar
from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository


class Command(DatabaseCommand):
    """Parse the options and print the count."""

    help = (
        "Complete active and paused sessions past their expiry. Safe to interrupt, and to run "
        "several times at once: what agent_sessions.tasks does under Celery, for cron."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--dry-run", action="store_true", help="Only say how many there are.")
        add_database(parser)

    def handle(self, *args: object, **options: Any) -> None:
        """Complete the sessions, or count them."""
        database = options["database"]
        if options["dry_run"]:
            count = Session.objects.using(database).expired().count()
            self.stdout.write(f"{count} expired sessions would be completed.")
            return
        with progress_bar(options["verbosity"], unit=" sessions") as bar:
            count = SyncSessionRepository(database).cleanup_expired_sessions(advance(bar))
        self.stdout.write(f"{count} expired sessions completed.")
