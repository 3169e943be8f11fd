"""Two plain models and the code that a project would write around them in ten minutes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.sessions.database import Dsn
from benchmarks.sessions.peers import Peer, text
from benchmarks.sessions.peers.ours import user_key


class Pair(Peer):
    name = "plain ORM pair"

    def __init__(self, dsn: Dsn) -> None:
        from benchmarks.naive import models

        self._session, self._message = models.NaiveSession, models.NaiveMessage

    def converse(self, length: int) -> str:
        session = self._session.objects.create(user_id=user_key("talker"), title="long")
        self._message.objects.bulk_create(
            [
                self._message(session=session, role="user", content=text(number))
                for number in range(length)
            ],
            batch_size=5000,
        )
        return str(session.pk)

    def open(self, name: str) -> Any:
        return self._session.objects.get(pk=name)

    def append(self, conversation: Any, content: str) -> Any:
        from django.db import transaction

        with transaction.atomic():
            self._message.objects.create(session=conversation, role="user", content=content)
            conversation.message_count = conversation.messages.count()
            conversation.save()

    def append_many(self, conversation: Any, contents: Sequence[str]) -> Any:
        from django.db import transaction

        with transaction.atomic():
            for content in contents:
                self.append(conversation, content)

    def last(self, conversation: Any, count: int) -> Any:
        return list(conversation.messages.order_by("-created_at")[:count])[::-1]

    def read(self, conversation: Any) -> Any:
        return [message.content for message in conversation.messages.all()]

    def populate(self, user: str, count: int) -> None:
        self._session.objects.bulk_create(
            [self._session(user_id=user_key(user), title=f"{n}") for n in range(count)],
            batch_size=5000,
        )

    def newest(self, user: str, count: int) -> Any:
        found = self._session.objects.filter(user_id=user_key(user))
        return list(found.order_by("-updated_at")[:count])

    def page(self, user: str, number: int, size: int) -> Any:
        from django.core.paginator import Paginator

        found = self._session.objects.filter(user_id=user_key(user)).order_by("-updated_at")
        return list(Paginator(found, size).page(number))

    def stats(self, user: str) -> Any:
        from django.db.models import Count

        return self._session.objects.filter(user_id=user_key(user)).aggregate(
            sessions=Count("pk", distinct=True), messages=Count("messages")
        )
