"""The example project's addresses, and views that only authenticate and answer."""

import json
import os

from django.urls import include, path
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

BODIES = json.loads(os.environ.get("BENCH_BODIES", "{}"))


class Empty(APIView):
    """A view that does no work: its answer is prepared before the request."""

    permission_classes = [IsAuthenticated]

    def get(self, request: Request, name: str) -> Response:
        return Response(BODIES[name])

    def post(self, request: Request, name: str) -> Response:
        return Response(BODIES[name], status=201)


urlpatterns = [
    path("empty/<str:name>/", Empty.as_view()),
    path("", include("example_project.urls")),
]
