"""Other people's ways to mount the API: each part of an address is one of them."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from rest_framework.routers import DefaultRouter, SimpleRouter

from agent_sessions.api.sessions import SessionViewSet


def own_page(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ours")


router = DefaultRouter()
router.register("conversations", SessionViewSet, basename="conversation")
bare = SimpleRouter(trailing_slash=False)
bare.register("talks", SessionViewSet, basename="talk")

urlpatterns = [
    path("health/", own_page, name="health"),
    path("sessions/", own_page, name="session-list"),
    path("api/<str:version>/<slug:tenant>/", include("agent_sessions.api.urls")),
    path("named/", include("agent_sessions.api.urls", namespace="named")),
    path("routed/", include(router.urls)),
    path("bare/", include(bare.urls)),
]
