"""Exports of ChatGPT, Claude and ShareGPT, compressed or not, whole or broken."""

from __future__ import annotations

import gzip
import io
import json
import os
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from agent_sessions.models import Session, SessionStatus
from agent_sessions.repository import SyncSessionRepository
from agent_sessions.transfer import Input, UnreadableInput
from agent_sessions.transfer.arrays import read_elements
from tests.commands.test_import_export import HELLO, exported, run

pytestmark = pytest.mark.django_db

EXPORTS = Path(__file__).parent / "exports"
CHATGPT = EXPORTS / "chatgpt.json"


@pytest.fixture
def user(django_user_model: Any) -> Any:
    return django_user_model.objects.create_user("alice")


def imported(file: Path, *options: Any) -> str:
    return run("import_conversations", file, "--user", "alice", *options)[0]


def failed(file: Path, *options: Any) -> tuple[int, str, str]:
    """Return the status, the errors and the summary of an import that fails."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.raises(CommandError) as raised:
        call_command(
            "import_conversations",
            *(str(file), "--user", "alice", *options),
            stdout=stdout,
            stderr=stderr,
        )
    return raised.value.returncode, f"{stderr.getvalue()}{raised.value}", stdout.getvalue()


def written(tmp_path: Path, records: object, name: str = "conversations.json") -> Path:
    file = tmp_path / name
    file.write_text(json.dumps(records))
    return file


def zipped(tmp_path: Path, **members: bytes) -> Path:
    file = tmp_path / "export.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/"), data)
    return file


def chatgpt() -> Any:
    return json.loads(CHATGPT.read_text())


def test_chatgpt_gives_its_current_branch_with_times(user: Any) -> None:
    summary = imported(CHATGPT)
    assert summary == (
        "2 sessions with 5 messages imported, 0 already there, 0 rejected.\n"
        "1 branches that are not current were left out.\n"
    )
    session, empty = Session.objects.order_by("id")
    assert (session.title, session.status) == ("Äpfel zählen", SessionStatus.ACTIVE)
    assert session.created_at == datetime(2021, 6, 1, 11, 59, 59, 500_000, tzinfo=UTC)
    assert session.updated_at == datetime(2021, 6, 1, 12, 0, 13, tzinfo=UTC)
    assert session.expires_at is None
    assert session.metadata["source"] == {
        "application": "chatgpt",
        "id": "22222222-0000-4000-8000-000000000001",
        "branches_left_out": 1,
    }
    assert session.metadata["import_extra"] == {
        "safe_urls": ["https://example.com/apples"],
        "is_archived": False,
        "default_model_slug": "gpt-4o",
    }
    messages = list(session.messages.order_by("sequence"))
    assert [message.role for message in messages] == [
        *("system", "user", "assistant", "tool", "assistant")
    ]
    # The first has no time of its own.
    assert messages[0].created_at == session.created_at
    assert messages[1].created_at == datetime(2021, 6, 1, 12, 0, 0, 123_456, tzinfo=UTC)
    image, text = messages[1].content
    assert image["asset_pointer"] == "file-service://file-abc"
    assert text == "Wie viele Äpfel sind das?"
    assert messages[2].content[0]["text"] == "count_apples('/mnt/data/apples.png')"
    assert messages[2].as_dict()["recipient"] == "python"
    assert messages[3].as_dict()["name"] == "python"
    assert messages[4].content == "Es sind vier Äpfel."
    assert messages[4].metadata["finish_details"]["type"] == "stop"
    assert (empty.status, empty.message_count) == (SessionStatus.ARCHIVED, 0)
    repository = SyncSessionRepository()
    for term in ("Äpfel sind", "count_apples", "vier"):
        (found,) = repository.search_sessions(user.pk, term)
        assert found.pk == session.pk


def test_claude_keeps_blocks_tools_and_attachments(user: Any) -> None:
    imported(EXPORTS / "claude.json")
    session, empty = Session.objects.order_by("id")
    assert session.title == "Train times"
    assert session.created_at == datetime(2024, 5, 6, 7, 8, 9, 123_456, tzinfo=UTC)
    first, second, third = session.messages.order_by("sequence")
    assert (first.role, second.role, third.role) == ("user", "assistant", "user")
    assert first.text == "When does the next train leave?"
    assert first.as_dict()["attachments"][0]["extracted_content"].endswith("09:15 Basel")
    assert [block["type"] for block in second.content] == [
        *("thinking", "text", "tool_use", "tool_result", "text")
    ]
    assert second.as_dict()["text"].startswith("Let me look.\n```")
    assert third.content == "Thanks"
    assert third.created_at == datetime(2024, 5, 6, 7, 10, tzinfo=UTC)
    assert session.metadata["import_extra"]["account"]
    assert empty.message_count == 0


def test_claude_takes_the_current_branch_where_it_is_named(user: Any, tmp_path: Path) -> None:
    (record, _empty) = json.loads((EXPORTS / "claude.json").read_text())
    first, second, third = record["chat_messages"]
    first["parent_message_uuid"] = "00000000-0000-4000-8000-000000000000"
    second["parent_message_uuid"] = third["parent_message_uuid"] = first["uuid"]
    record["current_leaf_message_uuid"] = third["uuid"]
    assert "1 branches" in imported(written(tmp_path, [record]))
    texts = [message.text for message in Session.objects.get().messages.order_by("sequence")]
    assert texts == ["When does the next train leave?", "Thanks"]


@pytest.mark.parametrize("name", ["sharegpt.json", "sharegpt.jsonl"])
def test_sharegpt_is_read_as_list_and_as_lines(user: Any, name: str) -> None:
    imported(EXPORTS / name)
    plain, tools = exported(user)
    assert plain["messages"] == [
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "A language model."},
    ]
    assert [message["role"] for message in tools["messages"]] == [
        *("system", "user", "assistant", "tool", "assistant")
    ]
    assert tools["messages"][2]["from"] == "function_call"
    assert tools["messages"][4] == {"role": "assistant", "content": "Es regnet.", "weight": 1}
    assert tools["tools"] == '[{"name": "weather"}]'


@pytest.mark.parametrize("name", ["chatgpt.json", "claude.json", "sharegpt.json"])
def test_a_second_import_recognizes_what_is_there(
    user: Any, django_user_model: Any, tmp_path: Path, name: str
) -> None:
    imported(EXPORTS / name)
    before = exported(user)
    records = json.loads((EXPORTS / name).read_text())
    assert "2 already there" in imported(EXPORTS / name)
    if name != "sharegpt.json":
        other = written(tmp_path, records[::-1], "another name.json")
        assert "2 already there" in imported(other)
    assert exported(user) == before
    bob = django_user_model.objects.create_user("bob")
    run("import_conversations", EXPORTS / name, "--user", "bob")
    assert Session.objects.for_user(bob).count() == 2


@pytest.mark.parametrize("name", ["chatgpt.json", "claude.json", "sharegpt.json"])
def test_exported_and_imported_again_it_is_the_same(user: Any, tmp_path: Path, name: str) -> None:
    imported(EXPORTS / name)
    before = exported(user)
    SyncSessionRepository().delete_user_data(user.pk)
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(line) + "\n" for line in before))
    imported(tmp_path / "own.jsonl")
    assert exported(user) == before


def broken() -> list[tuple[Any, str]]:
    """Conversations that are not acceptable, each with what is said of it."""
    made: list[tuple[Any, str]] = [(5, "not a JSON object"), ({"mapping": 1}, "mapping: This is")]
    key = "11111111-0000-4000-8000-000000000004"

    def change(reason: str, **fields: Any) -> Any:
        made.append((record := chatgpt()[0], reason))
        record.update(fields)
        return record

    change("mapping: There is no message 'lost'", current_node="lost")
    change("mapping: It is not said which of the branches", current_node=None)
    change("create_time: '2021' is not a number of seconds", create_time="2021")
    change("update_time: ", update_time=99_999_999_999)
    change("update_time: This is outside the years", update_time=1e300)
    change("update_time: This is outside the years", update_time=10**400)
    circle = change("mapping: The messages follow each other in a circle")
    circle["mapping"][key]["parent"] = key
    message = change(f"mapping[{key}].message: This is not an object")
    message["mapping"][key]["message"] = []
    role = change("messages[2].role: 'critic' is not a role")
    role["mapping"][key]["message"]["author"]["role"] = "critic"
    part = change(f"mapping[{key}].message.content.parts: A part is")
    part["mapping"][key]["message"]["content"] = {"content_type": "text", "parts": [1, 2]}
    made += [
        ({"chat_messages": {}}, "chat_messages: This is not a list"),
        ({"chat_messages": [1]}, "chat_messages[0]: This is not an object"),
        (
            {"chat_messages": [{"sender": "human", "text": "", "created_at": "2024-01-01T00:00"}]},
            "chat_messages[0].created_at: '2024-01-01T00:00' has no time zone",
        ),
        ({"chat_messages": [{"sender": ["x"], "text": ""}]}, "messages[0].role"),
        ({"chat_messages": [{"sender": "human", "content": 5}]}, "messages[0].content"),
        (
            {"chat_messages": [{"uuid": "a"}, {"uuid": "a"}], "current_leaf_message_uuid": "a"},
            "chat_messages: Two messages have one id, or none",
        ),
        ({"conversations": [{"from": "human"}]}, "conversations[0].value: This is not a string"),
        ({"conversations": [{"from": {}, "value": ""}]}, "conversations[0].from: This is not"),
        ({"conversations": [{"from": "narrator", "value": ""}]}, "'narrator' is not a role"),
    ]
    return made


def test_what_is_not_understood_is_named_and_stops_nothing(user: Any, tmp_path: Path) -> None:
    cases = broken()
    records = [one for record, _reason in cases for one in (record, HELLO)]
    status, errors, summary = failed(written(tmp_path, records))
    assert status == 1
    reasons = [line for line in errors.splitlines() if line.startswith("conversation ")]
    assert len(reasons) == len(cases)
    for place, (line, (_record, reason)) in enumerate(zip(reasons, cases, strict=True)):
        assert line.startswith(f"conversation {2 * place + 1}: ")
        assert reason in line
    assert summary.startswith(f"{len(cases)} sessions with {len(cases)} messages imported")


def test_the_format_may_be_given(user: Any, tmp_path: Path) -> None:
    file = written(tmp_path, [{"messages": [], "conversations": []}])
    assert imported(file, "--format", "sharegpt").startswith("1 sessions")
    _status, errors, _summary = failed(file, "--format", "chatgpt")
    assert "conversation 1: mapping: This key is required." in errors


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'[{"messages": []}, {"messages": [', "conversation 2: The file ends in the middle"),
        (b'[{"messages": []}, {"messages"}, {"messages": []}]', "conversation 2: This is not JSON"),
        (b'[{"messages": []} {"messages": []}]', "conversation 1: This is not JSON: Extra data"),
        (b'[{"messages": []}] {"messages": []}', "conversation 2: What follows the end"),
        (b'[{"messages": [], "x": "%s"}]' % (b"x" * 70_000), "conversation 1: This is too long"),
        (b'[{"messages": %s}]' % (b"[" * 5_000), "conversation 1: "),
        (b'[{"messages": [], "messages": []}]', "the key 'messages' twice"),
    ],
)
def test_a_broken_list_is_named_by_conversation(
    user: Any, tmp_path: Path, text: bytes, reason: str
) -> None:
    file = tmp_path / "conversations.json"
    file.write_bytes(text)
    _status, errors, _summary = failed(file, "--max-line-bytes", "65536")
    assert reason in errors


def test_gzip_is_read(user: Any, tmp_path: Path) -> None:
    file = tmp_path / "conversations.json.gz"
    file.write_bytes(gzip.compress(CHATGPT.read_bytes()))
    assert imported(file).startswith("2 sessions")
    lines = tmp_path / "lines.jsonl"
    lines.write_bytes(gzip.compress(json.dumps(HELLO).encode()))
    assert imported(lines).startswith("1 sessions")


def test_the_archive_of_an_application_is_read_and_nothing_is_unpacked(
    user: Any, tmp_path: Path
) -> None:
    half = len(records := chatgpt()) // 2
    archive = zipped(
        tmp_path,
        **{
            "..__..__conversations-000.json": json.dumps(records[:half]).encode(),
            "folder__conversations-001.json": json.dumps(records[half:]).encode(),
            "user.json": b"{}",
            "chat.html": b"<html>",
        },
    )
    before = sorted(tmp_path.rglob("*"))
    assert imported(archive).startswith("2 sessions")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("members", "status", "reason"),
    [
        ({}, 1, "no conversations.json"),
        ({"a.json": b"[]", "b.json": b"[]"}, 1, "no conversations.json"),
        ({"conversations.json": b"[" + b" " * 80_000_000}, 1, "more than 100 times its size"),
    ],
)
def test_an_archive_of_another_kind_is_refused(
    user: Any, tmp_path: Path, members: dict[str, bytes], status: int, reason: str
) -> None:
    returned, errors, summary = failed(zipped(tmp_path, **members))
    assert returned == status
    assert reason in errors
    assert summary.startswith("0 sessions")


def test_what_was_read_before_an_input_breaks_off_stays(user: Any, tmp_path: Path) -> None:
    messages = [
        {"messages": [{"role": "user", "content": os.urandom(1_200).hex()}]} for _ in range(1_000)
    ]
    lines = b"".join(json.dumps(each).encode() + b"\n" for each in messages)
    file = tmp_path / "lines.jsonl.gz"
    file.write_bytes(gzip.compress(lines)[:-400_000])
    status, errors, summary = failed(file)
    assert status == 1
    assert "It cannot be read: Compressed file ended before" in errors
    assert 0 < Session.objects.count() < 1_000
    assert summary.startswith(f"{Session.objects.count()} sessions")


def test_a_bomb_of_gzip_is_refused(user: Any, tmp_path: Path) -> None:
    file = tmp_path / "bomb.gz"
    file.write_bytes(gzip.compress((b" " * 999_999 + b"\n") * 80))
    _status, errors, _summary = failed(file)
    assert "more than 100 times its size" in errors


def test_a_deep_tree_is_walked(user: Any, tmp_path: Path) -> None:
    record = chatgpt()[1]
    record["mapping"] = {
        str(n): {"id": str(n), "message": None, "parent": str(n - 1) if n else None, "children": []}
        for n in range(20_000)
    }
    record["current_node"] = "19999"
    assert imported(written(tmp_path, [record])).startswith("1 sessions with 0 messages")


class Pipe(io.BytesIO):
    """Standard input in a pipe."""

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise OSError("Illegal seek")


def test_gzip_is_read_from_a_pipe_and_an_archive_is_not(tmp_path: Path) -> None:
    given = Input(Pipe(gzip.compress(b'{"messages": []}\n{}')))
    assert given.size is None
    assert [line.data for line in given.lines(100)] == [b'{"messages": []}', b"{}"]
    archive = zipped(tmp_path, **{"conversations.json": b"[]"}).read_bytes()
    with pytest.raises(UnreadableInput, match="from a file"):
        list(Input(Pipe(archive)).lines(100))


def test_a_message_of_chatgpt_without_parts_is_empty(user: Any, tmp_path: Path) -> None:
    (record, *_rest) = chatgpt()
    node = record["mapping"][record["current_node"]]
    node["message"]["content"] = {"content_type": "text", "parts": []}
    imported(written(tmp_path, [record]))
    (session,) = Session.objects.all()
    assert SyncSessionRepository().get_messages(session.pk)[-1].content == ""


@pytest.mark.parametrize("damage", ["password", "compression", "checksum", "cut", "name", "place"])
def test_a_damaged_archive_is_a_reason_and_no_traceback(tmp_path: Path, damage: str) -> None:
    data = bytearray(zipped(tmp_path, **{"conversations.json": b"[1, 2]" * 99}).read_bytes())
    entry = data.index(b"PK\x01\x02")
    match damage:
        case "password":
            data[6] |= 1
            data[entry + 8] |= 1
        case "compression":
            data[8] = data[entry + 10] = 14
        case "checksum":
            data[14] ^= 1
            data[entry + 16] ^= 1
        case "cut":
            del data[-30:]
        case "name":
            # It says that its name is UTF-8.
            data[entry + 9] |= 8
            data[entry + 46] = 0xFF
        case "place":
            # The table of contents is said to be behind the end of the file.
            data[-5] = 1
    with pytest.raises(UnreadableInput):
        list(Input(io.BytesIO(bytes(data))).lines(100))


def test_an_archive_with_a_huge_table_of_contents_is_refused() -> None:
    table = b"\0" * (20 * 1024 * 1024)
    end = b"PK\x05\x06" + bytes(4) + b"\1\0\1\0" + len(table).to_bytes(4, "little") + bytes(6)
    with pytest.raises(UnreadableInput, match="table of contents"):
        list(Input(io.BytesIO(b"PK\x03\x04" + table + end)).lines(100))


@pytest.mark.parametrize("text", [b'[{"a": [1, "b,]}\\"", {}]}, 2 , [3]]', b"[]", b"[ ]\n"])
def test_elements_end_where_they_do_wherever_the_input_is_cut(
    text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size in range(1, len(text) + 1):
        monkeypatch.setattr("agent_sessions.transfer.arrays._CHUNK_BYTES", size)
        found = [line.data for line in read_elements(io.BytesIO(text), 100) if line.data]
        assert [json.loads(data) for data in found] == json.loads(text)
        *_found, last = read_elements(io.BytesIO(text + b"  \n 1"), 100)
        assert last.problem.startswith("What follows")
