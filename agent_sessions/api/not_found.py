"""Addresses beside those of the API: a 404 like its others, and the slash that was forgotten."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponsePermanentRedirect
from django.urls import Resolver404, resolve
from django.utils.http import escape_leading_slashes
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt
from rest_framework.exceptions import NotFound

from agent_sessions.api.errors import PROBLEM_TYPE, problem_document


class _SameMethodRedirect(HttpResponsePermanentRedirect):
    # Behind 301, which Django's CommonMiddleware answers, clients turn a POST into a GET.
    status_code = 308


@csrf_exempt
def not_found(request: HttpRequest, path: str) -> HttpResponse:
    """Answer 404 as a problem document; or 308, where the address lacks only its last slash."""
    if not path.endswith("/") and _is_somewhere(f"{request.path_info}/"):
        return _SameMethodRedirect(
            escape_leading_slashes(request.get_full_path(force_append_slash=True))
        )
    problem = problem_document(NotFound(_("There is nothing at this address.")), None)
    return JsonResponse(problem, status=404, content_type=PROBLEM_TYPE)


def _is_somewhere(path: str) -> bool:
    try:
        return resolve(path).func is not not_found
    except Resolver404:
        return False
