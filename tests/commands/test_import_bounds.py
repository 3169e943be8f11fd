"""Files of brackets, commas and blank lines are read to their end, or refused, in little work."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from agent_sessions.models import Session
from agent_sessions.transfer.arrays import read_elements
from agent_sessions.transfer.lines import read_lines
from tests.commands.test_import_formats import failed

pytestmark = pytest.mark.django_db

HELLO = '{"messages": [{"role": "user", "content": "hello"}]}'


@pytest.fixture
def user(django_user_model: Any) -> Any:
    return django_user_model.objects.create_user("alice")


def nested(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.randrange(6 if depth < 7 else 2)
    if kind == 0:
        return chance.choice(["", "]", '"', "\\", '\\"[{', "}],", "text"])
    if kind == 1:
        return chance.choice([0, None, True])
    items = [nested(chance, depth + 1) for _ in range(chance.randrange(5))]
    return items if kind < 4 else {f"{place}]": item for place, item in enumerate(items)}


@pytest.mark.parametrize("chunk", [7, 64, 1000, 1_000_000])
def test_the_elements_of_a_list_of_brackets_are_those_of_json(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr("agent_sessions.transfer.arrays._CHUNK_BYTES", chunk)
    chance = random.Random(chunk)
    for separators in ((",", ":"), (", ", ": ")):
        value = [nested(chance) for _ in range(200)]
        data = json.dumps(value, separators=separators).encode()
        found = [*read_elements(io.BytesIO(data), 10_000_000)]
        assert [json.loads(line.data or b"") for line in found] == value
        assert {line.problem for line in found} == {""}


@pytest.mark.parametrize(
    "data", [b"[" * 600_000, b"[[" + b"[]," * 200_000, b'[["' + b"[" * 600_000]
)
def test_brackets_that_do_not_end_are_one_element_with_a_problem(data: bytes) -> None:
    (line,) = read_elements(io.BytesIO(data), 1_000_000)
    assert "ends in the middle" in line.problem


def test_blank_lines_count_and_are_not_given_one_by_one(tmp_path: Path) -> None:
    blank = b"\n" * 300_000 + b" \t\r\n" * 300_000
    data = b"\n" + b"first\n" + blank + b"second\n  third\n" + b"\n"
    file = tmp_path / "lines.jsonl"
    file.write_bytes(data)
    with file.open("rb", buffering=256 * 1024) as opened:
        lines = [*read_lines(opened)]
    assert [(line.number, line.data) for line in lines if (line.data or b"").strip()] == [
        (2, b"first"),
        (600_003, b"second"),
        (600_004, b"  third"),
    ]
    assert len(lines) < 100
    assert sum(line.size for line in lines) == len(data)


def test_a_comma_with_nothing_before_it_is_rejected(user: Any, tmp_path: Path) -> None:
    file = tmp_path / "list.json"
    file.write_text(f"[{HELLO},, {HELLO}]")
    _status, errors, summary = failed(file)
    assert "conversation 2: Nothing is before this comma." in errors
    assert "2 sessions with 2 messages imported" in summary


def test_an_import_ends_where_everything_is_rejected(
    user: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = "agent_sessions.management.commands.import_conversations"
    monkeypatch.setattr(f"{command}._MOST_REJECTED", 10)
    file = tmp_path / "lines.jsonl"
    other = '{"a": 1}\n'
    file.write_text(other * 9 + HELLO + "\n" + other * 20 + HELLO)
    status, errors, summary = failed(file)
    assert status == 1
    assert "10 lines in a row were rejected; the rest is not read." in errors
    assert "1 sessions with 1 messages imported, 0 already there, 19 rejected" in summary
    assert Session.objects.count() == 1
