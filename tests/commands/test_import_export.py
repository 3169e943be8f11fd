from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from agent_sessions.models import Message, Session, SessionStatus
from agent_sessions.repository import SyncSessionRepository
from agent_sessions.transfer import Importer, Outcome, export_sessions, read_lines
from tests.processes import end, project, wait_until

pytestmark = pytest.mark.django_db

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}

# What an export has beside what was imported.
ADDED = {
    *("id", "created_at", "updated_at", "last_message_at", "last_activity_at", "expires_at"),
    "message_times",
}

EVERYTHING: list[dict[str, Any]] = [
    HELLO,
    {"messages": []},
    {
        "messages": [
            {"role": "system", "content": "Be brief.", "metadata": {"source": "web"}},
            {"role": "user", "content": [{"type": "text", "text": "什么是人工智能?"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "x": {"y": []}}]},
            {"role": "tool", "content": "NUL \x00 and \ud83d alone", "tool_call_id": "1"},
            {"role": "assistant", "content": "ذكاء اصطناعي 🙂\u2028line", "name": "bot"},
        ],
        "title": "Was ist KI?",
        "agent_id": "tutor",
        "metadata": {"language": "de", "deep": {"list": [1, None, True]}},
        "context": {"mode": "debug"},
        "status": "archived",
    },
    {**HELLO, "title": "failed", "status": "failed"},
    {**HELLO, "tools": [{"type": "function"}], "parallel_tool_calls": False, "metadata": {"a": 1}},
]


@pytest.fixture
def user(django_user_model: Any) -> Any:
    return django_user_model.objects.create_user("alice")


