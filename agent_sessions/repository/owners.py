"""Users as values of statements that the ORM does not write."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from agent_sessions.models import Session

_USER: Any = Session._meta.get_field("user")


@cache
def key_field() -> Any:
    """Return the field of the user's key. Only when it is asked for is every model there."""
    return _USER.target_field


def column_value(owner: Any, connection: BaseDatabaseWrapper) -> Any:
    """Return the user's key as the column has it; None if the column cannot hold it.

    Then there is no such user. The database would refuse the number, and end the transaction.
    """
    value = _USER.get_prep_value(owner)
    ranges: Any = connection.ops.integer_field_ranges
    low, high = ranges.get(key_field().get_internal_type(), (None, None))
    return value if high is None or low <= value <= high else None
