"""The addresses of the API, to be included in the URLs of a project.

Their names are in the namespace `agent_sessions`. A project may instead register SessionViewSet
on a router of its own.
"""

from __future__ import annotations

from django.urls import include, path, re_path
from rest_framework.routers import SimpleRouter

from agent_sessions.api.monitoring import CacheMetricsView, HealthView
from agent_sessions.api.not_found import not_found
from agent_sessions.api.sessions import SessionViewSet

app_name = "agent_sessions"

router = SimpleRouter()
router.register("sessions", SessionViewSet, basename="session")

urlpatterns = [
    path("", include(router.urls)),
    path("cache/metrics/", CacheMetricsView.as_view(), name="cache-metrics"),
    path("health/", HealthView.as_view(), name="health"),
    re_path(r"^(?P<path>(?:sessions|cache|health)(?:/.*)?)$", not_found),
]
