"""What each host project does with the apps: run as `python -m tests.projects.tour`.

The hooks of a host may have ``prepare()`` in place of migrating, ``around(name)`` (a context in
which each step runs), ``after()`` with looks of its own, and ``make_session(user, title)``.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import json
import sys
import traceback
from typing import Any

import django
from django.db import connections


class Tour:
    """The steps, in order; each uses what the ones before it left."""

    STEPS = (
        *("create", "append", "retry", "list", "page", "read", "change", "search", "stream"),
        *("follow", "isolate", "awaited", "export", "admin_pages", "cleanup", "erase"),
    )

    def __init__(self) -> None:
        from django.conf import settings
        from django.contrib.auth import get_user_model
        from django.test import Client

        self.api = settings.TOUR_API
        self.admin = settings.TOUR_ADMIN
        self.tenant = settings.TOUR_TENANT
        self.hooks: Any = importlib.import_module(settings.TOUR_HOOKS or "json")
        self.users = get_user_model()._default_manager
        self.client, self.stranger, self.staff = Client(), Client(), Client()
        self.sessions: list[str] = []

    def run(self) -> None:
        """Do everything; raise what goes wrong."""
        self._prepare()
        for name in self.STEPS:
            with self._around(name):
                getattr(self, name)()
            print(f"ok {name}", flush=True)
        if hasattr(self.hooks, "after"):
            self.hooks.after(self)

    def _around(self, name: str) -> Any:
        return getattr(self.hooks, "around", lambda name: contextlib.nullcontext())(name)

    def _prepare(self) -> None:
        from django.core.management import call_command

        if hasattr(self.hooks, "prepare"):
            self.hooks.prepare()
        else:
            call_command("migrate", verbosity=0)
        with self._around("prepare"):
            call_command("check", fail_level="ERROR", stdout=io.StringIO())
            self.owner = self.users.create_user("ada", "ada@example.org", "secret-1")
            other = self.users.create_user("bob", "bob@example.org", "secret-2")
            root = self.users.create_superuser("root", "root@example.org", "secret-3")
            self.client.force_login(self.owner, "django.contrib.auth.backends.ModelBackend")
            self.stranger.force_login(other, "django.contrib.auth.backends.ModelBackend")
            self.staff.force_login(root, "django.contrib.auth.backends.ModelBackend")

    def ask(
        self,
        path: str,
        data: Any = None,
        *,
        method: str = "",
        client: Any = None,
        status: int = 0,
        **headers: str,
    ) -> Any:
        """Ask the API; return the answer after a look at its status."""
        method = method or ("post" if data is not None else "get")
        arguments = {} if data is None else {"data": json.dumps(data)}
        response = (
            getattr(client or self.client, method)(
                f"{self.api}{path}", content_type="application/json", headers=headers, **arguments
            )
            if method != "get"
            else (client or self.client).get(f"{self.api}{path}", headers=headers)
        )
        expected = status or {"post": 201, "delete": 204}.get(method, 200)
        if response.status_code != expected:
            body = getattr(response, "content", b"")[:1500].decode(errors="replace")
            raise AssertionError(f"{method} {path}: {response.status_code}, not {expected}: {body}")
        return response

    def create(self) -> None:
        for title in ("Debug the parser", "Plan a journey", "Write a poem"):
            made = self.ask("sessions/", {"agent_id": "helper", "title": title}).json()
            assert made["title"] == title
            self.sessions.append(made["id"])

    def append(self) -> None:
        for number in range(3):
            message = {"role": "user", "content": f"question {number} about Zürich"}
            made = self.ask(f"sessions/{self.sessions[0]}/messages/", message).json()
            assert made["sequence"] == number + 1
        batch = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        self.ask(f"sessions/{self.sessions[1]}/messages/", {"messages": batch})

    def retry(self) -> None:
        message = {"role": "user", "content": "only once"}
        for _ in range(2):
            made = self.ask(
                f"sessions/{self.sessions[0]}/messages/", message, **{"Idempotency-Key": "k"}
            ).json()
            assert made["sequence"] == 4

    def list(self) -> None:
        found = self.ask("sessions/").json()["results"]
        assert {each["id"] for each in found} == set(self.sessions)
        assert self.ask("sessions/stats/").json()["total_sessions"] == 3

    def page(self) -> None:
        found = self.ask("sessions/?page_size=2").json()
        assert len(found["results"]) == 2
        address = found["next"]
        assert address.partition("?")[0].endswith(f"{self.api}sessions/"), address
        more = self.client.get(address)
        assert more.status_code == 200, more.content
        assert len(more.json()["results"]) == 1

    def read(self) -> None:
        found = self.ask(f"sessions/{self.sessions[0]}/messages/?limit=2").json()["results"]
        assert [each["sequence"] for each in found] == [3, 4]
        session = self.ask(f"sessions/{self.sessions[0]}/").json()
        assert session["message_count"] == 4

    def change(self) -> None:
        first = self.sessions[0]
        self.ask(f"sessions/{first}/", {"title": "Debug the new parser"}, method="patch")
        for context in ({"a": 1}, {"b": 2}):
            self.ask(f"sessions/{first}/context/", context, method="patch")
        assert self.ask(f"sessions/{first}/").json()["context"] == {"a": 1, "b": 2}
        body = {"session_ids": [self.sessions[2]], "status": "paused"}
        self.ask("sessions/bulk-status/", body, status=200)

    def search(self) -> None:
        found = self.ask("sessions/search/?q=zürich").json()
        found = found.get("results", found) if isinstance(found, dict) else found
        assert [each["id"] for each in found] == [self.sessions[0]]

    def stream(self) -> None:
        response = self.ask(f"sessions/{self.sessions[0]}/events/", Accept="text/event-stream")
        text = b"".join(response.streaming_content).decode()
        assert text.count("event: message") == 4, text

    def follow(self) -> None:
        """Read a stream that stays open, as an asynchronous server sends it."""
        from asgiref.sync import sync_to_async
        from django.test import AsyncClient

        messages = f"sessions/{self.sessions[0]}/messages/"

        def append() -> None:
            with self._around("append"):
                self.ask(messages, {"role": "user", "content": "while the stream is open"})
            connections.close_all()

        async def read() -> None:
            client = AsyncClient()
            client.cookies = self.client.cookies
            address = f"{self.api}sessions/{self.sessions[0]}/events/"
            response = await client.get(address, headers={"Accept": "text/event-stream"})
            assert response.status_code == 200, response
            pieces = aiter(response.streaming_content)
            text = b""
            async with asyncio.timeout(30):
                while text.count(b"event: message") < 4:
                    text += await anext(pieces)
                await asyncio.get_running_loop().run_in_executor(None, append)
                while b"while the stream is open" not in text:
                    text += await anext(pieces)
            # The client goes; a server closes the response in the thread of the request.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await anext(pieces)
            await sync_to_async(response.close)()

        asyncio.run(read())

    def isolate(self) -> None:
        self.ask(f"sessions/{self.sessions[0]}/", client=self.stranger, status=404)
        assert self.ask("sessions/", client=self.stranger).json()["results"] == []

    def awaited(self) -> None:
        from asgiref.sync import async_to_sync

        from agent_sessions.repository import SessionRepository

        async def talk() -> int:
            mine = SessionRepository().for_user(self.owner, self.tenant)
            await mine.add_message_to_session(
                self.sessions[1], {"role": "user", "content": "awaited"}
            )
            loaded = await mine.get_session_with_messages(self.sessions[1])
            assert [each.content for each in loaded.messages] == ["a", "b", "awaited"]
            assert len(await mine.search_sessions("awaited")) == 1
            assert (await mine.get_paginated_user_sessions(1, 2)).total_items == 3
            return len(await mine.get_user_sessions(active_only=False))

        # Its database code runs in this thread, and so in the transaction of the host.
        assert async_to_sync(talk)() == 3

    def export(self) -> None:
        from django.core.management import call_command

        out = io.StringIO()
        call_command("export_conversations", user="ada", stdout=out)
        lines = [json.loads(line) for line in out.getvalue().splitlines()]
        assert len(lines) >= 3
        response = self.ask("sessions/export/")
        assert b"awaited" in b"".join(response.streaming_content)

    def admin_pages(self) -> None:
        from agent_sessions.models import Message

        key = Message.objects.filter(session_id=self.sessions[0]).values_list("pk", flat=True)[0]
        for page in (
            "",
            "agent_sessions/session/",
            "agent_sessions/session/?q=parser",
            "agent_sessions/session/?status__exact=paused",
            f"agent_sessions/session/{self.sessions[0]}/change/",
            f"agent_sessions/session/{self.sessions[0]}/delete/",
            f"agent_sessions/session/{self.sessions[0]}/history/",
            "agent_sessions/message/",
            f"agent_sessions/message/{key}/change/",
        ):
            response = self.staff.get(f"{self.admin}{page}")
            assert response.status_code == 200, f"{page}: {response.status_code}"

    def cleanup(self) -> None:
        from datetime import timedelta

        from django.core.management import call_command
        from django.utils import timezone

        from agent_sessions.models import Session

        past = timezone.now() - timedelta(hours=1)
        written = Session.objects.using("default")
        written.filter(pk=self.sessions[1]).update(expires_at=past)
        self.ask("sessions/cleanup/", {}, client=self.staff, status=200)
        call_command("cleanup_expired_sessions", stdout=io.StringIO())
        assert written.get(pk=self.sessions[1]).status == "completed"

    def erase(self) -> None:
        from django.core.management import call_command

        from agent_sessions.models import Message, Session

        self.ask(f"sessions/{self.sessions[2]}/", method="delete")
        call_command("delete_user_data", "ada", interactive=False, stdout=io.StringIO())
        assert not Session.objects.using("default").filter(user_id=self.owner.pk).exists()
        assert not Message.objects.using("default").exists()


def main() -> int:
    """Return 0 if the host is at home."""
    django.setup()
    try:
        Tour().run()
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
