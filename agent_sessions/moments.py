"""Converts dates and times between UTC and the form of models, local if USE_TZ is off."""

from __future__ import annotations

from datetime import UTC, datetime

from django.conf import settings
from django.utils import timezone


def in_utc(moment: datetime) -> datetime:
    """Return the moment in UTC; without a zone it is in TIME_ZONE.

    Raises:
        OverflowError: UTC cannot express it.
    """
    if timezone.is_naive(moment):
        moment = timezone.make_aware(moment, timezone.get_default_timezone())
    return moment.astimezone(UTC)


def is_expressible(moment: datetime) -> bool:
    """Return whether UTC and TIME_ZONE can both express the moment, which pages show in it."""
    try:
        in_utc(moment).astimezone(timezone.get_default_timezone())
    except OverflowError:
        return False
    return True


def as_stored(moment: datetime) -> datetime:
    """Return an aware moment in the form of the project's models."""
    if settings.USE_TZ:
        return moment
    return timezone.make_naive(moment, timezone.get_default_timezone())
