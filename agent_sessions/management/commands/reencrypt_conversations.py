"""`reencrypt_conversations`: write texts again as AGENT_SESSIONS_CIPHER would write them now."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, CommandParser

from agent_sessions.exceptions import DecryptionFailed
from agent_sessions.management.options import DatabaseCommand, add_database, advance, progress_bar
from agent_sessions.repository import SyncSessionRepository

_MOST_NAMED = 10_000


class Command(DatabaseCommand):
    """Write the texts again and print how many rows that were."""

    help = (
        "Encrypt plain texts, and those with older keys, with the newest key of "
        "AGENT_SESSIONS_CIPHER; or write plain texts where AGENT_SESSIONS_ENCRYPT is False. "
        "Safe to interrupt and to run again: it goes on with what is left."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--check",
            action="store_true",
            help="Change nothing. Read every row, and name those that cannot be decrypted. Exit "
            "status 1 if there are some.",
        )
        add_database(parser)

    def handle(self, *args: object, **options: Any) -> None:
        """Write the texts again."""
        repository = SyncSessionRepository(options["database"])
        if options["check"]:
            self._check(repository, options["verbosity"])
            return
        try:
            with progress_bar(options["verbosity"], unit=" rows") as bar:
                written = repository.reencrypt(advance(bar))
        except (DecryptionFailed, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from None
        self.stdout.write(
            f"{written.sessions} sessions and {written.messages} messages written again."
        )

    def _check(self, repository: SyncSessionRepository, verbosity: int) -> None:
        try:
            with progress_bar(verbosity, unit=" rows") as bar:
                found = repository.find_undecryptable(_MOST_NAMED, advance(bar))
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        for session_id, sequence, reason in found:
            place = f"Session {session_id}"
            place += "" if sequence is None else f", message {sequence}"
            self.stdout.write(f"{place}: {reason}")
        if found:
            more = " or more" if len(found) == _MOST_NAMED else ""
            raise CommandError(f"{len(found)}{more} rows cannot be decrypted.")
        self.stdout.write("All rows can be decrypted.")
