"""Health and cache metrics, for operators."""

from __future__ import annotations

from typing import Any

from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser
from django.db import Error as DatabaseFailure
from django.db import connections, router
from rest_framework import status
from rest_framework.permissions import AllowAny, IsAdminUser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from agent_sessions.api.base import ApiView
from agent_sessions.api.permissions import ReadThrottle
from agent_sessions.message_format import JsonObject
from agent_sessions.models import Session
from cache_layer import get_redis_manager


class CacheMetricsView(ApiView):
    """Shows staff the counters of the cache by namespace, and its state."""

    permission_classes = [IsAdminUser]

    def get(self, request: Request, **kwargs: object) -> Response:
        """Get the counters of the cache.

        For staff. Of the process that answers.
        """
        return Response(_cache_metrics())


class HealthView(ApiView):
    """Tells load balancers whether the service can answer, and staff more.

    A cache that answers from memory does not make the service unavailable.
    """

    permission_classes = [AllowAny]

    def get(self, request: Request, **kwargs: object) -> Response:
        """Get whether the service can answer.

        503 while the database does not answer. Details for staff.
        """
        database = _database_answers()
        body: JsonObject = {"status": "ok" if database else "unavailable"}
        if getattr(request.user, "is_staff", False):
            body["database"] = "ok" if database else "unavailable"
            body["cache"] = _cache_metrics()["backend"]
        return Response(
            body,
            status=status.HTTP_200_OK if database else status.HTTP_503_SERVICE_UNAVAILABLE,
        )

    def get_permissions(self) -> list[Any]:
        """Return the view's own permissions: a load balancer has no login."""
        return [*APIView.get_permissions(self)]

    def get_throttles(self) -> list[BaseThrottle]:
        """Return the API's rate of an address; those of the project are for its users."""
        return [ReadThrottle()]

    def perform_authentication(self, request: Request) -> None:
        """Authenticate; without the database the caller is anonymous."""
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


def _cache_metrics() -> JsonObject:
    manager = async_to_sync(get_redis_manager)()
    metrics: JsonObject = manager.get_metrics()
    return metrics
