"""Validators of the fields of sessions and messages. Migrations import them from this module."""

from __future__ import annotations

import json
from datetime import datetime

from django.conf import settings as django_settings
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from agent_sessions import message_format
from agent_sessions.conf import settings
from agent_sessions.moments import is_expressible


def validate_text(value: str) -> None:
    """Refuse text that a database cannot hold."""
    if not message_format.is_storable(value):
        raise ValidationError(_("Null characters and lone surrogates are not allowed."))


def validate_role(value: str) -> None:
    """Refuse a role that neither ``MessageRole`` nor AGENT_SESSIONS_EXTRA_ROLES has."""
    if problem := message_format.role_problem(value):
        raise ValidationError(problem)


def validate_moment(value: object) -> None:
    """Refuse a date and time that a database cannot hold, or with a wrong or missing time zone."""
    if value is not None and not isinstance(value, datetime):
        raise ValidationError(_("This is not a date and time."))
    if isinstance(value, datetime):
        if django_settings.USE_TZ and timezone.is_naive(value):
            raise ValidationError(_("The time zone is missing."))
        if not django_settings.USE_TZ and timezone.is_aware(value):
            raise ValidationError(_("Times have no zone here: USE_TZ is off."))
        if not is_expressible(value):
            raise ValidationError(_("This is outside the years 1 to 9999."))


def validate_object(value: object) -> None:
    """Refuse a value that is not a JSON object, or that some databases cannot hold."""
    if not isinstance(value, dict):
        raise ValidationError(_("This is not an object."))
    facts = message_format.inspect_json(value)
    if facts.problem:
        raise ValidationError(facts.problem)
    if not facts.clean:
        raise ValidationError(_("Null characters and lone surrogates are not allowed."))
    limit = settings.MAX_OBJECT_BYTES
    # The estimate is never too low, and costs less than writing the JSON.
    if facts.least > limit or (
        facts.size > limit and len(json.dumps(value, ensure_ascii=False).encode()) > limit
    ):
        raise ValidationError(_("This has more than %d bytes of JSON.") % limit)
