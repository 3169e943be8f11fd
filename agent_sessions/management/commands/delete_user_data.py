"""`delete_user_data NAME`: erase one user's conversations and report the erased rows."""

from __future__ import annotations

import getpass
from typing import Any

from django.apps import apps
from django.core.management import CommandError, CommandParser

from agent_sessions.ids import Owner
from agent_sessions.management.options import DatabaseCommand, add_database, find_user
from agent_sessions.models import Message, Session
from agent_sessions.repository import SyncSessionRepository
from agent_sessions.repository.remains import find_remains
from agent_sessions.transfer import printable

_TITLES = 100
_SHORTEST_TITLE = 8


class Command(DatabaseCommand):
    """Ask, delete and print the report."""

    help = (
        "Delete all sessions and messages of one user, in every tenant, and print what was deleted "
        "where, by whom and when. The user itself stays."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("user", help="Name or primary key of the user.")
        parser.add_argument(
            "--no-input", action="store_false", dest="interactive", help="Do not ask."
        )
        parser.add_argument(
            "--by", help="Who asks for it, for the report. Default: who runs the command."
        )
        parser.add_argument(
            "--tenant", help="Delete in this tenant alone. Default: in all of them."
        )
        parser.add_argument(
            "--verify",
            action="store_true",
            help="Then read every table of the database for the user's key and for the newest "
            f"{_TITLES} titles of at least {_SHORTEST_TITLE} characters, and print how many there "
            "were. Exit status 1 if there is something left.",
        )
        add_database(parser)

    def handle(self, *args: object, **options: Any) -> None:
        """Delete the data, after asking."""
        database, tenant = options["database"], options["tenant"]
        where = "in every tenant" if tenant is None else f"in tenant {printable(tenant)!r}"
        if options["verify"] and tenant is not None:
            raise CommandError("--verify looks for what is left in any tenant.", returncode=2)
        user = find_user(options["user"], database)
        if options["interactive"]:
            owned = Session.objects.using(database).owned_by(Owner(user.pk, tenant))
            what = f"{owned.count()} sessions of {printable(str(user))} {where}"
            question = f"Delete {what} for ever? Type yes: "
            try:
                answer = input(question)
            except EOFError:
                raise CommandError("Nobody answers. Give --no-input to delete unasked.") from None
            if answer.strip().lower() != "yes":
                raise CommandError("Nothing was deleted.")
        titled, titles = _titles(user, database) if options["verify"] else (0, [])
        by = printable(options["by"] or _account())
        erased = SyncSessionRepository(database).delete_user_data(user.pk, tenant, by=by)
        self.stdout.write(f"{erased.sessions} sessions with {erased.messages} messages deleted.")
        for done, tables in (("deleted", erased.deleted), ("redacted", erased.redacted)):
            for table, rows in sorted(tables.items()):
                self.stdout.write(f"{table}: {rows} rows {done}")
        times = f"{erased.started_at.isoformat()} to {erased.finished_at.isoformat()}"
        self.stdout.write(f"Data of user {erased.user} {where}, erased by {by}, {times}.")
        if options["verify"]:
            self.stdout.write(
                f"Looked for the user's key and {len(titles)} of {titled} titles in every table. "
                "The others are older, short or not readable; texts of messages are not looked for."
            )
            self._verify(user, titles, database)

    def _verify(self, user: Any, titles: list[str], database: str) -> None:
        own = {
            model._meta.db_table
            for model in apps.get_models()
            if issubclass(model, Session | Message)
        }
        left = 0
        for table, column, what, rows in find_remains(user.pk, titles, database):
            is_own = table.rpartition(".")[2] in own
            if what == "text" and not is_own:
                left += rows
                self.stdout.write(f"{table}.{column}: {rows} rows have a title of the user")
            elif what == "user":
                left += rows if is_own else 0
                self.stdout.write(
                    f"{table}.{column}: {rows} rows name the user"
                    + ("" if is_own else ", and are no conversations")
                )
        if left:
            raise CommandError(f"{left} rows are left.")
        self.stdout.write(
            "Verified: no table has a conversation of the user or one of these titles."
        )


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        # A container may run as a user without a name.
        return "an unnamed account"


def _titles(user: Any, database: str) -> tuple[int, list[str]]:
    """Return how many titles the user has, and some: such as nobody else's data have by chance."""
    newest = Session.objects.using(database).for_user(user).only("title").newest_first()
    titled = newest.exclude(title="", sealed_title=None)
    found = [
        session.title
        for session in titled[:_TITLES]
        if not session.is_undecryptable and len(session.title) >= _SHORTEST_TITLE
    ]
    return titled.count(), found
