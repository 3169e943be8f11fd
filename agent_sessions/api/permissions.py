"""Permissions and rates of the API, and the owner of the sessions of a request."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import DataError
from django.db import Error as DatabaseFailure
from django.utils.encoding import escape_uri_path
from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from agent_sessions.api.errors import InvalidParameter
from agent_sessions.conf import settings
from agent_sessions.models import Session

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, PermissionsMixin

logger = logging.getLogger("agent_sessions")
audit = logging.getLogger("agent_sessions.audit")

USER_PARAMETER = "user"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class RateThrottle(BaseThrottle):
    """Limits the requests of one user, or of one address without a user, to a rate.

    Requests are counted in windows of fixed length, by one increment in the project's cache. With
    cache_layer's backend the rates hold during an outage of Redis, for each process by itself.
    """

    scope: str
    rate_setting: str

    def allow_request(self, request: Request, view: APIView) -> bool:
        """Count the request; return whether the rate allows it."""
        rate = getattr(settings, self.rate_setting)
        return rate is None or self.count(self.key(request), rate) <= self.limit

    def wait(self) -> float:
        """Return the seconds until the next window."""
        return self.duration - time.time() % self.duration

    def key(self, request: Request) -> str:
        """Return the key of the counted user or address."""
        user = request.user
        # A project may have None for nobody: UNAUTHENTICATED_USER.
        known = getattr(user, "is_authenticated", False)
        return f"user {user.pk}" if known else self.get_ident(request)

    def count(self, key: str, rate: str, amount: int = 1) -> int:
        """Add ``amount`` to the requests of ``key`` in this window and return their number."""
        limit, _slash, period = rate.partition("/")
        self.limit = int(limit)
        self.duration = _SECONDS[period[0]]
        digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        window = int(time.time() // self.duration)
        name = f"agent_sessions:rate:{self.scope}:{digest}:{window}"
        if not amount:
            return int(cache.get(name, 0))
        # The first request of a window adds the counter; two may try that at once.
        for _attempt in range(2):
            try:
                return int(cache.incr(name, amount))
            except ValueError:
                if cache.add(name, amount, self.duration):
                    break
        return amount


class ReadThrottle(RateThrottle):
    """Limits requests that change nothing to AGENT_SESSIONS_READ_RATE."""

    scope, rate_setting = "read", "READ_RATE"


class WriteThrottle(RateThrottle):
    """Limits requests that change something to AGENT_SESSIONS_WRITE_RATE."""

    scope, rate_setting = "write", "WRITE_RATE"


class FailedLoginThrottle(RateThrottle):
    """Limits the wrong credentials that one address may send to AGENT_SESSIONS_LOGIN_RATE."""

    scope, rate_setting = "login", "LOGIN_RATE"

    def allow_request(self, request: Request, view: APIView) -> bool:
        """Return whether fewer failed logins than allowed were counted."""
        rate = settings.LOGIN_RATE
        return rate is None or self.count(self.get_ident(request), rate, 0) < self.limit

    def failed(self, request: Request) -> None:
        """Count a failed login."""
        if settings.LOGIN_RATE is not None:
            self.count(self.get_ident(request), settings.LOGIN_RATE)


def host_permissions() -> list[BasePermission]:
    """Return the project's permissions for all its views, or those it names for this API.

    They apply beside the API's own. See AGENT_SESSIONS_PERMISSION_CLASSES.
    """
    named = settings.PERMISSION_CLASSES
    classes: Sequence[Any] = (
        api_settings.DEFAULT_PERMISSION_CLASSES if named is None else _imported(named)
    )
    return [permission() for permission in classes]


def host_throttles() -> list[BaseThrottle]:
    """Return the rates of all views of the project, or those it names for this API.

    They apply beside the API's own. See AGENT_SESSIONS_THROTTLE_CLASSES.
    """
    named = settings.THROTTLE_CLASSES
    classes: Sequence[Any] = (
        api_settings.DEFAULT_THROTTLE_CLASSES if named is None else _imported(named)
    )
    return [throttle() for throttle in classes]


def _imported(names: Sequence[str]) -> list[type[Any]]:
    return [import_string(name) for name in names]


class Reader(NamedTuple):
    """The reader, the owner of the sessions, and the permission that staff need."""

    user_id: Any
    owner_id: Any
    permission: str
    tenant: str = ""


def tenant_of_request(request: Request) -> str:
    """Return the tenant in which ``request`` works: see AGENT_SESSIONS_API_TENANT.

    Exceptions of the project's function are raised: PermissionDenied is a 403.

    Raises:
        ImproperlyConfigured: The function has returned something else than text.
        InvalidParameter: It has returned a text that no session can have as its tenant.
    """
    if settings.API_TENANT is None:
        return ""
    tenant: object = import_string(settings.API_TENANT)(request)
    if not isinstance(tenant, str):
        raise ImproperlyConfigured(
            f"AGENT_SESSIONS_API_TENANT: {settings.API_TENANT} has returned {tenant!r:.100}, "
            "which is no text. Return the empty text for the sessions without a tenant."
        )
    try:
        Session._meta.get_field("tenant").clean(tenant, None)
    except ValidationError as error:
        raise InvalidParameter({"tenant": error.messages}) from None
    return tenant


def key_of_caller(request: Request) -> Any:
    """Return the primary key of the caller; a user of a stateless token has it as text.

    Raises:
        PermissionDenied: The caller's key is that of no user of the database.
    """
    key = get_user_model()._meta.pk
    try:
        return key.to_python(getattr(request.user, "pk", None))
    except ValidationError:
        raise PermissionDenied from None


def decides_by_object(permission: Any) -> bool:
    """Return whether the permission may refuse one object."""
    decide = getattr(type(permission), "has_object_permission", None)
    return decide is not BasePermission.has_object_permission


def owner_of_request(request: Request, permission: str) -> Any:
    """Return the primary key of the user whose sessions ``request`` may read or change.

    It is the caller's or, with `?user=<key>`, that key. Naming another user takes staff with the
    model permission ``permission``, and writes a line to the audit log.

    Raises:
        PermissionDenied: The caller may not name another user, whether or not that user exists.
        InvalidParameter: There is no such user.
    """
    own = key_of_caller(request)
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


def _is_still_permitted(user: PermissionsMixin | AnonymousUser, permission: str) -> bool:
    try:
        return _is_permitted_staff(user, permission)
    except DatabaseFailure:
        raise
    except Exception:
        # An authentication backend of the project failed, which counts as a refusal.
        logger.exception("The permission %s of user %s cannot be checked.", permission, user.pk)
        return False


def _is_permitted_staff(user: PermissionsMixin | AnonymousUser, permission: str) -> bool:
    return bool(getattr(user, "is_staff", False) and user.has_perm(permission))
