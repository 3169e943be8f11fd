"""The REST API against empty DRF views and raw psycopg, on real servers, in one run.

    make bench-api [ARGS="--seconds 2 --connections 8"] [ARGS=--profile]

DATABASE_URL names the PostgreSQL server; the benchmark makes a database of its own there and
drops it. The servers and the load stay on 127.0.0.1, and end with it.
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import json
import os
import pstats
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from benchmarks.sessions.database import dsn_of
from benchmarks.sessions.peers import text
from benchmarks.sessions.peers.raw import INSERT, TABLES

HOST = "127.0.0.1"
SERVERS = {
    "WSGI (gunicorn, 1 process, 4 threads)": (
        (
            "gunicorn example_project.wsgi:application --worker-class gthread --threads 4"
            " --keep-alive 60 --log-level error --bind {host}:{port}"
        ),
        {},
    ),
    "ASGI (uvicorn, 1 process)": (
        (
            "uvicorn example_project.asgi:application --lifespan off --log-level error"
            " --host {host} --port {port}"
        ),
        {"DATABASE_POOL": "1"},
    ),
}
MESSAGE = {"role": "user", "content": text(1), "metadata": {"source": "bench"}}
SESSIONS, MESSAGES = 1_000, 1_000

# What an append consists of, outermost first: (file ends with, function).
STAGES = {
    "authentication (one query)": ("api/base.py", "perform_authentication"),
    "before the method, with authentication": ("api/base.py", "initial"),
    "reading the body": ("api/parsers.py", "parse"),
    "repository: the append (one query)": ("repository/sync.py", "add_messages"),
    "of these two, time in psycopg": ("psycopg/cursor.py", "execute"),
    "representing the message": ("api/serializers.py", "represent_message"),
    "rendering the answer": ("rest_framework/response.py", "rendered_content"),
}


@dataclass
class Load:
    """What one contestant did: how long each request took, and how long all ran."""

    latencies: list[float] = field(default_factory=list)
    elapsed: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.elapsed

    @property
    def p99(self) -> float:
        return sorted(self.latencies)[int(len(self.latencies) * 0.99)]


class Http:
    """One kept-alive connection; as little work of its own as can be."""

    def __init__(self, port: int, token: str) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.token = token

    def prepared(self, method: str, path: str, body: Any = None) -> Callable[[], None]:
        """Return a call that sends the request and demands success."""
        payload = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Token {self.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        request = head.encode() + payload
        return lambda: self.exchange(request)

    def exchange(self, request: bytes) -> None:
        self.socket.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self.more()
        head, _, body = received.partition(b"\r\n\r\n")
        if not head.split(b" ", 2)[1].startswith(b"2"):
            raise RuntimeError(f"{request!r} was answered {received!r}")
        (length,) = (
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        missing = length - len(body)
        while missing > 0:
            missing -= len(self.more())

    def more(self) -> bytes:
        received = self.socket.recv(65536)
        if not received:
            raise ConnectionError("the server hung up")
        return received

    def close(self) -> None:
        self.socket.close()


def drive(calls: list[Callable[[], Any]], seconds: float, load: Load) -> None:
    """Make the calls, each in a thread of its own, over and over until the time is over."""
    start = time.perf_counter()

    def work(call: Callable[[], Any]) -> list[float]:
        times = []
        before = time.perf_counter()
        while before < start + seconds:
            call()
            after = time.perf_counter()
            times.append(after - before)
            before = after
        return times

    with ThreadPoolExecutor(len(calls)) as threads:
        latencies = list(threads.map(work, calls))
    load.elapsed += time.perf_counter() - start
    load.latencies += itertools.chain(*latencies)


@contextmanager
def server(command: str, environment: Mapping[str, str]) -> Iterator[int]:
    """Run the server on a free port until the block ends."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", *command.format(host=HOST, port=port).split()],
        env={**os.environ, **environment},
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"this server did not start: {command}")
            try:
                socket.create_connection((HOST, port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Data:
    """A user with a token, with 1,000 sessions and one of 1,000 messages."""

    def __init__(self) -> None:
        from django.contrib.auth import get_user_model
        from django.db import connection
        from rest_framework.authtoken.models import Token

        from agent_sessions.models import Session
        from agent_sessions.repository import SyncSessionRepository

        user = get_user_model().objects.create_user("bench")
        self.token = Token.objects.create(user=user).key
        repository = SyncSessionRepository()
        for number in range(SESSIONS):
            session = repository.create(Session(user=user, agent_id="a", title=f"Number {number}"))
        repository.add_messages(
            session.pk, [{**MESSAGE, "content": text(number)} for number in range(MESSAGES)]
        )
        self.read_session = session.pk
        # A session for each connection: connections do not wait for each other's lock.
        self.append_sessions = list(Session.objects.order_by("pk").values_list("pk", flat=True))
        with connection.cursor() as cursor:
            cursor.execute(TABLES)
            cursor.execute("VACUUM ANALYZE")

    def request(self, name: str, number: int) -> tuple[str, str, Any]:
        """Return method, path and body of what a contestant asks for."""
        if name == "list":
            return "GET", "/api/v1/sessions/", None
        if name == "read":
            return "GET", f"/api/v1/sessions/{self.read_session}/messages/", None
        return "POST", f"/api/v1/sessions/{self.append_sessions[number]}/messages/", MESSAGE

    def bodies(self) -> dict[str, Any]:
        """Return what the API answers, for the empty views to answer too."""
        from rest_framework.test import APIClient

        client = APIClient(headers={"Authorization": f"Token {self.token}", "Host": HOST})
        found = {}
        for name in ("append", "list", "read"):
            method, path, body = self.request(name, 0)
            response = client.generic(method, path, json.dumps(body), "application/json")
            assert response.status_code < 300, response.content
            found[name] = response.json()
        return found


def measure(data: Data, database: dict[str, Any], options: argparse.Namespace) -> None:
    counter = itertools.count(1)

    def raw_append(connection: psycopg.Connection[Any], session: Any) -> Callable[[], Any]:
        return lambda: connection.execute(INSERT, (session, next(counter), text(1)))

    for title, (command, environment) in SERVERS.items():
        loads: dict[str, Load] = {}
        with ExitStack() as stack:
            port = stack.enter_context(server(command, environment))
            connections = [Http(port, data.token) for _ in range(options.connections)]
            for connection in connections:
                stack.callback(connection.close)
            contestants: dict[str, list[Callable[[], Any]]] = {}
            for name in ("append", "list", "read"):
                method, _, body = data.request(name, 0)
                contestants[f"{name}, empty view"] = [
                    connection.prepared(method, f"/empty/{name}/", body)
                    for connection in connections
                ]
                contestants[name] = [
                    connection.prepared(*data.request(name, number))
                    for number, connection in enumerate(connections)
                ]
            contestants["append, raw psycopg without HTTP"] = [
                raw_append(
                    stack.enter_context(psycopg.connect(**dsn_of(database), autocommit=True)),
                    session,
                )
                for session in data.append_sessions[: options.connections]
            ]
            # One round unmeasured: imports, connections and caches.
            for calls in contestants.values():
                drive(calls, 0.5, Load())
            for _ in range(options.rounds):
                for name, calls in contestants.items():
                    drive(calls, options.seconds, loads.setdefault(name, Load()))
        print(table(title, loads), flush=True)


def table(title: str, loads: Mapping[str, Load]) -> str:
    raw = loads["append, raw psycopg without HTTP"].rate
    lines = [
        f"\n### {title}\n",
        "| | requests/s | p99 ms | of its empty view | of raw psycopg |",
        "|---|---|---|---|---|",
    ]
    for name, load in loads.items():
        empty = loads.get(f"{name.partition(',')[0]}, empty view", load).rate
        of_empty = f"{load.rate / empty:.2f}" if "," not in name else ""
        of_raw = f"{load.rate / raw:.2f}" if name.startswith("append") else ""
        lines.append(
            f"| {name} | {load.rate:,.0f} | {load.p99 * 1e3:.1f} | {of_empty} | {of_raw} |"
        )
    return "\n".join(lines)


def profile(data: Data, rounds: int) -> None:
    """Print where the time of an append goes, inside the process, without a server."""
    from django.test import RequestFactory
    from django.urls import resolve

    factory = RequestFactory(headers={"Authorization": f"Token {data.token}", "Host": HOST})

    def call(path: str) -> None:
        view, args, kwargs = resolve(path)
        request = factory.post(path, json.dumps(MESSAGE), content_type="application/json")
        response = view(request, *args, **kwargs)
        response.render()
        assert response.status_code == 201, response.content

    paths = {"append": data.request("append", 0)[1], "empty view": "/empty/append/"}
    wall, cpu = {}, {}
    for name, path in paths.items():
        for _ in range(50):
            call(path)
        before, cpu_before = time.perf_counter(), time.process_time()
        for _ in range(rounds):
            call(path)
        wall[name] = (time.perf_counter() - before) / rounds
        cpu[name] = (time.process_time() - cpu_before) / rounds
    # CPU time: what PostgreSQL and the neighbours on the machine take is not the code's.
    profiler = cProfile.Profile(time.process_time)
    with profiler:
        for _ in range(rounds):
            call(paths["append"])
    statistics = pstats.Stats(profiler)
    found: dict[tuple[str, int, str], Any] = statistics.stats  # type: ignore[attr-defined]
    print("\n### One request in the process, without a server\n\n| | ms | CPU ms |\n|---|---|---|")
    for name in paths:
        print(f"| {name} | {wall[name] * 1e3:.3f} | {cpu[name] * 1e3:.3f} |")
    whole = sum(entry[2] for entry in found.values())
    print("\n### CPU time of an append, by part\n\n| | share |\n|---|---|")
    for stage, (file, function) in STAGES.items():
        took = sum(
            entry[3]
            for (path, _line, name), entry in found.items()
            if path.endswith(file) and name == function
        )
        print(f"| {stage} | {took / whole:.0%} |")
    print("\n### By function\n")
    statistics.strip_dirs().sort_stats("tottime").print_stats(25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1, help="of one contestant in a round")
    parser.add_argument("--profile", action="store_true", help="where an append's time goes")
    options = parser.parse_args()

    os.environ["BENCH_DATABASE"] = name = f"bench_api_{os.getpid()}"
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.api_settings"
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection, connections

    database = connection.settings_dict
    admin = {**dsn_of(database), "dbname": "postgres"}
    with psycopg.connect(**admin, autocommit=True) as server_of_all:
        server_of_all.execute(f"CREATE DATABASE {name}")
    try:
        call_command("migrate", verbosity=0)
        data = Data()
        os.environ["BENCH_BODIES"] = json.dumps(data.bodies())
        if options.profile:
            from benchmarks import api_urls

            api_urls.BODIES.update(json.loads(os.environ["BENCH_BODIES"]))
            profile(data, rounds=500)
        else:
            measure(data, database, options)
        connections.close_all()
    finally:
        with psycopg.connect(**admin, autocommit=True) as server_of_all:
            server_of_all.execute(f"DROP DATABASE {name} WITH (FORCE)")


if __name__ == "__main__":
    main()
