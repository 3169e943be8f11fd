"""Keys of users, and time-ordered ids. Migrations name ``uuid7``: it stays here."""

from __future__ import annotations

import os
import time
import uuid
from typing import NamedTuple, TypeAlias

UserKey: TypeAlias = int | str | uuid.UUID
"""A primary key of the project's user model."""


class Owner(NamedTuple):
    """Whose sessions an operation may touch."""

    user: UserKey | None
    """The key of the user; None: anybody's sessions."""
    tenant: str | None
    """The tenant; None: sessions of every tenant."""


ANYBODY = Owner(None, None)
"""Every session may be touched."""


def uuid7() -> uuid.UUID:
    """Return a version 7 UUID (RFC 9562): sorting by id is sorting by time of creation.

    The 48 leading bits are milliseconds since the epoch, the next 12 the fraction of the
    millisecond (about a quarter of a microsecond), the other 62 are random.
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80
    value |= 0x7 << 76
    value |= (nanoseconds * 4096 // 1_000_000) << 64
    value |= 0b10 << 62
    value |= int.from_bytes(os.urandom(8), "big") >> 2
    return uuid.UUID(int=value)
