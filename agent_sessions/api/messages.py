"""The messages of a session: reading a window of them, and appending."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import transaction
from django.utils.translation import gettext_lazy as _
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import remove_query_param, replace_query_param

from agent_sessions.api.base import OwnedSessionsView
from agent_sessions.api.headers import idempotency_key, refuse_message_keys
from agent_sessions.api.pagination import parse_query
from agent_sessions.api.serializers import (
    MAX_BATCH_MESSAGES,
    MessageWindowSerializer,
    represent_message,
)
from agent_sessions.models import Message
from agent_sessions.repository.locking import lock_one

#: Bytes of messages in an answer, which has at least one message.
LARGEST_ANSWER = 8 * 1024 * 1024


class MessageActions(OwnedSessionsView):
    """The actions on the messages of one session."""

    @action(detail=True)
    def messages(self, request: Request, **kwargs: object) -> Response:
        """List a window of messages.

        Without parameters the last messages. To follow a conversation, ask with `after` = the last
        sequence seen: nothing is missed or repeated.
        """
        window = parse_query(MessageWindowSerializer, request)
        after, before, limit = window.get("after"), window.get("before"), window["limit"]
        limit = self._fitting(after, before, limit)
        # One more than requested tells whether there are further messages.
        found = self.repository.get_messages(self.session_id, after, before, limit + 1)
        more = len(found) > limit
        found = found[:limit] if after is not None else found[-limit:]
        earlier = bool(found) and (found[0].sequence > 1 if after is not None else more)
        later = bool(found) and (more if after is not None else before is not None)
        url = request.build_absolute_uri()
        return Response(
            {
                "next": _link(url, "after", found[-1]) if later else None,
                "previous": _link(url, "before", found[0]) if earlier else None,
                "results": [represent_message(message) for message in found],
            }
        )

    def _append(self, messages: list[Any], key: str | None) -> list[Message]:
        repository, check = self.repository, self.expected_state()
        caller = self.caller_id
        # Keys of a header, and those of staff, are the caller's own: no key that the user puts
        # into a message meets them.
        own = key is None and caller == self.owner_id
        append = partial(repository.add_messages, author="" if own else str(caller))
        if check is None:
            return append(self.session_id, messages, key)
        with transaction.atomic(using=repository.using):
            # The session stays locked until the messages are added.
            lock_one(self.session_id, repository.owner, check, repository.using)
            return append(self.session_id, messages, key)

    def _fitting(self, after: int | None, before: int | None, limit: int) -> int:
        """Return how many messages of the window an answer of bounded size has room for."""
        messages = Message.objects.using(self.repository.using).for_session(self.session_id)
        if after is not None:
            messages = messages.after(after)
        if before is not None:
            messages = messages.before(before)
        ordered = messages.latest_first() if after is None else messages.in_order()
        total = 0
        for number, size in enumerate(ordered.sizes()[:limit]):
            total += size
            if total > LARGEST_ANSWER and number:
                return number
        return limit

    @messages.mapping.post
    def add_messages(self, request: Request, **kwargs: object) -> Response:
        """Append one or several messages.

        The body is a message or has several under `messages`: all are appended or none.
        """
        batch = _batch_of(request.data)
        messages: list[Any] = [request.data] if batch is None else batch
        key = idempotency_key(request)
        if key is not None:
            refuse_message_keys(messages)
        try:
            added = self._append(messages, key)
        except DjangoValidationError as error:
            errors = _by_message(error.message_dict)
            raise ValidationError(errors["0"] if batch is None else {"messages": errors}) from None
        results = [represent_message(message) for message in added]
        return Response(
            results[0] if batch is None else {"results": results},
            status=status.HTTP_201_CREATED,
        )


def _by_message(errors: dict[str, list[str]]) -> dict[str, dict[str, list[str]]]:
    """Return the errors, which are keyed by `0.role`, nested by message."""
    nested: dict[str, dict[str, list[str]]] = {}
    for place, problems in errors.items():
        number, _dot, field = place.partition(".")
        field = "non_field_errors" if field == "message" else field
        nested.setdefault(number, {})[field] = problems
    return nested


def _batch_of(body: object) -> list[Any] | None:
    if not isinstance(body, dict):
        raise ValidationError(
            {"non_field_errors": [_("Send a message, or messages under “messages”.")]}
        )
    if "messages" not in body or not body.keys().isdisjoint(("role", "type", "kind", "author")):
        return None
    batch = body["messages"]
    if not isinstance(batch, list) or not 1 <= len(batch) <= MAX_BATCH_MESSAGES:
        raise ValidationError(
            {"messages": [_("Send a list of 1 to %d messages.") % MAX_BATCH_MESSAGES]}
        )
    return batch


def _link(url: str, direction: str, message: Message) -> str:
    for parameter in ("after", "before"):
        url = remove_query_param(url, parameter)
    return replace_query_param(url, direction, message.sequence)
