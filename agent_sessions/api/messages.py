"""The messages of a session: reading a window of them, and appending."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

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
from agent_sessions.api.headers import (
    etag_of,
    idempotency_key,
    is_not_modified,
    refuse_message_keys,
    require_match,
)
from agent_sessions.api.pagination import parse_query
from agent_sessions.api.permissions import require_staff
from agent_sessions.api.serializers import (
    MAX_BATCH_MESSAGES,
    ChangesQuerySerializer,
    MessageWindowSerializer,
    TailSerializer,
    represent_change,
    represent_message,
)
from agent_sessions.message_numbers import locking
from agent_sessions.models import Message, Session
from agent_sessions.querysets import MessageQuerySet
from agent_sessions.repository.locking import lock_one

#: Bytes of messages in an answer, which has at least one message.
LARGEST_ANSWER = 8 * 1024 * 1024


Result = TypeVar("Result")


def _fitting(ordered: MessageQuerySet[Message], limit: int, most_bytes: int) -> int:
    """Return how many of the messages have no more bytes than these, but at least one."""
    total = 0
    for number, size in enumerate(ordered.sizes()[:limit]):
        total += size
        if total > most_bytes and number:
            return number
    return limit


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
        return _fitting(ordered, limit, LARGEST_ANSWER)

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

    @messages.mapping.delete
    def clear_messages(self, request: Request, **kwargs: object) -> Response:
        """Delete all messages; the session stays.

        If-Match names the state of the session.
        """
        repository, session_id = self.repository, self.session_id
        deleted = self._checked(lambda: repository.clear_messages(session_id))
        return Response({"deleted": deleted})

    @action(detail=True, url_path=r"messages/(?P<sequence>[0-9]{1,10})")
    def message(self, request: Request, **kwargs: object) -> Response:
        """Get a message."""
        message = self._find_message()
        represented = represent_message(message)
        headers = {"ETag": etag_of(represented), "Cache-Control": "private, no-cache"}
        if is_not_modified(request, headers["ETag"]):
            return Response(status=304, headers=headers)
        return Response(represented, headers=headers)

    @message.mapping.put
    def replace_message(self, request: Request, **kwargs: object) -> Response:
        """Put a message in place of a stored one.

        It keeps its sequence and its time. If-Match names the state of the message. Repeating the
        request changes nothing.
        """
        repository, session_id, sequence = self.repository, self.session_id, self._sequence
        body: Any = request.data
        if not isinstance(body, dict):
            raise ValidationError({"non_field_errors": [_("Send a message.")]})
        try:
            changed = self._with_message(
                lambda: repository.update_message(session_id, sequence, body)
            )
        except DjangoValidationError as error:
            problems = {
                f"0.{place.removeprefix('message.')}": reasons
                for place, reasons in error.message_dict.items()
            }
            raise ValidationError(_by_message(problems)["0"]) from None
        represented = represent_message(changed)
        return Response(represented, headers={"ETag": etag_of(represented)})

    @message.mapping.delete
    def delete_message(self, request: Request, **kwargs: object) -> Response:
        """Delete a message.

        If-Match names the state of the message.
        """
        repository, session_id, sequence = self.repository, self.session_id, self._sequence
        self._with_message(lambda: repository.delete_message(session_id, sequence))
        return Response(status=status.HTTP_204_NO_CONTENT)

    @action(detail=True, methods=["post"], url_path="messages/pop")
    def pop_message(self, request: Request, **kwargs: object) -> Response:
        """Delete the last message and get it.

        The answer is empty (204) if there is none. A repeated request takes back one message more,
        unless If-Match names the state of the session.
        """
        if request.user.pk != self.owner_id:
            require_staff(request, "agent_sessions.view_message")
        repository, session_id = self.repository, self.session_id
        popped = self._checked(lambda: repository.pop_message(session_id))
        if popped is None:
            return Response(status=status.HTTP_204_NO_CONTENT)
        return Response(represent_message(popped))

    @action(detail=True, methods=["put"], url_path="messages/tail")
    def replace_tail(self, request: Request, **kwargs: object) -> Response:
        """Replace the messages after a number, all or nothing.

        With `expected_last` it answers 409 and changes nothing if another message has come.
        Without messages the session is cut off.
        """
        serializer = TailSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        tail = serializer.validated_data
        if request.user.pk != self.owner_id and any(
            "idempotency_key" in message for message in tail["messages"]
        ):
            # They would stand among the user's own.
            problem = _("Keys of messages are the user's own.")
            raise ValidationError({"messages": [problem]})
        repository, session_id = self.repository, self.session_id
        try:
            added = self._checked(
                lambda: repository.replace_tail(
                    session_id, tail["after"], tail["messages"], tail.get("expected_last")
                )
            )
        except DjangoValidationError as error:
            raise ValidationError({"messages": _by_message(error.message_dict)}) from None
        return Response({"results": [represent_message(message) for message in added]})

    @action(detail=True)
    def changes(self, request: Request, **kwargs: object) -> Response:
        """List what happened to the messages after a number.

        Each append, change and deletion once and in order, as the events have them. Ask again with
        `after` = the `last` of the answer.
        """
        query = parse_query(ChangesQuerySerializer, request)
        after = query.get("after", 0)
        limit = self._fitting_changes(after, query["limit"])
        found = self.repository.get_changes(self.session_id, after, limit)
        return Response(
            {
                "last": found[-1].number if found else after,
                "results": [represent_change(change) for change in found],
            }
        )

    @property
    def _sequence(self) -> int:
        return int(self.kwargs["sequence"])

    def _find_message(self) -> Message:
        """Return the message of the address.

        Raises:
            Message.DoesNotExist: There is none; a 404.
        """
        messages = Message.objects.using(self.repository.using).owned_by(self.repository.owner)
        return messages.for_session(self.session_id).get(sequence=self._sequence)

    def _checked(self, change: Callable[[], Result]) -> Result:
        """Do the change if the session has the state that If-Match names."""
        repository, check = self.repository, self.expected_state()
        if check is None:
            return change()
        with transaction.atomic(using=repository.using):
            # The session stays locked until the change is made.
            lock_one(self.session_id, repository.owner, check, repository.using)
            return change()

    def _with_message(self, change: Callable[[], Result]) -> Result:
        """Do the change if the message has the state that If-Match names."""
        if "If-Match" not in self.request.headers:
            return change()
        repository = self.repository
        with transaction.atomic(using=repository.using):
            sessions = Session.objects.using(repository.using).filter(pk=self.session_id)
            # Its own texts do not matter, nor whether they can be decrypted.
            locking(sessions.owned_by(repository.owner)).only("pk").get()
            require_match(self.request, etag_of(represent_message(self._find_message())))
            return change()

    def _fitting_changes(self, after: int, limit: int) -> int:
        """Return how many changes an answer of bounded size has room for."""
        messages = Message.objects.using(self.repository.using).for_session(self.session_id)
        changed = messages.filter(sequence__lte=after, revision__gt=after).order_by("revision")
        half = LARGEST_ANSWER // 2
        return min(
            _fitting(messages.after(after).in_order(), limit, half), _fitting(changed, limit, half)
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
