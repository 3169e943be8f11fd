"""Serializer fields that take what the schema says and turn nothing into something else."""

from __future__ import annotations

import uuid
from datetime import UTC
from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from agent_sessions.models import SessionStatus


class TextField(serializers.CharField):
    """A string without NUL and lone surrogates; numbers are not turned into one."""

    def to_internal_value(self, data: Any) -> str:
        """Return the string."""
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class CanonicalUUIDField(serializers.UUIDField):
    """A UUID in its canonical form, as a string."""

    def to_internal_value(self, data: Any) -> uuid.UUID:
        """Return the UUID."""
        value = parse_uuid(data)
        if value is None:
            self.fail("invalid", value=data)
        return value


class ObjectField(serializers.Field[Any, Any, Any, Any]):
    """A JSON object; what may stand in it is the repository's to say."""

    default_error_messages = {"invalid": _("This is not an object.")}

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Return the object."""
        if not isinstance(data, dict):
            self.fail("invalid")
        return data

    def to_representation(self, value: Any) -> Any:
        """Return the object."""
        return value


class StatusField(serializers.ChoiceField):
    """The status of a session."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=SessionStatus.choices, **kwargs)


class MomentField(serializers.DateTimeField):
    """A moment, written in UTC whatever the time zone of the project."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(default_timezone=UTC, **kwargs)


def parse_uuid(text: Any) -> uuid.UUID | None:
    """Return the UUID that *text* is the canonical form of; None if it is of none."""
    if not isinstance(text, str):
        return None
    try:
        value = uuid.UUID(text)
    except ValueError:
        return None
    return value if str(value) == text.lower() else None
