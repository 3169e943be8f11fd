"""`export_conversations`: sessions as JSON Lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.management import CommandError, CommandParser

from agent_sessions.management.options import (
    DatabaseCommand,
    Output,
    add_database,
    drop_output,
    find_user,
    progress_bar,
)
from agent_sessions.models import Session
from agent_sessions.transfer import export_sessions, printable

_NAMED = 20


class Command(DatabaseCommand):
    """Parse the options, write the pieces, count the lines."""

    help = (
        "Write conversations as JSON Lines in the chat fine-tuning format, one session a line, "
        "oldest first. import_conversations reads them back. Exit status 1 if texts are missing "
        "because they cannot be decrypted."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--user", help="Name or primary key of a user. Default: all users.")
        parser.add_argument(
            "--output",
            default="-",
            metavar="FILE",
            help="File to write, replaced when the export is complete (pipes and devices are "
            "written as they are). Default: standard output.",
        )
        add_database(parser)

    def handle(self, *args: object, **options: Any) -> None:
        """Export to the file or to standard output."""
        database = options["database"]
        sessions = Session.objects.using(database)
        if options["user"] is not None:
            sessions = sessions.for_user(find_user(options["user"], database))
        total = sessions.count()
        written = 0
        failures: list[str] = []
        with (
            self._output(options["output"]) as write,
            progress_bar(options["verbosity"], total=total, unit=" sessions") as bar,
        ):
            for piece in export_sessions(
                sessions, on_failure=lambda session: failures.append(str(session.pk))
            ):
                write(piece)
                if piece.endswith(b"\n"):
                    written += 1
                    bar.update()
        if options["verbosity"]:
            self.stderr.write(f"{written} sessions exported.")
        if failures:
            named = ", ".join(failures[:_NAMED]) + (", …" if len(failures) > _NAMED else "")
            raise CommandError(
                f"{len(failures)} of them lack texts that cannot be decrypted: {named}."
            )

    @contextmanager
    def _output(self, path: str) -> Iterator[Callable[[bytes], object]]:
        if path != "-":
            with _replaced(Path(path)) as write:
                yield write
            return
        if sys.__stdout__ is None and isinstance(self.stdout._out, Output):
            raise CommandError("Standard output is closed.", returncode=2)
        # Standard output takes bytes, whatever its encoding; what a caller of call_command()
        # put in its place may take text only.
        buffer = getattr(self.stdout, "buffer", None)
        try:
            yield (
                buffer.write if buffer else lambda data: self.stdout.write(data.decode(), ending="")
            )
            self.stdout.flush()
        except BrokenPipeError:
            # The reader, say `head`, has enough.
            drop_output(sys.stdout)
        except OSError as error:
            drop_output(sys.stdout)
            raise CommandError(f"Standard output cannot be written: {error.strerror}.") from error


@contextmanager
def _replaced(path: Path) -> Iterator[Callable[[bytes], object]]:
    """Write beside the file and put the result in its place when it is complete."""
    path = path.resolve()
    shown = printable(str(path))
    # A device or a pipe must not be replaced by a file.
    beside = path.is_file() or not path.exists()
    draft = path.with_name(f".{path.name}.{os.getpid()}.partial") if beside else path
    try:
        try:
            file = draft.open("wb")
        except OSError as error:
            raise CommandError(
                f"{shown} cannot be written: {error.strerror}.", returncode=2
            ) from error
        try:
            with file:
                yield file.write
            if beside:
                draft.replace(path)
        except OSError as error:
            raise CommandError(f"{shown} cannot be written: {error.strerror}.") from error
    finally:
        if beside:
            draft.unlink(missing_ok=True)
