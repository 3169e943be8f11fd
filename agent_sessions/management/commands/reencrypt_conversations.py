"""`reencrypt_conversations`: write texts again as AGENT_SESSIONS_CIPHER would write them now."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, CommandParser

from agent_sessions.exceptions import DecryptionFailed
from agent_sessions.management.options import DatabaseCommand, add_database, advance, progress_bar
from agent_sessions.repository import SyncSessionRepository


class Command(DatabaseCommand):
    """Write the texts again and print how many rows that were."""

    help = (
        "Encrypt plain texts, and those with older keys, with the newest key of "
        "AGENT_SESSIONS_CIPHER. Safe to interrupt and to run again: it goes on with what is left."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        add_database(parser)

    def handle(self, *args: object, **options: Any) -> None:
        """Write the texts again."""
        repository = SyncSessionRepository(options["database"])
        try:
            with progress_bar(options["verbosity"], unit=" rows") as bar:
                written = repository.reencrypt(advance(bar))
        except (DecryptionFailed, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from None
        self.stdout.write(
            f"{written.sessions} sessions and {written.messages} messages written again."
        )
