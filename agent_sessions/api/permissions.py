"""Whose sessions a request is about: the caller's own, or for staff those of `?user=`."""

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
    """Who reads whose sessions, and the permission that staff need for it."""

    user_id: Any
    owner_id: Any
    permission: str


def owner_of_request(request: Request, permission: str) -> Any:
    """Return the primary key of the user whose sessions *request* may read or change.

    It is the caller's or, with `?user=<key>`, that key. Naming another user takes staff with the
    model permission *permission*, and writes a line to the audit log.

    Raises:
        PermissionDenied: the caller may not name another user, whether or not that user exists.
        InvalidParameter: there is no such user.
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
    """Raise PermissionDenied unless the caller is staff with the model permission."""
    if not _is_permitted_staff(request.user, permission):
        raise PermissionDenied


def permitted_readers(readers: Iterable[Reader]) -> set[Reader]:
    """Return the readers who are active and, if they read another's sessions, permitted staff."""
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
        # An authentication backend of the project failed: its answer is taken for a no.
        logger.exception("The permission %s of user %s cannot be checked.", permission, user.pk)
        return False


def _is_permitted_staff(user: Any, permission: str) -> bool:
    return bool(getattr(user, "is_staff", False) and user.has_perm(permission))
