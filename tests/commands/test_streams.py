"""Standard streams that are closed or full, a full disk, and characters that terminals obey."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT, Project, project

pytestmark = pytest.mark.slow

GOOD = json.dumps({"messages": [{"role": "user", "content": "x" * 10_000}]}) + "\n"
# The key clears a screen and has half a pair of surrogates; its number is too long.
MESSAGE = '{"role": "user", "content": "\x9b1m", "\\u001b[2J\\ud800": %s}' % ("9" * 4100)
BAD = f'{{"messages": [{MESSAGE}]}}\n'


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("streams")
    with project(folder) as made:
        made.manage(
            "shell",
            "-v0",
            "-c",
            "from django.contrib.auth.models import User; User.objects.create_user('alice')",
        )
        (folder / "good.jsonl").write_text(GOOD)
        (folder / "bad.jsonl").write_text(BAD, encoding="utf-8")
        made.manage("import_conversations", str(folder / "good.jsonl"), "--user", "alice")
        yield made


def shell(example: Project, command: str) -> tuple[int, str]:
    done = subprocess.run(
        ["sh", "-c", command.replace("manage.py", f"{sys.executable} {ROOT}/manage.py")],
        cwd=example.directory,
        env={**example.environment, "PYTHONUNBUFFERED": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        timeout=180,
    )
    return done.returncode, done.stderr


IMPORT = "manage.py import_conversations good.jsonl --user alice"
FULL = "cannot be written: No space left on device."


@pytest.mark.parametrize(
    ("command", "status", "reason"),
    [
        (f"{IMPORT} > /dev/full", 1, f"Standard output {FULL}"),
        (f"{IMPORT} >&-", 0, ""),
        (f"{IMPORT} 2>&-", 0, ""),
        (f"{IMPORT} 2> /dev/full", 0, ""),
        ("manage.py import_conversations - --user alice <&-", 2, "Standard input is closed."),
        (
            "manage.py import_conversations bad.jsonl --user alice --rejects /dev/full",
            1,
            f"/dev/full {FULL}",
        ),
        ("manage.py import_conversations bad.jsonl --user alice 2> /dev/full", 1, ""),
        ("manage.py export_conversations > /dev/full", 1, f"Standard output {FULL}"),
        ("manage.py export_conversations >&-", 2, "Standard output is closed."),
        ("manage.py export_conversations --output /dev/full", 1, f"/dev/full {FULL}"),
        ("manage.py cleanup_expired_sessions > /dev/full", 1, f"Standard output {FULL}"),
    ],
)
@pytest.mark.slow
def test_a_closed_or_full_stream_gets_a_status_and_no_traceback(
    example: Project, command: str, status: int, reason: str
) -> None:
    returned, errors = shell(example, command)
    assert returned == status, errors
    assert reason in errors
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors


@pytest.mark.parametrize("command", ["import_conversations", "export_conversations"])
def test_a_reader_that_goes_away_is_no_error(example: Project, command: str) -> None:
    arguments = ("good.jsonl --user alice" if command.startswith("import") else "") + " 2>errors"
    # The status of the command itself comes by another descriptor.
    line = f"(manage.py {command} {arguments}; echo $? >status) | true"
    shell(example, line)
    errors = (example.directory / "errors").read_text()
    assert (example.directory / "status").read_text() == "0\n", errors
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors


def test_a_disk_that_fills_up_leaves_the_old_file(example: Project) -> None:
    old = example.directory / "old.jsonl"
    old.write_text("what was there")
    before = sorted(example.directory.iterdir())
    # A largest size of files is a disk of that size.
    command = "ulimit -f 1; exec manage.py export_conversations --output old.jsonl"
    status, errors = shell(example, command)
    assert status == 1
    assert "old.jsonl cannot be written: File too large." in errors
    assert "Traceback" not in errors
    assert old.read_text() == "what was there"
    assert sorted(example.directory.iterdir()) == before


def test_what_terminals_obey_is_printed_as_escapes(example: Project) -> None:
    command = "manage.py import_conversations bad.jsonl --user alice --rejects rejects.jsonl"
    command += " --skip-checks"
    status, errors = shell(example, command)
    assert status == 1
    assert errors.replace("\n", "").isprintable()
    assert "messages[0].\\x1b[2J\\ud800: An integer" in errors
    rejects = Path(example.directory, "rejects.jsonl").read_text(encoding="utf-8")
    assert rejects.replace("\n", "").isprintable()
    # Corrected, the line can be imported.
    assert json.loads(rejects)["text"] == BAD.rstrip()
    name = "escape\x1b[2J.jsonl"
    status, errors = shell(example, f"manage.py import_conversations '{name}' --user alice")
    assert status == 2
    assert "escape\\x1b[2J.jsonl cannot be read" in errors
