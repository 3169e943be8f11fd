"""Which modules of ours a call visits: the fewer, the less there is to read to change it.

    python -m benchmarks.walks

Counts the modules whose functions run during one warm call: an awaited hit and an awaited miss of
a ``@cached`` function in Redis, and a POST of a message to the REST API, from request to response
in the request's own thread, without the rates, which are counted in the cache. Ends with status 1
when one visits more than its limit. Starts a redis-server of its own on a free local port, and
makes a database of its own on the server of ``DATABASE_URL``; both are gone at the end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable
from types import FrameType

from tests.services import RedisServer

PACKAGES = ("agent_sessions.", "cache_layer.")
LIMITS = {"awaited hit in Redis": 12, "awaited miss": 18, "POST of a message": 18}


class Visits:
    """Notes the modules of ours, in the order in which a call first came to them."""

    def __init__(self) -> None:
        self.modules: dict[str, None] = {}
        self.counting = False
        self.thread: int | None = None

    def install(self) -> None:
        """Watch this thread and every thread that starts from now on."""
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    def _note(self, frame: FrameType, event: str, argument: object) -> None:
        if not self.counting or self.thread not in (None, threading.get_ident()):
            return
        if event == "call":
            module = frame.f_globals.get("__name__", "")
            # The body of a module or class that is loaded now is not a call.
            if module.startswith(PACKAGES) and frame.f_code.co_flags & 0x2:
                self.modules.setdefault(module)

    def take(self) -> list[str]:
        """Stop counting; return what was noted and forget it."""
        self.counting = False
        modules, self.modules = list(self.modules), {}
        return modules


def configure(url: str) -> None:
    """Set Django up on a Redis server and a database of this process's own."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "example_project.settings"
    os.environ["REDIS_URL"] = url
    os.environ.setdefault("SECRET_KEY", "only-for-benchmarks-" + "0" * 50)
    os.environ.setdefault("DATABASE_URL", "postgres://postgres@127.0.0.1:5432/postgres")
    import django
    from django.conf import settings

    settings.DATABASES["default"]["TEST"] = {"NAME": f"walks_{os.getpid()}"}
    settings.DATABASES["default"]["CONN_MAX_AGE"] = None
    settings.DEBUG = False
    settings.ALLOWED_HOSTS = ["testserver"]
    for name in dir(settings):
        if name.startswith("AGENT_SESSIONS_"):
            # As in a project that leaves the settings alone.
            delattr(settings, name)
    django.setup()

    from agent_sessions.conf import settings as limits

    vars(limits)["WRITE_RATE"] = None


async def cache_walks(visits: Visits) -> dict[str, list[str]]:
    from cache_layer import cached

    @cached(ttl=300)
    async def look_up(number: int) -> dict[str, int]:
        return {"number": number}

    for number in range(20):
        await look_up(number)
        await look_up(number)
    # What earlier calls left for the loop to do is not part of the next one.
    await asyncio.sleep(0.1)
    visits.counting = True
    await look_up(5)
    hit = visits.take()
    await asyncio.sleep(0.1)
    visits.counting = True
    await look_up(100)
    return {"awaited hit in Redis": hit, "awaited miss": visits.take()}


def post_walk(visits: Visits) -> list[str]:
    from django.contrib.auth import get_user_model
    from django.core.handlers.base import BaseHandler
    from django.core.signals import request_started
    from django.urls import reverse
    from rest_framework.test import APIRequestFactory, force_authenticate

    from agent_sessions.models import Session
    from agent_sessions.repository import SyncSessionRepository

    user = get_user_model().objects.create(username="walker")
    session = SyncSessionRepository().create(Session(user=user, agent_id="bench"))
    path = f"{reverse('agent_sessions:session-list')}{session.pk}/messages/"
    message = {"role": "user", "content": "Which modules does this visit?"}
    handler = BaseHandler()
    handler.load_middleware()
    visits.thread = threading.get_ident()
    walks = []
    for _ in range(6):
        request = APIRequestFactory().post(path, message, format="json")
        force_authenticate(request, user)
        request_started.send(handler)
        visits.counting = True
        response = handler.get_response(request)
        walks.append(visits.take())
        assert response.status_code == 201, response.content
    # Now and then one looks whether anybody listens for notices.
    return min(walks, key=len)


def with_database(call: Callable[[], list[str]]) -> list[str]:
    from django.test.utils import setup_databases, teardown_databases

    made = setup_databases(verbosity=0, interactive=False)
    try:
        return call()
    finally:
        teardown_databases(made, verbosity=0)


def report(walks: dict[str, list[str]]) -> bool:
    """Print what was visited; return whether all is within the limits."""
    for name, modules in walks.items():
        limit = LIMITS[name]
        over = len(modules) - limit
        print(f"{name}: {len(modules)} modules, at most {limit}", end="")
        print(f": {over} too many" if over > 0 else "")
        print(*(f"    {module}" for module in modules), sep="\n")
    return all(len(modules) <= LIMITS[name] for name, modules in walks.items())


def main() -> None:
    """Measure and print."""
    visits = Visits()
    visits.install()
    server = RedisServer()
    server.start()
    try:
        configure(server.url)
        walks = asyncio.run(cache_walks(visits))
        walks["POST of a message"] = with_database(lambda: post_walk(visits))
    finally:
        # The loss of the server is no news.
        logging.disable()
        server.close()
    sys.exit(0 if report(walks) else 1)


if __name__ == "__main__":
    main()