def write(path: Path, lines: list[Any]) -> Path:
    path.write_bytes(
        b"".join(
            (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n"
            for line in lines
        )
    )
    return path


def run(name: str, *arguments: Any, **options: Any) -> tuple[str, str]:
    stdout, stderr = io.StringIO(), io.StringIO()
    call_command(name, *map(str, arguments), stdout=stdout, stderr=stderr, **options)
    return stdout.getvalue(), stderr.getvalue()


def exported(user: Any) -> list[dict[str, Any]]:
    text = b"".join(export_sessions(Session.objects.for_user(user))).decode()
    return [json.loads(line) for line in text.split("\n") if line]


def test_each_line_becomes_a_session(user: Any, tmp_path: Path) -> None:
    file = write(
        tmp_path / "chats.jsonl", [{**HELLO, "title": "Greeting", "agent": "greeter"}, HELLO]
    )
    stdout, stderr = run("import_conversations", file, "--user", "alice", "--agent", "other")
    assert stdout == "2 sessions with 2 messages imported, 0 already there, 0 rejected.\n"
    assert stderr == ""
    first, second = Session.objects.order_by("id")
    assert (first.title, first.agent_id, first.user_id) == ("Greeting", "greeter", user.pk)
    assert second.agent_id == "other"
    message = first.messages.get()
    assert (message.role, message.content, message.sequence) == ("user", "Hello", 1)
    assert first.message_count == 1


def test_a_second_run_adds_nothing(user: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "chats.jsonl", [HELLO, HELLO, {**HELLO, "title": "third"}])
    run("import_conversations", file, "--user", "alice")
    stdout, _ = run("import_conversations", file, "--user", "alice", "--agent", "changed")
    assert stdout == "0 sessions with 0 messages imported, 3 already there, 0 rejected.\n"
    assert Session.objects.count() == 3


def test_the_same_lines_under_another_source_or_user_are_new(
    user: Any, django_user_model: Any, tmp_path: Path
) -> None:
    django_user_model.objects.create_user("bob")
    file = write(tmp_path / "chats.jsonl", [HELLO])
    run("import_conversations", file, "--user", "alice")
    run("import_conversations", file, "--user", "alice", "--source", "again")
    run("import_conversations", file, "--user", "bob")
    assert Session.objects.count() == 3


def test_lines_appended_to_the_file_are_added(user: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "chats.jsonl", [HELLO])
    run("import_conversations", file, "--user", "alice")
    write(file, [HELLO, {**HELLO, "title": "new"}])
    stdout, _ = run("import_conversations", file, "--user", "alice")
    assert stdout.startswith("1 sessions with 1 messages imported, 1 already there")


BAD_LINES = [
    (b"not json", "not JSON: Expecting value at character 1"),
    (b"[]", "not a JSON object"),
    (b"{}", "messages: This list is required"),
    (b'{"messages": {}}', "messages: This list is required"),
    (
        b'{"messages": [{"role": "user", "content": "x"}, {"role": "nobody", "content": "x"}]}',
        "messages[1].role: 'nobody' is not a role",
    ),
    (b'{"messages": [{"role": "user"}]}', "messages[0].content"),
    (b'{"messages": ["Hello"]}', "messages[0].message"),
    (b'{"messages": [], "title": 5}', "title: This is not a string"),
    (b'{"messages": [], "metadata": []}', "metadata: This is not an object"),
    (b'{"messages": [], "status": "lost"}', "status: 'lost' is not a status"),
    (b'{"messages": [], "title": "%s"}' % (b"x" * 300), "title"),
    (b'{"messages": [], "title": "a\\u0000b"}', "title"),
    (b'{"messages": [], "metadata": {"x": NaN}}', "NaN is not JSON"),
    (b'{"messages": [], "metadata": {"x": %s}}' % (b"9" * 5000), "digits"),
    (b'{"messages": %s}' % (b"[" * 20_000), "nested too deeply"),
    (b'{"messages": [], "x": [%s0]}' % (b"[]," * 40_000), "too many values"),
    (b'{"messages": [], "title": "a", "title": "b"}', "the key 'title' twice"),
    (b'{"messages": [{"role": "user", "content": "", "\\u001b[2J": NaN}]}', "NaN is not JSON"),
    (
        b'{"messages": [{"role": "user", "content": "", "metadata": {}, "\\u001b[2J": [1e999]}]}',
        "out of range",
    ),
    (b'{"messages": [{"role": "\\u001b[2J\\u202e", "content": "x"}]}', "'\\x1b[2J\\u202e' is"),
    (b'\xff\xfe{"messages": []}', "not UTF-8: byte 1"),
    (b'{"messages": [], "x": "%s"}' % (b"y" * 250_000), "too long: 250026 bytes"),
]


def test_bad_lines_are_reported_by_number_and_stop_nothing(user: Any, tmp_path: Path) -> None:
    lines: list[Any] = []
    for data, _reason in BAD_LINES:
        lines += [data, HELLO]
    file = write(tmp_path / "chats.jsonl", lines)
    rejects = tmp_path / "rejects.jsonl"
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.raises(CommandError) as raised:
        call_command(
            "import_conversations",
            *(str(file), "--user", "alice", "--rejects", str(rejects)),
            *("--max-line-bytes", "200100"),
            stdout=stdout,
            stderr=stderr,
        )
    assert raised.value.returncode == 1
    reports = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [report["line"] for report in reports] == list(range(1, 2 * len(BAD_LINES), 2))
    for report, (data, reason) in zip(reports, BAD_LINES, strict=True):
        assert reason in report["reason"], data[:50]
        assert f"line {report['line']}: {report['reason']}" in stderr.getvalue()
    assert reports[0]["text"] == "not json"
    assert reports[-1]["text"] is None
    assert Session.objects.count() == Message.objects.count() == len(BAD_LINES)
    assert f"{len(BAD_LINES)} rejected" in stdout.getvalue()


def test_a_bad_line_leaves_nothing_behind(user: Any) -> None:
    one, other = ({"role": "user", "content": text, "idempotency_key": "k"} for text in "xy")
    data = json.dumps({"messages": [one, other]}).encode()
    [result] = Importer(user.pk, "test").run(read_lines(io.BytesIO(data)))
    assert result.outcome is Outcome.REJECTED
    assert not Session.objects.exists()


def test_empty_lines_windows_ends_and_a_byte_order_mark_are_fine(user: Any, tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl"
    data = json.dumps(HELLO).encode()
    file.write_bytes(b"\xef\xbb\xbf" + data + b"\r\n\r\n   \n" + data)
    stdout, _ = run("import_conversations", file, "--user", "alice")
    assert stdout.startswith("2 sessions")


def test_a_huge_line_is_not_held_in_memory() -> None:
    class Endless(io.RawIOBase):
        left = 300 * 1024 * 1024
        largest = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            size = min(len(buffer), self.left)
            buffer[:size] = b"x" * size
            self.left -= size
            return size

    class Watched(io.BufferedReader):
        largest = 0

        def readline(self, size: int | None = -1) -> bytes:
            line = super().readline(size)
            Watched.largest = max(Watched.largest, len(line))
            return line

    [line] = read_lines(Watched(Endless()), max_bytes=1024)
    assert line.data is None
    assert line.size == 300 * 1024 * 1024
    assert Watched.largest <= 1024 * 1024


def test_a_line_of_exactly_the_limit_is_read() -> None:
    lines = list(read_lines(io.BytesIO(b"1234\n12345\n123456\n1"), max_bytes=5))
    assert [line.data for line in lines] == [b"1234", b"12345", None, b"1"]
    assert sum(line.size for line in lines) == 19


@pytest.mark.parametrize("name", ["nobody", "999999", "00000000-0000-0000-0000-000000000000"])
def test_an_unknown_user_is_refused(name: str, tmp_path: Path) -> None:
    file = write(tmp_path / "chats.jsonl", [HELLO])
    with pytest.raises(CommandError, match="There is no user") as raised:
        run("import_conversations", file, "--user", name)
    assert raised.value.returncode == 2


def test_a_user_may_be_named_by_key(user: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "chats.jsonl", [HELLO])
    run("import_conversations", file, "--user", user.pk)
    assert Session.objects.for_user(user).count() == 1


def test_a_missing_file_is_refused(user: Any, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read") as raised:
        run("import_conversations", tmp_path / "none.jsonl", "--user", "alice")
    assert raised.value.returncode == 2


def test_export_import_export_is_equal(user: Any, django_user_model: Any, tmp_path: Path) -> None:
    run("import_conversations", write(tmp_path / "in.jsonl", EVERYTHING), "--user", "alice")
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    run("export_conversations", "--user", "alice", "--output", first)
    SyncSessionRepository().delete_user_data(user.pk)
    django_user_model.objects.create_user("bob")
    run("import_conversations", first, "--user", "bob")
    run("export_conversations", "--user", "bob", "--output", second)
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes()


def test_what_was_imported_comes_out_as_it_was(user: Any, tmp_path: Path) -> None:
    run("import_conversations", write(tmp_path / "in.jsonl", EVERYTHING), "--user", "alice")
    expected = [{"agent_id": "import", **line} for line in EVERYTHING]
    found = exported(user)
    assert [{name: line[name] for name in line.keys() - ADDED} for line in found] == expected
    assert [len(line.get("message_times", ())) for line in found] == [1, 0, 5, 1, 1]


def test_export_is_for_one_user_or_for_all(user: Any, django_user_model: Any) -> None:
    bob = django_user_model.objects.create_user("bob")
    for owner in (user, bob):
        SyncSessionRepository().create(Session(user=owner, agent_id="a", title=owner.username))
    stdout, stderr = run("export_conversations", "--user", "bob")
    assert [json.loads(line)["title"] for line in stdout.splitlines()] == ["bob"]
    assert stderr == "1 sessions exported.\n"
    stdout, _ = run("export_conversations")
    assert [json.loads(line)["title"] for line in stdout.splitlines()] == ["alice", "bob"]


def test_a_failed_export_leaves_the_old_file(user: Any, tmp_path: Path) -> None:
    output = tmp_path / "missing" / "out.jsonl"
    with pytest.raises(CommandError, match="cannot be written"):
        run("export_conversations", "--output", output)
    assert list(tmp_path.iterdir()) == []


def test_an_export_through_a_link_keeps_the_link(user: Any, tmp_path: Path) -> None:
    target, link = tmp_path / "target.jsonl", tmp_path / "link.jsonl"
    link.symlink_to(target)
    SyncSessionRepository().create(Session(user=user, agent_id="a"))
    run("export_conversations", "--output", link)
    assert link.is_symlink()
    assert len(target.read_bytes().splitlines()) == 1


def test_an_export_into_a_pipe_leaves_a_pipe(user: Any, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    SyncSessionRepository().create(Session(user=user, agent_id="a"))
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        run("export_conversations", "--output", pipe)
        assert json.loads(os.read(reader, 65_536))["agent_id"] == "a"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_an_export_cannot_replace_a_folder(user: Any, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be written"):
        run("export_conversations", "--output", tmp_path)


def test_the_input_is_not_overwritten_with_its_rejects(user: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", [HELLO])
    before = file.read_bytes()
    with pytest.raises(CommandError, match="--rejects"):
        run("import_conversations", file, "--user", "alice", "--rejects", file)
    assert file.read_bytes() == before


def test_many_short_and_long_sessions_are_exported_in_few_queries(
    user: Any, django_assert_max_num_queries: Any
) -> None:
    repository = SyncSessionRepository()
    sizes = [3] * 250 + [2_500, 0, 199, 200, 201]
    for size in sizes:
        session = repository.create(Session(user=user, agent_id="a"))
        repository.add_messages(
            session.pk, [{"role": "user", "content": str(number)} for number in range(size)]
        )
    with django_assert_max_num_queries(20):
        lines = exported(user)
    assert [len(line["messages"]) for line in lines] == sizes
    assert [message["content"] for message in lines[250]["messages"]] == [
        str(number) for number in range(2_500)
    ]


def test_what_was_deleted_is_no_end_of_an_export(
    user: Any, django_assert_max_num_queries: Any
) -> None:
    repository = SyncSessionRepository()
    session = repository.create(Session(user=user, agent_id="a"))
    repository.add_messages(
        session.pk, [{"role": "user", "content": str(number)} for number in range(1, 3_001)]
    )
    Message.objects.create(session=session, sequence=0, role="user", content="0")
    kept = [0, 1, 400, *range(2_000, 2_300), 2_990]
    session.messages.exclude(sequence__in=kept).delete()
    with django_assert_max_num_queries(20):
        (line,) = exported(user)
    assert [int(message["content"]) for message in line["messages"]] == kept


@pytest.mark.parametrize("large", ["content", "metadata"])
def test_large_messages_are_read_few_at_a_time(user: Any, large: str) -> None:
    repository = SyncSessionRepository()
    session = repository.create(Session(user=user, agent_id="a"))
    text = "x" * 200_000
    message = {"role": "user", "content": "", large: {"x": text} if large == "metadata" else text}
    repository.add_messages(session.pk, [message] * 130)
    most = 0

    def count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal most
        result = execute(sql, params, many, context)
        most = max(most, context["cursor"].rowcount)
        return result

    with connection.execute_wrapper(count):
        assert len(exported(user)[0]["messages"]) == 130
    # SQLite does not tell how many rows it has found.
    assert most <= 50


def test_messages_appended_during_an_export_do_not_disturb_it(user: Any) -> None:
    repository = SyncSessionRepository()
    session = repository.create(Session(user=user, agent_id="a"))
    repository.add_messages(session.pk, [{"role": "user", "content": "x"}] * 60)
    pieces = export_sessions(Session.objects.for_user(user))
    received = [next(pieces)]
    repository.add_messages(session.pk, [{"role": "user", "content": "late"}] * 60)
    received += pieces
    assert len(json.loads(b"".join(received))["messages"]) == 60


def test_imported_status_and_counters_agree(user: Any, tmp_path: Path) -> None:
    run("import_conversations", write(tmp_path / "in.jsonl", EVERYTHING), "--user", "alice")
    session = Session.objects.get(status=SessionStatus.ARCHIVED)
    assert session.message_count == session.last_sequence == session.messages.count() == 5


@pytest.mark.slow
def test_kill_9_in_the_middle_then_again_gives_exactly_all(tmp_path: Path) -> None:
    count = 600
    file = write(
        tmp_path / "chats.jsonl",
        [
            {"messages": [{"role": "user", "content": f"{n} {part}"} for part in "abc"]}
            for n in range(count)
        ],
    )
    with project(tmp_path) as example:
        example.manage(
            "shell",
            "-v0",
            "-c",
            "from django.contrib.auth.models import User; User.objects.create_user('alice')",
        )
        command = ("manage.py", "import_conversations", str(file), "--user", "alice")
        process = example.start(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until(
                "An import under way",
                lambda: example.scalar("SELECT COUNT(*) FROM agent_sessions_session") > 50,
            )
        finally:
            end(process, signal.SIGKILL)
        assert 50 < example.scalar("SELECT COUNT(*) FROM agent_sessions_session") < count
        example.manage(*command[1:])
        done = example.manage("export_conversations", "--user", "alice")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(line["messages"][0]["content"] for line in lines) == sorted(
        f"{n} a" for n in range(count)
    )
    assert all(len(line["messages"]) == 3 for line in lines)


@pytest.mark.slow
def test_standard_input_and_output_work_in_a_pipe(tmp_path: Path) -> None:
    with project(tmp_path) as example:
        example.manage(
            "shell",
            "-v0",
            "-c",
            "from django.contrib.auth.models import User; User.objects.create_user('alice')",
        )
        imported = subprocess.run(
            [sys.executable, "manage.py", "import_conversations", "-", "--user", "alice"],
            input=json.dumps(EVERYTHING[2]).encode() + b"\nbad\n",
            env=example.environment,
            capture_output=True,
        )
        assert imported.returncode == 1
        assert b"line 2:" in imported.stderr
        # The reader goes away after the first bytes.
        process = example.start("manage.py", "export_conversations", "-v0")
        assert process.stdout is not None
        assert process.stdout.read(13) == b'{"messages": '
        process.stdout.close()
        process.wait(60)
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
        end(process)
