"""The history of a session that was written elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from agent_sessions.models import Message

# The column holds 2³¹ - 1: the rest is room for the messages to come.
_HIGHEST = 2_000_000_000


@dataclass(frozen=True, slots=True)
class History:
    """The times and numbers of a session that was written elsewhere, for create().

    The session then keeps its own ``last_message_at`` and ``last_activity_at`` as well.
    """

    #: When each message was written.
    message_times: Sequence[datetime]
    #: The number of each message, ascending; None: 1, 2, 3, …
    message_numbers: Sequence[int] | None = None
    #: The highest number that a message ever had, also one that was deleted.
    last_sequence: int = 0
    #: When the session was changed last; None: now.
    updated_at: datetime | None = None

    def date(self, rows: Sequence[Message]) -> None:
        """Give the messages their times and numbers.

        Raises:
            ValidationError: They do not fit the messages; keyed by field.
        """
        numbers = range(1, len(rows) + 1) if self.message_numbers is None else self.message_numbers
        for name, values in (("message_times", self.message_times), ("message_numbers", numbers)):
            if len(values) != len(rows):
                raise ValidationError({name: _("There must be one for each message.")})
        if any(one >= other for one, other in pairwise(numbers)):
            raise ValidationError({"message_numbers": _("The numbers must ascend.")})
        if numbers and not 0 <= numbers[0] <= numbers[-1] <= _HIGHEST:
            raise ValidationError({"message_numbers": _("The numbers must be 0 to %d.") % _HIGHEST})
        if not 0 <= self.last_sequence <= _HIGHEST:
            raise ValidationError({"last_sequence": _("It must be 0 to %d.") % _HIGHEST})
        for row, moment, number in zip(rows, self.message_times, numbers, strict=True):
            row.created_at = moment
            row.sequence = number
