"""For those who run the service: is it well, and what does its cache do."""

from __future__ import annotations

from typing import Any

from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseFailure
from django.db import connections, router
from django.http import Http404
from rest_framework import status
from rest_framework.permissions import AllowAny, IsAdminUser
from rest_framework.request import Request
from rest_framework.response import Response

from agent_sessions.api.base import ApiView
from agent_sessions.models import Session
from cache_layer import get_redis_manager


class CacheMetricsView(ApiView):
    """Counters of the cache: hits, misses and more by namespace, and its state. For staff."""

    permission_classes = [IsAdminUser]

    def get(self, request: Request) -> Response:
        """Return the counters of the process that answers."""
        try:
            return Response(_cache_metrics())
        except ImproperlyConfigured:
            # The project's cache is not cache_layer's: there is nothing here.
            raise Http404 from None


class HealthView(ApiView):
    """Whether the service can answer: for load balancers, and with details for staff.

    A cache that answers from memory is degraded, not down: the service works on.
    """

    permission_classes = [AllowAny]

    def get(self, request: Request) -> Response:
        """Return 200, or 503 while the database does not answer."""
        database = _database_answers()
        body: dict[str, Any] = {"status": "ok" if database else "unavailable"}
        if getattr(request.user, "is_staff", False):
            body["database"] = "ok" if database else "unavailable"
            body["cache"] = _cache_state()
        return Response(
            body,
            status=status.HTTP_200_OK if database else status.HTTP_503_SERVICE_UNAVAILABLE,
        )

    def get_throttles(self) -> list[Any]:
        """Return no rate: load balancers ask often."""
        return []

    def perform_authentication(self, request: Request) -> None:
        """Authenticate, where the database lets us; this address must answer without it."""
        try:
            super().perform_authentication(request)
        except DatabaseFailure:
            request.user = AnonymousUser()


def _database_answers() -> bool:
    try:
        with connections[router.db_for_read(Session)].cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseFailure:
        return False
    return True


def _cache_metrics() -> dict[str, Any]:
    manager = async_to_sync(get_redis_manager)()
    metrics: dict[str, Any] = manager.get_metrics()
    return metrics


def _cache_state() -> Any:
    try:
        return _cache_metrics().get("backend")
    except ImproperlyConfigured:
        return None
