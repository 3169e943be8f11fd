"""`import_conversations FILE --user NAME`: JSON Lines into sessions."""

from __future__ import annotations

import json
import re
import sys
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from django.core.exceptions import ValidationError
from django.core.management import CommandError, CommandParser

from agent_sessions.management.options import DatabaseCommand, add_database, find_user, progress_bar
from agent_sessions.models import Session
from agent_sessions.transfer import (
    AUTO,
    BYTES_PER_ITEM,
    DEFAULT_MAX_LINE_BYTES,
    FORMATS,
    Importer,
    Input,
    Line,
    Outcome,
    Result,
    UnreadableInput,
    printable,
)

if TYPE_CHECKING:
    from agent_sessions.management.options import ProgressBar


# What JSON leaves as it is and a terminal may act upon.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")

# More in a row are not conversations, or not in this format.
_MOST_REJECTED = 100_000


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
        parser.add_argument(
            "file", help="The file to read, also gzip or zip; - reads standard input."
        )
        parser.add_argument(
            "--user", required=True, help="Name or primary key of the user who gets the sessions."
        )
        parser.add_argument("--tenant", default="", help="Tenant of the sessions. Default: none.")
        parser.add_argument(
            "--update",
            action="store_true",
            help="Append to a session that is there already the messages that follow its own in "
            "the line. Without it such a line is rejected.",
        )
        parser.add_argument(
            "--format",
            choices=FORMATS,
            default=AUTO,
            help="chat: lines of export_conversations; chatgpt, claude, sharegpt: exports of "
            "these, as JSON Lines, a JSON list, or the zip archive with conversations.json. "
            "Default: detected for each conversation.",
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
        try:
            Session._meta.get_field("tenant").clean(options["tenant"], None)
        except ValidationError as error:
            raise CommandError(f"--tenant: {' '.join(error.messages)}", returncode=2) from None
        source = options["source"] or ("stdin" if path == "-" else Path(path).name)
        importer = Importer(
            user.pk,
            source,
            tenant=options["tenant"],
            agent_id=options["agent"],
            using=database,
            format_name=options["format"],
            new_ids=options["new_ids"],
            update=options["update"],
            max_items=options["max_line_bytes"] // BYTES_PER_ITEM,
        )
        counts: Counter[Outcome] = Counter()
        messages = branches = appended = 0
        problem = ""
        with ExitStack() as stack:
            given = _open(path, stack)
            rejects = Rejects(options["rejects"], path, stack) if options["rejects"] else None
            bar = stack.enter_context(
                progress_bar(
                    options["verbosity"],
                    total=given.size,
                    unit="B",
                    unit_scale=True,
                    desc=printable(source),
                )
            )
            lines = _counted(given.lines(options["max_line_bytes"]), bar)
            try:
                in_a_row = 0
                for result in importer.run(lines):
                    in_a_row = in_a_row + 1 if result.outcome is Outcome.REJECTED else 0
                    counts[result.outcome] += 1
                    if result.outcome is Outcome.EXTENDED:
                        appended += result.message_count
                    else:
                        messages += result.message_count
                    branches += result.branches_left_out
                    if result.outcome is Outcome.REJECTED:
                        self._report(result, rejects, bar)
                    if in_a_row == _MOST_REJECTED:
                        problem = f"{in_a_row} lines in a row were rejected; the rest is not read."
                        break
            except KeyboardInterrupt:
                bar.close()
                self.stderr.write("Interrupted. The same command goes on from here.")
                self._summarize(counts, messages, appended, branches)
                sys.exit(130)
            except UnreadableInput as error:
                problem = str(error)
        self._summarize(counts, messages, appended, branches)
        if problem:
            raise CommandError(f"{printable(path)}: {problem}", returncode=1)
        if counts[Outcome.REJECTED]:
            raise CommandError(f"{counts[Outcome.REJECTED]} lines were rejected.", returncode=1)

    def _report(self, result: Result, rejects: Rejects | None, bar: ProgressBar) -> None:
        with bar.external_write_mode(file=sys.stderr):
            self.stderr.write(f"{result.line.name}: {result.reason}")
        if rejects is not None:
            rejects.add(result)

    def _summarize(
        self, counts: Counter[Outcome], messages: int, appended: int, branches: int
    ) -> None:
        self.stdout.write(
            f"{counts[Outcome.IMPORTED]} sessions with {messages} messages imported, "
            f"{counts[Outcome.PRESENT]} already there, {counts[Outcome.REJECTED]} rejected."
        )
        if appended:
            self.stdout.write(
                f"{counts[Outcome.EXTENDED]} sessions that were there got {appended} messages more."
            )
        if branches:
            self.stdout.write(f"{branches} branches that are not current were left out.")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"{text} is not above 0.")
    return number


def _open(path: str, stack: ExitStack) -> Input:
    if path == "-":
        if sys.stdin is None:
            raise CommandError("Standard input is closed.", returncode=2)
        return _input(sys.stdin.buffer, path)
    try:
        return _input(stack.enter_context(Path(path).open("rb")), path)
    except OSError as error:
        shown = printable(path)
        raise CommandError(f"{shown} cannot be read: {error.strerror}.", returncode=2) from error


def _input(file: BinaryIO, path: str) -> Input:
    try:
        return Input(file)
    except UnreadableInput as error:
        raise CommandError(f"{printable(path)}: {error}", returncode=2) from error


class Rejects:
    """The file of rejected lines. Each is written at once, so that none is lost."""

    def __init__(self, path: str, source: str, stack: ExitStack) -> None:
        self._shown = printable(path)
        try:
            if source != "-" and Path(path).exists() and Path(path).samefile(source):
                raise CommandError("--rejects names the file to import.", returncode=2)
            file = Path(path).open("wb", buffering=0)  # noqa: SIM115  (the stack closes it)
            self._file = stack.enter_context(file)
        except OSError as error:
            raise self._problem(error, returncode=2) from error

    def add(self, result: Result) -> None:
        """Write a rejected line.

        Raises:
            CommandError: The file cannot be written.
        """
        data = result.line.data
        text = None if data is None else data.decode("utf-8", "replace")
        report = {"line": result.line.number, "reason": result.reason, "text": text}
        line = memoryview(
            _UNPRINTABLE.sub(_escape, json.dumps(report, ensure_ascii=False)).encode() + b"\n"
        )
        try:
            while line:
                line = line[self._file.write(line) or 0 :]
        except OSError as error:
            raise self._problem(error, returncode=1) from error

    def _problem(self, error: OSError, returncode: int) -> CommandError:
        reason = f"{self._shown} cannot be written: {error.strerror}."
        return CommandError(reason, returncode=returncode)


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _counted(lines: Iterator[Line], bar: ProgressBar) -> Iterator[Line]:
    for line in lines:
        bar.update(line.size)
        yield line
