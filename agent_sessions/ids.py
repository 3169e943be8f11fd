"""Keys of users, and time-ordered ids. Migrations import ``uuid7`` from this module."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from datetime import datetime
from typing import NamedTuple, TypeAlias

from django.db import models

#: A primary key of the project's user model.
UserKey: TypeAlias = int | str | uuid.UUID


class Owner(NamedTuple):
    """The user and the tenant whose sessions an operation may touch."""

    #: The key of the user; None: anybody's sessions.
    user: UserKey | None
    #: The tenant; None: sessions of every tenant.
    tenant: str | None


def key_of(row: models.Model | UserKey) -> UserKey:
    """Return the primary key of a row, given the row or the key.

    Raises:
        ValueError: The row is not saved; its key None would match any row.
    """
    if not isinstance(row, models.Model):
        return row
    if row.pk is None:
        raise ValueError(f"The {row._meta.verbose_name} is not saved yet.")
    key: UserKey = row.pk
    return key


def uuid7() -> uuid.UUID:
    """Return a version 7 UUID (RFC 9562): sorting by id is sorting by time of creation.

    The 48 leading bits are milliseconds since the epoch, the next 12 the fraction of the
    millisecond (about a quarter of a microsecond), the other 62 are random.
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    return _version_7(milliseconds, nanoseconds, os.urandom(8))


def derived_uuid7(moment: datetime, name: str) -> uuid.UUID:
    """Return the version 7 UUID of an aware moment and a name: the same for the same two.

    A hash of the name stands in place of the random bits.
    """
    microseconds = max(0, round(moment.timestamp() * 1_000_000))
    milliseconds, rest = divmod(microseconds, 1_000)
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return _version_7(milliseconds, rest * 1_000, digest)


def _version_7(milliseconds: int, nanoseconds: int, tail: bytes) -> uuid.UUID:
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80
    value |= 0x7 << 76
    value |= (nanoseconds * 4096 // 1_000_000) << 64
    value |= 0b10 << 62
    value |= int.from_bytes(tail, "big") >> 2
    return uuid.UUID(int=value)
