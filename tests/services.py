"""Real services for tests: found, started, or loudly missed."""

from __future__ import annotations

import os
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
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
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the (empty) server and wait until it answers."""
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
        deadline = time.monotonic() + 10
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    connection.sendall(b"PING\r\n")
                    # Any reply will do: with requirepass it is an error.
                    if connection.recv(16):
                        return
            except OSError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL: the process dies with its data."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

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
