"""PubSub between processes, and what an outage does to them: nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from django.core.cache import cache

from cache_layer import PubSub
from cache_layer.backends import Channel
from tests.faults.proxy import Proxy
from tests.services import RedisServer

TELLER = """
import sys
from django.conf import settings
settings.configure(CACHES={"default": {
    "BACKEND": "cache_layer.backends.ResilientCache", "LOCATION": sys.argv[1], "KEY_PREFIX": "n"}})
from cache_layer import PubSub
from cache_layer.backends import Channel
notices = PubSub("test")
for line in sys.stdin:
    notices.publish(line.strip())
    print("told", flush=True)
"""


FORKED = """
import os, sys, time
from django.conf import settings
settings.configure(CACHES={"default": {
    "BACKEND": "cache_layer.backends.ResilientCache", "LOCATION": sys.argv[1], "KEY_PREFIX": "n"}})
from cache_layer import PubSub
notices = PubSub("test")
notices.publish("by the parent, whose thread publishes from now on")
child = os.fork()
if child == 0:
    for _ in range(100):
        notices.publish("by the child")
        time.sleep(0.05)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.fixture
def server(redis_server: RedisServer, settings: Any) -> RedisServer:
    settings.CACHES = {
        "default": {
            "BACKEND": "cache_layer.backends.ResilientCache",
            "LOCATION": redis_server.url,
            "KEY_PREFIX": "n",
        }
    }
    return redis_server


@pytest.fixture
def heard(server: RedisServer) -> Iterator[list[str]]:
    found: list[str] = []
    end = PubSub("test").subscribe(found.append)
    yield found
    end()


def until(happens: Callable[[], Any], again: Callable[[], Any] = lambda: None) -> None:
    deadline = time.monotonic() + 30
    while not happens():
        assert time.monotonic() < deadline
        again()
        time.sleep(0.05)


@pytest.mark.slow
def test_other_processes_are_heard_and_again_after_an_outage(
    server: RedisServer, heard: list[str]
) -> None:
    command = [sys.executable, "-c", TELLER, server.url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def tell(notice: str) -> None:
            process.stdin.write(f"{notice}\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            assert process.stdout.readline() == "told\n"  # type: ignore[union-attr]

        until(lambda: "before" in heard, lambda: tell("before"))
        server.kill()
        tell("into the void")
        server.restart()
        until(lambda: "after" in heard, lambda: tell("after"))
    assert "into the void" not in heard


@pytest.mark.slow
def test_a_forked_child_is_heard(server: RedisServer, heard: list[str]) -> None:
    quiet = ("-W", "ignore::DeprecationWarning")
    with subprocess.Popen([sys.executable, *quiet, "-c", FORKED, server.url]):
        until(lambda: "by the child" in heard)


def test_telling_a_hung_redis_waits_for_nothing(server: RedisServer, heard: list[str]) -> None:
    notices = PubSub("test")
    until(lambda: heard, lambda: notices.publish("x"))
    server.stop()
    tellers = [
        threading.Thread(target=lambda: [notices.publish(str(n)) for n in range(1000)])
        for _ in range(4)
    ]
    for teller in tellers:
        teller.start()
    for teller in tellers:
        # Far less than the timeout of one command to this Redis times the calls.
        teller.join(20)
        assert not teller.is_alive()
    server.cont()
    until(lambda: "again" in heard, lambda: notices.publish("again"))


def test_who_listens_notices_that_the_network_was_cut_without_a_word(
    server: RedisServer, settings: Any
) -> None:
    proxy = Proxy(server.port)
    proxy.start()
    settings.CACHES = {"default": {**settings.CACHES["default"], "LOCATION": proxy.url}}
    found: list[str] = []
    end = PubSub("test").subscribe(found.append)
    with redis.Redis.from_url(server.url, socket_timeout=5) as client:

        def tell(notice: str) -> None:
            client.publish("n:@cache_layer:channel:test", notice)

        until(lambda: "before" in found, lambda: tell("before"))
        listener = client.client_list("pubsub")[0]["id"]
        proxy.fault = "silent"
        until(lambda: listener not in {each["id"] for each in client.client_list("pubsub")})
        proxy.fault = "none"
        until(lambda: "after" in found, lambda: tell("after"))
    end()
    proxy.close()


def test_neither_a_failing_listener_nor_an_odd_notice_ends_it(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    found: list[str] = []

    def hear(notice: str) -> None:
        found.append(notice)
        if notice == "bad":
            raise ValueError(notice)

    end = PubSub("test").subscribe(hear)
    notices = PubSub("test")
    until(lambda: "bad" in found, lambda: notices.publish("bad"))
    notices.publish("\ud800")
    until(lambda: "good" in found, lambda: notices.publish("good"))
    end()
    assert "A subscriber failed." in caplog.text
    assert "Publishing failed." not in caplog.text


def test_names_and_prefixes_are_apart(server: RedisServer, heard: list[str]) -> None:
    notices = PubSub("test")
    until(lambda: "mine" in heard, lambda: notices.publish("mine"))
    PubSub("other").publish("of another name")
    with redis.Redis.from_url(server.url, socket_timeout=5) as client:
        client.publish("another:@cache_layer:channel:test", "of another project")
        client.publish("n:@cache_layer:channel:test", "last")
    until(lambda: "last" in heard)
    assert set(heard) == {"mine", "last"}


def test_a_user_who_may_use_no_channel_has_a_cache_without_notices(
    server: RedisServer, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with redis.Redis.from_url(server.url, socket_timeout=5) as client:
        client.execute_command("ACL SETUSER app on >pw ~* +@all resetchannels")
        settings.CACHES["default"]["LOCATION"] = server.url.replace("://", "://app:pw@")
        settings.CACHES = {**settings.CACHES}
        caplog.set_level("WARNING", "cache_layer")
        notices = PubSub("test")
        end = notices.subscribe(lambda notice: None)
        for number in range(20):
            notices.publish(str(number))
            cache.set("a", number)
            assert client.exists("n:1:a")
            assert cache.get("a") == number
            time.sleep(0.1)
        end()
    said = [message.partition(" (")[0] for message in caplog.messages]
    assert sorted(said) == ["Redis refuses PUBLISH", "Redis refuses SUBSCRIBE"]


@pytest.mark.parametrize(
    "backend",
    ["cache_layer.backends.ResilientCache", "django.core.cache.backends.locmem.LocMemCache"],
)
def test_without_redis_nothing_is_told_and_no_thread_runs(settings: Any, backend: str) -> None:
    settings.CACHES = {"default": {"BACKEND": backend}}
    threads = set(threading.enumerate())
    heard: list[str] = []
    notices = PubSub("test")
    end = notices.subscribe(heard.append)
    notices.publish("x")
    end()
    assert set(threading.enumerate()) <= threads
    assert heard == []


def test_texts_arrive_one_after_the_other_while_somebody_listens(
    server: RedisServer, heard: list[str]
) -> None:
    first = PubSub("test")
    until(lambda: heard, lambda: first.publish("x"))
    notices = PubSub("test")
    for number in range(3):
        notices.publish(f"once {number}")
        # Published once only: none is lost to the silence that follows what nobody received.
        until(lambda text=f"once {number}": text in heard)  # type: ignore[misc]


def test_texts_sent_together_all_arrive(server: RedisServer, heard: list[str]) -> None:
    channel = Channel(cache, "test")
    until(lambda: heard, lambda: channel.publish(["x"]))
    assert channel.publish(["one", "two", "three"]) == 3
    until(lambda: {"one", "two", "three"} <= set(heard))
