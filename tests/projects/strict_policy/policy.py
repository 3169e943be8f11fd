from __future__ import annotations

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.response import Response


class ClearedOnly(BasePermission):
    """Lets in whom a list names; all others are refused everywhere."""

    cleared: set[str] = {"ada", "bob", "root"}

    def has_permission(self, request: Any, view: Any) -> bool:
        return request.user.get_username() in self.cleared


def handle(error: Exception, context: Any) -> Response:
    return Response({"host": str(error)}, status=418)
