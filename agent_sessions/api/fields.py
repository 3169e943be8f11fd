"""Serializer fields that accept what the schema says and never convert one type to another."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from agent_sessions.conf import settings
from agent_sessions.message_format import JsonObject
from agent_sessions.models import SessionStatus

if TYPE_CHECKING:
    AnySerializer = serializers.Serializer[Any]
    _ObjectField = serializers.Field[JsonObject, Any, JsonObject, Any]
else:
    AnySerializer = serializers.Serializer
    _ObjectField = serializers.Field

DEFAULT_PAGE_SIZE = 50
LARGEST_SEQUENCE = 2**31 - 1

# Dates that stay within the calendar in every time zone.
EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
LATEST = datetime(9999, 12, 30, tzinfo=UTC)


class TextField(serializers.CharField):
    """A string; numbers are refused, not converted."""

    def to_internal_value(self, data: object) -> str:
        """Return the string.

        Raises:
            ValidationError: The value has another type, or contains NUL or a lone surrogate.
        """
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class CanonicalUUIDField(serializers.UUIDField):
    """A UUID as a string in its canonical form."""

    def to_internal_value(self, data: UUID | str | int) -> UUID:
        """Return the UUID.

        Raises:
            ValidationError: The value has another form.
        """
        value = super().to_internal_value(data)
        if not isinstance(data, str) or str(value) != data.lower():
            self.fail("invalid", value=data)
        return value


class BoundedListField(serializers.ListField):
    """A list of limited length; the items of a longer one are not looked at."""

    def run_child_validation(self, data: Any) -> Any:
        """Return the items.

        Raises:
            ValidationError: An item is not valid, or there are too many; then there is one error.
        """
        self.run_validators(data)
        return super().run_child_validation(data)


class ObjectField(_ObjectField):
    """A JSON object; the repository checks what is in it."""

    default_error_messages = {"invalid": _("This is not an object.")}

    def to_internal_value(self, data: object) -> JsonObject:
        """Return the object.

        Raises:
            ValidationError: The value has another type.
        """
        if not isinstance(data, dict):
            self.fail("invalid")
        return data

    def to_representation(self, value: JsonObject) -> JsonObject:
        """Return the object."""
        return value


class StatusField(serializers.ChoiceField):
    """The status of a session."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=SessionStatus.choices, **kwargs)


class MomentField(serializers.DateTimeField):
    """A date and time, written in UTC whatever the time zone of the project."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(default_timezone=UTC, **kwargs)


class SequenceField(serializers.IntegerField):
    """The sequence of a message; 0 is before the first message."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=0, max_value=LARGEST_SEQUENCE, required=False, **kwargs)


class PageSizeField(serializers.IntegerField):
    """A number of items, from 1 to AGENT_SESSIONS_MAX_PAGE_SIZE."""

    default_error_messages = {"max_value": _("At most {max_value} are allowed.")}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=1, required=False, **kwargs)

    def to_internal_value(self, data: float | str) -> int:
        """Return the number.

        Raises:
            ValidationError: The number is not in the range.
        """
        value = super().to_internal_value(data)
        if value > settings.MAX_PAGE_SIZE:
            self.fail("max_value", max_value=settings.MAX_PAGE_SIZE)
        return value

    def get_default(self) -> int:
        """Return 50, or the maximum if that is smaller."""
        return min(DEFAULT_PAGE_SIZE, settings.MAX_PAGE_SIZE)
