"""Whose sessions a request is about: the caller's own, or, said explicitly, another user's."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import DataError
from django.db import Error as DatabaseFailure
from django.utils.encoding import escape_uri_path
from django.utils.translation import gettext_lazy as _
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request

from agent_sessions.api.errors import InvalidParameter

logger = logging.getLogger("agent_sessions")
audit = logging.getLogger("agent_sessions.audit")

USER_PARAMETER = "user"


class Reader(NamedTuple):
    """Who reads whose sessions, and what staff need for that."""

    user_id: Any
    owner_id: Any
    permission: str


def owner_of_request(request: Request, permission: str) -> Any:
    """Return the primary key of the user whose sessions *request* may read or change.

    That is the caller. With `?user=<key>` it is the user named there, provided that the caller is
    staff and holds the model permission *permission*; every such request is logged.
    Raises PermissionDenied, whether or not that user exists, and InvalidParameter.
    """
    own = request.user.pk
    named = request.query_params.get(USER_PARAMETER)
    if named is None or named == str(own):
        return own
    require_staff(request, permission)
    user_model = get_user_model()
    try:
        key = user_model._meta.pk.to_python(named)
        known = user_model._default_manager.filter(pk=key).exists()
    except (ValidationError, ValueError, OverflowError, DataError):
        known = False
    if not known:
        raise InvalidParameter({USER_PARAMETER: [_("There is no such user.")]})
    # Encoded: a line break in an address must not begin a line of the log.
    path = escape_uri_path(request.path)
    audit.info("staff user %s acts for user %s: %s %s", own, key, request.method, path)
    return key


def require_staff(request: Request, permission: str) -> None:
    """Raise PermissionDenied unless the caller is staff and holds *permission*."""
    if not _is_permitted_staff(request.user, permission):
        raise PermissionDenied


def who_still_may(readers: Iterable[Reader]) -> set[Reader]:
    """Return those of the readers who may still read: active, and for others permitted staff."""
    readers = set(readers)
    users = get_user_model()._default_manager.in_bulk({reader.user_id for reader in readers})
    return {
        reader
        for reader in readers
        if (user := users.get(reader.user_id)) is not None
        and user.is_active
        and (reader.user_id == reader.owner_id or _is_still_permitted(user, reader.permission))
    }


def _is_still_permitted(user: Any, permission: str) -> bool:
    try:
        return _is_permitted_staff(user, permission)
    except DatabaseFailure:
        raise
    except Exception:
        # Of a backend of the project's: nobody reads on because it does not answer.
        logger.exception("Whether user %s still has %s cannot be told.", user.pk, permission)
        return False


def _is_permitted_staff(user: Any, permission: str) -> bool:
    return bool(getattr(user, "is_staff", False) and user.has_perm(permission))
