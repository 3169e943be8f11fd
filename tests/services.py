"""Real services for tests: found, started, or loudly missed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NoReturn

import pytest


def missing(service: str, how: str) -> NoReturn:
    """Skip the test because *service* is not there; fail it where services are required.

    REQUIRE_SERVICES=1 (set by continuous integration) turns each such skip into a failure.
    """
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(f"{service} is required here (REQUIRE_SERVICES=1) and missing: {how}")
    pytest.skip(f"NO {service}: {how}")


#: Below those that systems give to outgoing connections, which would take them meanwhile.
_PORTS = range(15_000, 32_000)
_choice = random.SystemRandom()
_given: set[int] = set()


def free_port() -> int:
    """Return a local port on which nothing listens, another one each time."""
    while True:
        port = _choice.choice(_PORTS)
        with socket.socket() as probe:
            if port not in _given and probe.connect_ex(("127.0.0.1", port)):
                _given.add(port)
                return port


class RedisServer:
    """A redis-server process of the test's own, on a free local port."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._options = options
        self._directory = Path(tempfile.mkdtemp(prefix="redis-test-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    def start(self) -> None:
        """Start the (empty) server and wait until it answers."""
        deadline = time.monotonic() + 10
        self._spawn()
        while not self._answers():
            assert time.monotonic() < deadline, f"redis-server never answered: {self._log()}"
            if self.process.poll() is not None:
                # A port chosen a moment ago may be taken by now, by a connection that ends soon.
                self._spawn()
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL: the process dies with its data."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        """SIGSTOP: it accepts connections and never answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT: it goes on, with its data."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Kill it, where it lives, and start an empty one on the same port."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self.start()

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.cont()
            self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _spawn(self) -> None:
        self._process = subprocess.Popen(
            [
                "redis-server",
                *("--bind", "127.0.0.1", "--port", str(self.port)),
                *("--save", "", "--appendonly", "no", "--dir", str(self._directory)),
                *("--logfile", str(self._directory / "redis.log")),
                *self._options,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _answers(self) -> bool:
        """Whether this process, and no other on its port, answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                # Any reply will do: with requirepass it is an error.
                answered = bool(connection.recv(16))
        except OSError:
            return False
        # A server that found its port taken ends at once; whoever answered was the other one.
        return answered and self.process.poll() is None

    def _log(self) -> str:
        log = self._directory / "redis.log"
        return log.read_text(encoding="utf-8") if log.exists() else "it wrote no log"


class PgBouncer:
    """A pgbouncer process of the test's own, in transaction mode, in front of a PostgreSQL."""

    def __init__(self, host: str, port: str, user: str, password: str, pool_size: int = 2) -> None:
        self.port = free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="pgbouncer-test-"))
        secret = f" password={password}" if password else ""
        (self._directory / "pgbouncer.ini").write_text(
            "[databases]\n"
            f"* = host={host or '127.0.0.1'} port={port or 5432} user={user}{secret}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            "auth_type = any\npool_mode = transaction\n"
            f"default_pool_size = {pool_size}\nmax_client_conn = 100\n",
            encoding="utf-8",
        )
        command = ["pgbouncer", "-q", str(self._directory / "pgbouncer.ini")]
        if os.geteuid() == 0:
            # It refuses to run as root.
            command[1:1] = ["-u", "nobody"]
            self._directory.chmod(0o755)
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    self.close()
                    raise
            time.sleep(0.02)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)
        shutil.rmtree(self._directory, ignore_errors=True)
