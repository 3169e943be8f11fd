"""What tests of the store share."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from agent_sessions.models import Session


def say(content: Any = "hello", **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def age(session: Session, **ago: float) -> None:
    """Let the session have expired, or changed last, some time ago."""
    moment = timezone.now() - timedelta(**ago)
    Session.objects.filter(pk=session.pk).update(expires_at=moment, updated_at=moment)
