from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from example_project.demo import probes
from example_project.demo.corpus import corpus_files
from tests.processes import Project, end, project, wait_until
from tests.services import free_port

pytestmark = pytest.mark.slow


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Project]:
    with project(tmp_path) as example:
        yield example


def members(group: int) -> list[str]:
    """The pids of the processes that the demo started."""
    found = subprocess.run(
        ["ps", "-ww", "-eo", "pid,ppid,args", "--no-headers"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    children = {str(group)}
    lines = []
    for line in found:
        pid, parent, command = line.split(None, 2)
        if parent in children:
            children.add(pid)
            lines.append((pid, command))
    return [pid for pid, command in lines if "exit_with_parent" in command]


def alive(pid: str) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_everything_works_and_runs_again(example: Project) -> None:
    for new in ("300", "0"):
        done = example.manage(
            *("demo", "--check", "--no-input", "--conversations", "300"),
            *("--port", str(free_port())),
        )
        assert f"300 conversations loaded, {new} of them new." in done.stdout
        assert "Everything works." in done.stdout
        assert re.search(r"Password +\S{12}\n", done.stdout)
        assert "Traceback" not in done.stderr
    assert example.scalar("SELECT COUNT(*) FROM auth_user") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_command(example: Project, number: signal.Signals) -> None:
    port = free_port()
    with (example.directory / "demo.log").open("wb") as log:
        demo = example.start(
            *("manage.py", "demo", "--no-input", "--conversations", "20", "--port", str(port)),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    children: list[str] = []
    try:
        wait_until(
            "The demo greets",
            lambda: b"Ctrl-C ends the demo" in (example.directory / "demo.log").read_bytes(),
            120,
        )
        children = members(demo.pid)
        assert len(children) == 3
        os.kill(demo.pid, number)
        demo.wait(60)
        assert demo.returncode == (0 if number != signal.SIGKILL else -signal.SIGKILL)
        wait_until("The children end", lambda: not any(map(alive, children)))
        assert probes.fetch(port, "/") == (0, b"")
    finally:
        end(demo, signal.SIGTERM)
    assert b"Traceback" not in (example.directory / "demo.log").read_bytes()


def test_a_taken_port_is_told_before_anything_else(example: Project) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = example.manage("demo", "--no-input", "--port", str(port), check=False)
    assert done.returncode == 1
    assert f"Port {port} is taken" in done.stderr
    assert f"--port {port + 1}" in done.stderr


def test_the_conversations_are_in_many_languages() -> None:
    files = corpus_files()
    assert len({file.language for file in files}) >= 20
    lines = [line.data.decode() for file in files[:40] for line in file.lines() if line.data]
    assert len(lines) > 100
    assert all('"role": "user"' in line for line in lines)
