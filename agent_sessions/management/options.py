"""Options and helpers that several commands share: the user, the database, the progress."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias, cast

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management import BaseCommand, CommandError, CommandParser
from django.core.management.base import OutputWrapper
from django.db import DEFAULT_DB_ALIAS, connections
from tqdm import tqdm

from agent_sessions.exceptions import DecryptionFailed
from agent_sessions.repository.connections import committing

if TYPE_CHECKING:
    ProgressBar: TypeAlias = tqdm[Any]


class Output(io.TextIOBase):
    """Standard output or standard error of a command, which may be closed or full.

    What the reader, say `head`, does not want any more is dropped. Another error ends the command
    with a CommandError on standard output, and is nothing on standard error.
    """

    def __init__(self, name: str) -> None:
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
        self._stream: TextIO = getattr(sys, name)
        self._must_arrive = name == "stdout"
        self.buffer = self._stream.buffer

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._stream.isatty()

    def write(self, text: str, /) -> int:
        """Write the text.

        Raises:
            CommandError: Standard output cannot be written.
        """
        try:
            return self._stream.write(text)
        except OSError as error:
            self._fail(error)
            return 0

    def flush(self) -> None:
        """Write the buffers.

        Raises:
            CommandError: Standard output cannot be written.
        """
        try:
            self._stream.flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        drop_output(self._stream)
        if self._must_arrive and not isinstance(error, BrokenPipeError):
            raise CommandError(f"Standard output cannot be written: {error.strerror}.") from error


def drop_output(stream: TextIO) -> None:
    """Drop what is written to a standard stream from now on, and what is still in its buffer."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


class DatabaseCommand(BaseCommand):
    """A command for one database, which also commits if the project commits by hand."""

    def run_from_argv(self, argv: list[str]) -> None:
        """Run the command, also where standard output or error is closed or full."""
        self.stdout = OutputWrapper(cast("TextIO", Output("stdout")))
        self.stderr = OutputWrapper(cast("TextIO", Output("stderr")))
        self.stderr.style_func = self.style.ERROR
        super().run_from_argv(argv)

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the command; return what it printed."""
        try:
            with committing(options["database"]):
                return super().execute(*args, **options)
        except DecryptionFailed as error:
            raise CommandError(str(error)) from None
        finally:
            self.stdout.flush()


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

    Raises:
        CommandError: There is neither; the exit status is 2.
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
