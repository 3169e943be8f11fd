"""Options and helpers that several commands share: the user, the database, the progress."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, connections
from tqdm import tqdm

from agent_sessions.repository.connections import committing

if TYPE_CHECKING:
    ProgressBar: TypeAlias = tqdm[Any]


class DatabaseCommand(BaseCommand):
    """A command for one database: it commits also where the project commits by hand."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the command; return what it printed."""
        with committing(options["database"]):
            return super().execute(*args, **options)


def add_database(parser: CommandParser) -> None:
    """Add the option `--database`, an alias of DATABASES, to the parser."""
    parser.add_argument(
        "--database",
        default=DEFAULT_DB_ALIAS,
        choices=tuple(connections),
        help="Alias of the database that holds the sessions. Default: %(default)s.",
    )


def find_user(text: str, database: str) -> Any:
    """Return the user with this name or, failing that, with this primary key.

    Raises CommandError (exit status 2) if there is neither.
    """
    model = get_user_model()
    users = model._default_manager.using(database)
    try:
        return users.get(**{model.USERNAME_FIELD: text})
    except model.DoesNotExist:
        pass
    try:
        return users.get(pk=text)
    except (model.DoesNotExist, ValueError, ValidationError):
        raise CommandError(f"There is no user {text!r}, by name or by key.", returncode=2) from None


def progress_bar(verbosity: int, **options: Any) -> ProgressBar:
    """Return a progress bar on stderr; hidden without a terminal and with verbosity 0."""
    return tqdm(file=sys.stderr, disable=None if verbosity else True, **options)


def advance(bar: ProgressBar) -> Callable[[int], None]:
    """Return a function that moves the bar by a number of steps."""

    def move(steps: int) -> None:
        bar.update(steps)

    return move
