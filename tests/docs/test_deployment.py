"""The servers, the proxy and the probes of docs/deployment.md do what the page says."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.urls import resolve

from tests import services
from tests.docs.test_code_blocks import ROOT, Block, add_to_project, blocks
from tests.processes import end, wait_until
from tests.services import free_port

PAGE = ROOT / "docs" / "deployment.md"
HEALTH = "/api/v1/health/"
HEADERS = {"Host": "chat.example.org", "X-Forwarded-Proto": "https"}
#: The login of the user whom USER makes: ada, secret.
LOGIN = {"Authorization": "Basic YWRhOnNlY3JldA=="}
USER = """
from django.contrib.auth import get_user_model

get_user_model().objects.create_user("ada", password="secret")
"""
SESSION = """
from django.contrib.auth import get_user_model
from agent_sessions import Session, SyncSessionRepository

ada = get_user_model().objects.get(username="ada")
hello = {"role": "user", "content": "Hello"}
print(SyncSessionRepository().create(Session(user=ada, agent_id="a"), [hello]).pk)
"""
SAY = """
from agent_sessions import SyncSessionRepository

message = {"role": "user", "content": "While no server was there"}
SyncSessionRepository().add_message_to_session("%s", message)
"""


def of_language(language: str) -> list[Block]:
    return [block for block in blocks(PAGE) if block.language == language]


def command_lines(*programs: str) -> list[str]:
    lines = [line for block in of_language("sh") for line in block.code.splitlines()]
    return [line for line in lines if line.split()[0] in programs]


class Site:
    """What a reader has who followed the page: a project with one user and one session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        for name in ("DJANGO_SETTINGS_MODULE", "DATABASE_URL", "REDIS_URL"):
            self.environment.pop(name, None)
        self.run("-m", "django", "startproject", "mysite", str(folder))
        for block in of_language("python"):
            add_to_project(folder, block)
        self.run("manage.py", "migrate", "--verbosity", "0")
        self.shell(USER)
        self.session = self.shell(SESSION)

    def shell(self, code: str) -> str:
        """Run the code in the project; return the last line that it prints."""
        return self.run("manage.py", "shell", "--verbosity", "0", "--command", code)

    def run(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""

    @contextmanager
    def server(self, line: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        """Run a command of the page until the block ends; yield its process and port."""
        program, *arguments = shlex.split(line)
        path = Path(sys.executable).with_name(program)
        if not path.exists():
            services.missing(program, f"pip install {program}")
        port = free_port()
        bind = f"--bind=127.0.0.1:{port}" if program == "gunicorn" else f"--port={port}"
        process = subprocess.Popen(
            [str(path), *arguments, bind],
            cwd=self.folder,
            env=self.environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until(f"{line} answers", lambda: process.poll() is not None or answers(port))
            yield process, port
        finally:
            end(process, signal.SIGKILL)


@contextmanager
def asked(port: int, path: str, **headers: str) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path, headers={**HEADERS, **headers})
        yield connection.getresponse()
    finally:
        connection.close()


def answers(port: int) -> bool:
    try:
        with asked(port, HEALTH) as response:
            return response.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("mysite"))


UVICORN_IN_GUNICORN = (
    "gunicorn mysite.asgi:application --worker-class uvicorn.workers.UvicornWorker "
    "--workers 2 --graceful-timeout 5"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", [*command_lines("uvicorn", "gunicorn", "daphne"), UVICORN_IN_GUNICORN]
)
def test_a_server_answers_streams_and_ends_on_sigterm(site: Site, line: str) -> None:
    # The server itself would wait for ten minutes, and a stream lasts five.
    patient, patience = re.subn(
        r"(--(?:timeout-)?graceful-(?:shutdown|timeout)) 5", r"\1 600", line
    )
    assert patience or line.startswith("daphne")
    session = site.shell(SESSION)
    address = f"/api/v1/sessions/{session}/events/"
    with site.server(patient) as (process, port):
        with asked(port, address, **LOGIN) as stream:
            assert b"Hello" in b"".join(stream.readline() for _ in range(5))
            if "wsgi" in line:
                assert stream.read() == b"\n"
            process.terminate()
            # A response that was cut off would raise IncompleteRead.
            assert stream.read().strip() == b""
            process.wait(60)
    # The client comes back to the next process, and misses and repeats nothing.
    site.shell(SAY % session)
    with site.server(line) as (process, port):
        with asked(port, address, **LOGIN, **{"Last-Event-ID": "1"}) as stream:
            head = [stream.readline() for _ in range(3)]
            assert head == [b"retry: 1000\n", b"\n", b"id: 2\n"]


@contextmanager
def nginx(folder: Path, port: int) -> Iterator[int]:
    """Run nginx with the page's configuration in front of the port; yield its own port."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        services.missing("nginx", "install the program nginx")
    listening = free_port()
    (block,) = of_language("nginx")
    assert "127.0.0.1:8000" in block.code
    assert "listen 80;" in block.code
    code = block.code.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    # The page's server speaks plain HTTP, so that this test needs no certificate.
    code = code.replace("listen 80;", f"listen {listening};").replace("$scheme", "https")
    paths = "".join(
        f"{kind}_temp_path {folder};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}{code}}}\n"
    )
    command = [program, "-e", f"{folder}/error.log", "-c", str(file)]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen(command, start_new_session=True)
    try:
        wait_until("nginx answers", lambda: answers(listening))
        yield listening
    finally:
        end(process)


@pytest.mark.slow
def test_nginx_passes_events_on_as_they_come(site: Site, tmp_path: Path) -> None:
    (line,) = command_lines("uvicorn")
    with site.server(line) as (_, port), nginx(tmp_path, port) as proxy:
        address = f"/api/v1/sessions/{site.session}/events/"
        with asked(proxy, address, **LOGIN) as stream:
            # The stream stays open: what is buffered would not arrive before its end.
            assert b"Hello" in b"".join(stream.readline() for _ in range(5))


LARGE = """
import base64
from django.contrib.auth import get_user_model
from agent_sessions import Session, SyncSessionRepository

large = {"role": "user", "content": "x" * 4_000_000}
logins = []
for name in ("bob", "cleo", "dan"):
    user = get_user_model().objects.create_user(name, password="secret")
    SyncSessionRepository().create(Session(user=user, agent_id="large"), [large] * 4)
    logins.append(base64.b64encode(f"{name}:secret".encode()).decode())
print(*logins)
"""


@contextmanager
def unread_export(port: int, login: str) -> Iterator[int]:
    """Ask for an export of 16 MB and read the status alone; yield it."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.settimeout(60)
        client.connect(("127.0.0.1", port))
        lines = [f"{name}: {value}" for name, value in HEADERS.items()]
        head = "\r\n".join(["GET /api/v1/sessions/export/ HTTP/1.1", *lines])
        client.sendall(f"{head}\r\nAuthorization: Basic {login}\r\n\r\n".encode())
        yield int(client.recv(12).split()[1])


@pytest.mark.slow
def test_clients_that_do_not_read_hold_no_thread(site: Site, tmp_path: Path) -> None:
    logins = site.shell(LARGE).split()
    (line,) = [line for line in command_lines("gunicorn") if "wsgi" in line]
    line = line.replace("--workers 2", "--workers 1")
    assert "--threads 4" in line
    # Behind nginx there may be more of them than threads.
    with site.server(line) as (_, port), nginx(tmp_path, port) as proxy, ExitStack() as stack:
        for login in logins * 2:
            assert stack.enter_context(unread_export(proxy, login)) == 200
        assert answers(proxy)
        with asked(proxy, "/api/v1/sessions/", Authorization=f"Basic {logins[0]}") as response:
            assert response.status == 200
    # Without a proxy one thread stays free.
    with site.server(line) as (_, port), ExitStack() as stack:
        statuses = [stack.enter_context(unread_export(port, login)) for login in logins * 2]
        assert sorted(statuses) == [200] * 3 + [429] * 3
        assert answers(port)


@pytest.mark.slow
def test_nginx_gives_chunked_requests_a_length(site: Site, tmp_path: Path) -> None:
    (line,) = command_lines("uvicorn")
    body = b'{"role": "user", "content": "in chunks"}'
    head = (
        f"POST /api/v1/sessions/{site.session}/messages/ HTTP/1.1\r\n"
        f"Host: {HEADERS['Host']}\r\nAuthorization: {LOGIN['Authorization']}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with site.server(line) as (_, port), nginx(tmp_path, port) as proxy:
        with socket.create_connection(("127.0.0.1", proxy), timeout=60) as client:
            client.sendall(head.encode() + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
            assert client.recv(12) == b"HTTP/1.1 201"


def test_the_probes_ask_what_is_there() -> None:
    (block,) = of_language("yaml")
    pod: dict[str, Any] = yaml.safe_load(block.code)
    (container,) = pod["containers"]
    probe = container["readinessProbe"]["httpGet"]
    assert resolve(probe["path"]).url_name == "health"
    assert {header["name"]: header["value"] for header in probe["httpHeaders"]} == HEADERS
    ports = [port["containerPort"] for port in container["ports"]]
    assert [probe["port"], container["livenessProbe"]["tcpSocket"]["port"]] == ports * 2
