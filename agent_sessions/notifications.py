"""Tells the processes that hold event streams, over the cache's Redis, of messages just appended.

Only the wait for their next look at the database depends on it: see `agent_sessions.api.live`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from django.dispatch import receiver

from agent_sessions.models import Message
from agent_sessions.signals import message_added
from cache_layer import PubSub

_pubsub = PubSub("agent_sessions.messages")


@receiver(message_added, dispatch_uid="agent_sessions.notifications")
def tell(session_id: UUID, messages: Sequence[Message], using: str, **kwargs: Any) -> None:
    """Tell other processes up to which sequence the session has messages."""
    _pubsub.tell(f"{session_id} {messages[-1].sequence} {using}")


def listen(hear: Callable[[UUID, int, str], Any]) -> Callable[[], None]:
    """Call *hear* with session, last sequence and database of what is appended anywhere.

    In a thread of its own; returns what ends that.
    """

    def understand(notice: str) -> None:
        try:
            session_id, sequence, using = notice.split(" ", 2)
            place = UUID(session_id), int(sequence)
        except ValueError:
            # Somebody else's: whoever may write to Redis may publish there.
            return
        hear(*place, using)

    return _pubsub.listen(understand)
