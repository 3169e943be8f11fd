"""`verify_session_counters`: compare the counters of sessions with their messages."""

from __future__ import annotations

from typing import Any

from django.core.management import CommandError, CommandParser

from agent_sessions.management.options import DatabaseCommand, add_database, advance, progress_bar
from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository


class Command(DatabaseCommand):
    """Parse the options, print the ids of the sessions found."""

    help = (
        "Print the ids of sessions whose counters disagree with their messages, which were then "
        "written or deleted past the repository. Exit status: 0 all agree or were repaired, "
        "1 some disagree."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--repair", action="store_true", help="Count their messages again.")
        add_database(parser)

    def handle(self, *args: object, **options: Any) -> None:
        """Verify all sessions; raise CommandError if some are left wrong."""
        database, repair = options["database"], options["repair"]
        total = Session.objects.using(database).count() if options["verbosity"] else None
        with progress_bar(options["verbosity"], total=total, unit=" sessions") as bar:
            wrong = SyncSessionRepository(database).verify_counters(repair, advance(bar))
        for session_id in wrong:
            self.stdout.write(str(session_id))
        if wrong and not repair:
            raise CommandError(f"{len(wrong)} sessions have wrong counters. --repair counts again.")
        if options["verbosity"]:
            self.stderr.write(f"{len(wrong)} sessions repaired." if repair else "All agree.")
