"""What every view of this API has in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import DataError, transaction
from django.http.response import HttpResponseBase
from django.utils.cache import patch_cache_control
from django.utils.decorators import method_decorator
from rest_framework.exceptions import AuthenticationFailed, NotAcceptable
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.permissions import SAFE_METHODS, IsAuthenticated
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from agent_sessions.api.errors import problem_response
from agent_sessions.api.parsers import BoundedJSONParser, refuse_unreadable_body
from agent_sessions.api.renderers import AsciiJSONRenderer, ReadOnlyBrowsableRenderer
from agent_sessions.api.throttling import ReadThrottle, WriteThrottle


class Negotiation(DefaultContentNegotiation):
    """Chooses the format; one that is not offered is 406 also where `?format=` asks for it."""

    def filter_renderers(self, renderers: Any, format: str) -> Any:  # noqa: A002
        """Return the renderers of the format. Raises NotAcceptable."""
        found = [renderer for renderer in renderers if renderer.format == format]
        if not found:
            raise NotAcceptable(available_renderers=renderers)
        return found


class ApiView(APIView):
    """A view with our own formats, errors and rates, and the host's authentication.

    It stands outside ATOMIC_REQUESTS: each repository operation is a transaction, and an append
    must not hold its session's lock until the answer has been written.
    """

    permission_classes = [IsAuthenticated]
    parser_classes: list[type[BaseParser]] = [BoundedJSONParser]
    renderer_classes: list[type[BaseRenderer]] = [AsciiJSONRenderer, ReadOnlyBrowsableRenderer]
    content_negotiation_class = Negotiation
    # Whoever shares resources between origins has a middleware that answers OPTIONS.
    http_method_names = [name for name in APIView.http_method_names if name != "options"]

    @method_decorator(transaction.non_atomic_requests)
    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer the request."""
        return super().dispatch(request, *args, **kwargs)

    def get_exception_handler(self) -> Callable[..., Any]:
        """Return the handler that writes problem documents."""
        return problem_response

    def get_throttles(self) -> list[BaseThrottle]:
        """Return the rate that applies to the method."""
        reads = self.request.method in SAFE_METHODS
        return [ReadThrottle() if reads else WriteThrottle()]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Check the caller, and that the body can be read."""
        super().initial(request, *args, **kwargs)
        if request.method in ("POST", "PUT", "PATCH"):
            refuse_unreadable_body(request.headers)

    def perform_authentication(self, request: Request) -> None:
        """Authenticate. Credentials no database can hold, such as a NUL, are wrong ones."""
        try:
            request.user  # noqa: B018  (authenticates)
        except (ValueError, DataError):
            raise AuthenticationFailed from None

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Add the headers: answers are one user's, and must not stay in shared caches."""
        response = super().finalize_response(request, response, *args, **kwargs)
        if not response.has_header("Cache-Control"):
            patch_cache_control(response, private=True, no_store=True)
        return response
