"""`delete_user_data NAME`: erase one user's conversations."""

from __future__ import annotations

from typing import Any

from django.core.management import CommandError, CommandParser

from agent_sessions.management.options import DatabaseCommand, add_database, find_user
from agent_sessions.models import Session
from agent_sessions.repository import SyncSessionRepository


class Command(DatabaseCommand):
    """Ask, delete and print what was deleted."""

    help = "Delete all sessions and messages of one user. The user itself stays."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("user", help="Name or primary key of the user.")
        parser.add_argument(
            "--no-input", action="store_false", dest="interactive", help="Do not ask."
        )
        add_database(parser)

    def handle(self, *args: object, **options: Any) -> None:
        """Delete the data, after asking."""
        database = options["database"]
        user = find_user(options["user"], database)
        if options["interactive"]:
            count = Session.objects.using(database).for_user(user).count()
            question = f"Delete {count} sessions of {user} for ever? Type yes: "
            try:
                answer = input(question)
            except EOFError:
                raise CommandError("Nobody answers. Give --no-input to delete unasked.") from None
            if answer.strip().lower() != "yes":
                raise CommandError("Nothing was deleted.")
        erased = SyncSessionRepository(database).delete_user_data(user.pk)
        self.stdout.write(f"{erased.sessions} sessions with {erased.messages} messages deleted.")
