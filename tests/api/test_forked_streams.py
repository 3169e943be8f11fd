"""A server that forks its workers after it was loaded: each counts the streams of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

PARENT = """
import faulthandler, os, threading
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
import django; django.setup()
from django.http import StreamingHttpResponse
from agent_sessions.api.streams import counted

opened = counted("events", 1, 1, StreamingHttpResponse([]))
holding, release = threading.Event(), threading.Event()

class Slow(dict):
    "Keeps the thread that asks for a place inside of the lock."

    def __hash__(self):
        if threading.current_thread() is not threading.main_thread():
            holding.set()
            release.wait()
        return 1

threading.Thread(
    target=counted, args=("events", Slow(), 1, StreamingHttpResponse([])), daemon=True
).start()
assert holding.wait(20)
child = os.fork()
if child == 0:
    faulthandler.dump_traceback_later(20, exit=True)
    status = 1
    try:
        counted("events", 1, 1, StreamingHttpResponse([])).close()
        status = 0
    finally:
        os._exit(status)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
release.set()
os._exit(status)
"""


@pytest.mark.slow
def test_a_forked_worker_opens_streams_whatever_the_parent_was_doing() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PARENT],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
