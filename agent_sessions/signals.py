"""Signals sent after the transaction committed.

They notify; nothing in the app depends on a receiver, and a receiver that raises is logged
and does not disturb the caller. Bulk operations send one signal for all rows of a batch.

Only operations of the repository send them. Changes with the ORM alone (``session.save()``,
``QuerySet.update()``) send Django's own signals. In a project that commits by hand, the signals
here are not sent.
"""

from __future__ import annotations

from django.dispatch import Signal

#: A session was created. Arguments: ``session``, ``using``.
session_created = Signal()

#: Messages were appended. Arguments: ``session_id``, ``messages`` (a list), ``using``.
message_added = Signal()

#: A message was changed. Arguments: ``session_id``, ``message``, ``using``.
message_updated = Signal()

#: Messages were deleted, but not their session. Arguments: ``session_id``, ``sequences`` (a list),
#: ``number`` (of the last deletion), ``using``.
messages_deleted = Signal()

#: The status was set. Arguments: ``session_ids`` (a list of UUID), ``status``, ``using``.
#:
#: A session that an append reopened is told by ``message_added`` alone.
session_status_changed = Signal()

#: Sessions were deleted with their messages. Arguments: ``session_ids``, ``using``.
sessions_deleted = Signal()
