"""Answers unknown addresses of the API: 404, or a redirection if only the last slash is missing."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponsePermanentRedirect
from django.urls import resolve
from django.utils.http import escape_leading_slashes
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt
from rest_framework.exceptions import NotFound

from agent_sessions.api.errors import PROBLEM_TYPE, problem_document


@csrf_exempt
def not_found(request: HttpRequest, path: str, **kwargs: object) -> HttpResponse:
    """Answer 404 as a problem document; 308 if ``path`` with a slash at its end exists."""
    # Where an address leads here, so does at least the one with a slash at its end.
    if not path.endswith("/") and resolve(f"{request.path_info}/").func is not not_found:
        address = escape_leading_slashes(request.get_full_path(force_append_slash=True))
        # After 301, which Django's CommonMiddleware sends, clients turn a POST into a GET.
        return HttpResponsePermanentRedirect(address, preserve_request=True)
    problem = problem_document(NotFound(_("There is nothing at this address.")))
    return JsonResponse(problem, status=404, content_type=PROBLEM_TYPE)
