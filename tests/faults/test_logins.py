"""Nobody is logged out by a Redis that stalls or restarts."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.cookies import SimpleCookie
from pathlib import Path

import pytest

from tests.processes import ROOT, end, wait_until
from tests.services import RedisServer, free_port

pytestmark = pytest.mark.slow

SITE = "tests.faults.login_site"
WORKERS = 4
USERS = [f"user{number}" for number in range(8)]


class Visitor:
    """A browser with one cookie."""

    def __init__(self, port: int, name: str) -> None:
        self._port = port
        self.name = name
        self.cookie = ""
        #: The workers that have answered with the visitor's name since the last ``forget()``.
        self.workers: set[str] = set()
        assert self._get(f"/enter/{name}/") == (200, name)
        assert self.cookie

    def look(self) -> None:
        """Ask who one is: an error is allowed, another answer than one's name is not."""
        status, text = self._get("/who/")
        assert status in (200, 500), text
        if status == 200:
            name, _, worker = text.partition(" ")
            assert name == self.name, f"{self.name} was logged out"
            self.workers.add(worker)

    def _get(self, address: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            headers = {"Cookie": f"sessionid={self.cookie}"} if self.cookie else {}
            connection.request("GET", address, headers=headers)
            response = connection.getresponse()
            for header in response.msg.get_all("Set-Cookie", []):
                self.cookie = SimpleCookie(header)["sessionid"].value
            return response.status, response.read().decode()
        finally:
            connection.close()


@pytest.fixture
def redis_on_disk(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer("--dir", str(tmp_path), "--appendonly", "yes", "--appendfsync", "always")
    server.start()
    yield server
    server.close()


@pytest.fixture(params=["cache_layer.sessions", "django.contrib.sessions.backends.cached_db"])
def visitors(
    request: pytest.FixtureRequest, redis_on_disk: RedisServer, tmp_path: Path
) -> Iterator[list[Visitor]]:
    port = free_port()
    environment = {
        **os.environ,
        "SITE_DATABASE": str(tmp_path / "db.sqlite3"),
        "SITE_REDIS": redis_on_disk.url,
        "SITE_ENGINE": request.param,
    }
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    migrate = f"import {SITE}; from django.core.management import call_command as do; do('migrate')"
    subprocess.run(
        [sys.executable, "-c", migrate], cwd=ROOT, env=environment, check=True, capture_output=True
    )
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", f"{SITE}:application", f"--workers={WORKERS}"),
            *("--threads=2", f"--bind=127.0.0.1:{port}", "--log-level=critical"),
        ],
        cwd=ROOT,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            try:
                connection.request("GET", "/who/")
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False

    try:
        wait_until("the server listens", answers)
        yield [Visitor(port, name) for name in USERS]
    finally:
        end(server)


def everybody_is_known_everywhere(visitors: list[Visitor]) -> None:
    for visitor in visitors:
        visitor.workers.clear()

    def look(visitor: Visitor) -> bool:
        visitor.look()
        return len(visitor.workers) == WORKERS

    with ThreadPoolExecutor(len(visitors)) as pool:
        for future in [
            pool.submit(wait_until, f"{visitor.name} is known", lambda v=visitor: look(v))
            for visitor in visitors
        ]:
            future.result()


def test_a_stall_and_a_restart_log_nobody_out(
    visitors: list[Visitor], redis_on_disk: RedisServer
) -> None:
    everybody_is_known_everywhere(visitors)

    redis_on_disk.stop()
    stalled_until = time.monotonic() + 0.6
    with ThreadPoolExecutor(len(visitors)) as pool:
        while time.monotonic() < stalled_until:
            list(pool.map(Visitor.look, visitors))
    redis_on_disk.cont()
    everybody_is_known_everywhere(visitors)

    redis_on_disk.kill()
    for _round in range(3):
        with ThreadPoolExecutor(len(visitors)) as pool:
            list(pool.map(Visitor.look, visitors))
    redis_on_disk.start()
    everybody_is_known_everywhere(visitors)
