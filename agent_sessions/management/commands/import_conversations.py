"""`import_conversations FILE --user NAME`: JSON Lines into sessions."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from django.core.management import CommandError, CommandParser

from agent_sessions.management.options import DatabaseCommand, add_database, find_user, progress_bar
from agent_sessions.transfer import (
    BYTES_PER_ITEM,
    DEFAULT_MAX_LINE_BYTES,
    Importer,
    Line,
    Outcome,
    Result,
    read_lines,
)

if TYPE_CHECKING:
    from agent_sessions.management.options import ProgressBar


class Command(DatabaseCommand):
    """Parse the options, read, count and report."""

    help = (
        "Load conversations from JSON Lines in the chat fine-tuning format, one session a line: "
        '{"messages": [{"role": "user", "content": "Hello"}]}, optionally with title, agent_id, '
        "metadata, context, status, and the id and times that export_conversations writes. "
        "Running it again over the same file adds only what is missing. "
        "Exit status: 0 all lines are in, 1 some were rejected, 2 nothing was tried."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("file", help="The file to read; - reads standard input.")
        parser.add_argument(
            "--user", required=True, help="Name or primary key of the user who gets the sessions."
        )
        parser.add_argument(
            "--agent",
            default="import",
            help="Agent of lines that name none. Default: %(default)s.",
        )
        parser.add_argument(
            "--source",
            help="Name under which imported lines are remembered. Default: the file's name "
            "(stdin for -). The same lines under another name are imported once more.",
        )
        parser.add_argument(
            "--new-ids",
            action="store_true",
            help="Give sessions ids of their own, which follow from the user and the id in the "
            "line. For the conversations of another user of the same database.",
        )
        parser.add_argument(
            "--rejects",
            metavar="FILE",
            help="Write rejected lines here, as JSON Lines with line, reason and text.",
        )
        parser.add_argument(
            "--max-line-bytes",
            type=_positive,
            default=DEFAULT_MAX_LINE_BYTES,
            metavar="N",
            help="Reject longer lines unread, which bounds memory. Default: %(default)s.",
        )
        add_database(parser)

    def handle(self, *args: object, **options: Any) -> None:
        """Import the file; raise CommandError if a line was rejected."""
        path, database = options["file"], options["database"]
        user = find_user(options["user"], database)
        source = options["source"] or ("stdin" if path == "-" else Path(path).name)
        importer = Importer(
            user.pk,
            source,
            agent_id=options["agent"],
            using=database,
            new_ids=options["new_ids"],
            max_items=options["max_line_bytes"] // BYTES_PER_ITEM,
        )
        counts: Counter[Outcome] = Counter()
        messages = 0
        with ExitStack() as stack:
            file = _open(path, stack)
            rejects = _open_rejects(options["rejects"], path, stack)
            bar = stack.enter_context(
                progress_bar(
                    options["verbosity"], total=_size(file), unit="B", unit_scale=True, desc=source
                )
            )
            lines = _counted(read_lines(file, options["max_line_bytes"]), bar)
            try:
                for result in importer.run(lines):
                    counts[result.outcome] += 1
                    messages += result.message_count
                    if result.outcome is Outcome.REJECTED:
                        self._report(result, rejects, bar)
            except KeyboardInterrupt:
                bar.close()
                self.stderr.write("Interrupted. The same command goes on from here.")
                self._summarize(counts, messages)
                sys.exit(130)
        self._summarize(counts, messages)
        if counts[Outcome.REJECTED]:
            raise CommandError(f"{counts[Outcome.REJECTED]} lines were rejected.", returncode=1)

    def _report(self, result: Result, rejects: IO[str] | None, bar: ProgressBar) -> None:
        with bar.external_write_mode(file=sys.stderr):
            self.stderr.write(f"line {result.line.number}: {result.reason}")
        if rejects is not None:
            data = result.line.data
            text = None if data is None else data.decode("utf-8", "replace")
            report = {"line": result.line.number, "reason": result.reason, "text": text}
            rejects.write(json.dumps(report, ensure_ascii=False) + "\n")

    def _summarize(self, counts: Counter[Outcome], messages: int) -> None:
        self.stdout.write(
            f"{counts[Outcome.IMPORTED]} sessions with {messages} messages imported, "
            f"{counts[Outcome.PRESENT]} already there, {counts[Outcome.REJECTED]} rejected."
        )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"{text} is not above 0.")
    return number


def _open(path: str, stack: ExitStack) -> BinaryIO:
    if path == "-":
        return sys.stdin.buffer
    try:
        return stack.enter_context(Path(path).open("rb"))
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.", returncode=2) from error


def _open_rejects(path: str | None, source: str, stack: ExitStack) -> IO[str] | None:
    if path is None:
        return None
    try:
        if source != "-" and Path(path).exists() and Path(path).samefile(source):
            raise CommandError("--rejects names the file to import.", returncode=2)
        return stack.enter_context(Path(path).open("w", encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}.", returncode=2) from error


def _size(file: BinaryIO) -> int | None:
    """The bytes to come, where that is known."""
    try:
        return os.fstat(file.fileno()).st_size or None
    except OSError:
        return None


def _counted(lines: Iterator[Line], bar: ProgressBar) -> Iterator[Line]:
    for line in lines:
        bar.update(line.size)
        yield line
