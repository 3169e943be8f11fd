"""Child processes that never outlive the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

_PATIENCE_SECONDS = 10


class Children:
    """Python modules run as processes; leaving the `with` block ends them all."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**os.environ, **environment}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str) -> None:
        """Run `python -m` with the command, in a process group of its own."""
        # In its own group it does not see the terminal's Ctrl-C: it is told to end, once.
        self._processes[name] = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "example_project.demo.exit_with_parent", *command],
            stdin=subprocess.PIPE,
            env=self._environment,
            start_new_session=True,
        )

    def ended(self) -> list[str]:
        """Return the processes that have ended, with their exit codes."""
        return [
            f"{name} (status {process.returncode})"
            for name, process in self._processes.items()
            if process.poll() is not None
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes.values():
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for process in self._processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)
                process.wait()
            if process.stdin is not None:
                process.stdin.close()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        os.killpg(process.pid, number)
