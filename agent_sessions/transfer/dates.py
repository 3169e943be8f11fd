"""Dates and times in files: ISO 8601 with a time zone, or seconds since 1970."""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _

from agent_sessions.moments import in_utc, is_expressible

# Largest difference between the clocks of two machines.
_SKEW = timedelta(minutes=5)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def written(moment: datetime) -> str:
    """Return the text of a moment in exports: in UTC, exact to the microsecond."""
    return in_utc(moment).isoformat(timespec="microseconds").replace("+00:00", "Z")


def microseconds(moment: datetime) -> int:
    """Return the microseconds since 1970, which take less memory than a datetime."""
    return (in_utc(moment) - _EPOCH) // timedelta(microseconds=1)


def from_microseconds(count: int) -> datetime:
    """Return the moment at a number of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=count)


def read_past(value: object, place: str) -> datetime | None:
    """Return the moment in UTC; None for null.

    Raises:
        ValidationError: The value is no date and time, has no time zone, or is in the future; keyed
            by ``place``.
    """
    moment = read_moment(value, place)
    if moment is not None and moment > timezone.now().astimezone(UTC) + _SKEW:
        _refuse(place, _("%s is in the future.") % written(moment))
    return moment


def read_moment(value: object, place: str) -> datetime | None:
    """Return the moment in UTC; None for null.

    Raises:
        ValidationError: The value is no date and time, or has no time zone; keyed by ``place``.
    """
    if value is None:
        return None
    moment: datetime | None = None
    if isinstance(value, str):
        with suppress(ValueError):
            moment = parse_datetime(value)
    if moment is None:
        example = "2021-03-04T05:06:07Z"
        _refuse(
            place,
            _("%(value).60r is not a date and time such as %(example)s.")
            % {"value": value, "example": example},
        )
    if timezone.is_naive(moment):
        _refuse(place, _("%.60r has no time zone.") % value)
    if not is_expressible(moment):
        _refuse(place, _("This is outside the years 1 to 9999."))
    return in_utc(moment)


def read_past_seconds(value: object, place: str) -> datetime | None:
    """Return the moment of a number of seconds since 1970; None for null.

    Raises:
        ValidationError: It is no number or in the future; keyed by ``place``.
    """
    if value is None:
        return None
    try:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            _refuse(place, _("%.60r is not a number of seconds since 1970.") % (value,))
        moment = _EPOCH + timedelta(microseconds=round(value * 1_000_000))
    except OverflowError:
        _refuse(place, _("This is outside the years 1 to 9999."))
    return read_past(written(moment), place)


def _refuse(place: str, reason: str) -> NoReturn:
    raise ValidationError({place: reason})
