"""A forked child judges Redis for itself, whatever its parent thinks of it."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import redis

from tests.processes import ROOT
from tests.services import RedisServer

# The parent never looks again: whatever the child finds out it finds out by itself.
CHILD = """
    import faulthandler, os, signal, sys, time
    import django
    from django.conf import settings
    settings.configure(
        INSTALLED_APPS=["cache_layer"], SECRET_KEY="only-for-tests",
        CACHES={"default": {
            "BACKEND": "cache_layer.backends.ResilientCache",
            "LOCATION": sys.argv[1], "KEY_PREFIX": "fork",
        }},
        CACHE_LAYER_PROBE_INTERVAL=float(sys.argv[4]),
        CACHE_LAYER_OPERATION_TIMEOUT=float(sys.argv[5]),
        CACHE_LAYER_CONNECT_TIMEOUT=float(sys.argv[5]),
        LOGGING_CONFIG=None,
    )
    django.setup()
    from asgiref.sync import async_to_sync
    from django.core.cache import cache

    server, when = int(sys.argv[2]), sys.argv[3]
    cache.set("stored", "by the parent")
    os.kill(server, signal.SIGSTOP)
    cache.set("lost", "only in the parent's memory")
    assert cache.get("lost") == "only in the parent's memory"
    if when == "well when forked":
        os.kill(server, signal.SIGCONT)
        time.sleep(0.2)
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(50, exit=True)
        status = 1
        try:
            if when == "well when forked":
                assert cache.get("stored") == "by the parent"
                cache.set("by the child", 1)
                assert async_to_sync(cache.aget)("by the child") == 1
            else:
                cache.delete("stored")
                cache.set("k", "memory")
                assert cache.get("k") == "memory"
                assert cache.get("lost") is None
                os.kill(server, signal.SIGCONT)
                deadline = time.monotonic() + 40
                while cache.get("k") is not None:
                    assert time.monotonic() < deadline, "the child never came back to Redis"
                    time.sleep(0.05)
                assert cache.get("stored") is None
                cache.set("by the child", 1)
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.kill(server, signal.SIGCONT)
    os._exit(code)
"""


def run(server: RedisServer, when: str, interval: float, timeout: float) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(CHILD)),
            *(server.url, str(server.pid), when, str(interval), str(timeout)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_child_uses_a_redis_that_its_parent_has_given_up(redis_server: RedisServer) -> None:
    run(redis_server, "well when forked", interval=3600, timeout=1.0)
    with redis.Redis.from_url(redis_server.url, socket_timeout=10) as client:
        assert client.exists("fork:1:by the child") == 1


@pytest.mark.slow
def test_a_child_gives_a_hung_redis_up_and_comes_back_by_itself(
    redis_server: RedisServer,
) -> None:
    run(redis_server, "hung when forked", interval=0.1, timeout=0.25)
    with redis.Redis.from_url(redis_server.url, socket_timeout=10) as client:
        assert client.exists("fork:1:by the child") == 1
        assert client.exists("fork:1:stored") == 0
