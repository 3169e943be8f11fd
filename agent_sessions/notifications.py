"""Notifications of appends and changes to processes with event streams, over the cache's Redis.

A lost notification costs time only: a stream then waits for the next poll of the database. See
`agent_sessions.api.live`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from django.dispatch import receiver

from agent_sessions.models import Message
from agent_sessions.signals import message_added, message_updated, messages_deleted
from cache_layer import PubSub

_pubsub = PubSub("agent_sessions.messages")


def subscribe(handler: Callable[[UUID, int, str], object]) -> Callable[[], None]:
    """Call a handler in a separate thread for each append or change.

    Args:
        handler: Called with the id of the session, its last number and the alias of the
            database.

    Returns:
        A function that ends the subscription.
    """

    def receive(text: str) -> None:
        try:
            session_id, sequence, using = text.split(" ", 2)
            place = UUID(session_id), int(sequence)
        except ValueError:
            # Others may publish on this channel too.
            return
        handler(*place, using)

    return _pubsub.subscribe(receive)


@receiver(message_added, dispatch_uid="agent_sessions.notifications")
def _on_append(session_id: UUID, messages: Sequence[Message], using: str, **kwargs: object) -> None:
    _pubsub.publish(f"{session_id} {messages[-1].sequence} {using}")


@receiver(message_updated, dispatch_uid="agent_sessions.notifications.updated")
def _on_update(session_id: UUID, message: Message, using: str, **kwargs: object) -> None:
    _pubsub.publish(f"{session_id} {message.revision} {using}")


@receiver(messages_deleted, dispatch_uid="agent_sessions.notifications.deleted")
def _on_deletion(session_id: UUID, number: int, using: str, **kwargs: object) -> None:
    _pubsub.publish(f"{session_id} {number} {using}")
