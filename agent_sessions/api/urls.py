"""The addresses of the API: include them where it is to be mounted."""

from __future__ import annotations

from django.urls import include, path, re_path
from rest_framework.routers import SimpleRouter

from agent_sessions.api.events import EventsView
from agent_sessions.api.messages import MessagesView
from agent_sessions.api.monitoring import CacheMetricsView, HealthView
from agent_sessions.api.not_found import not_found
from agent_sessions.api.sessions import SessionViewSet

router = SimpleRouter()
router.register("sessions", SessionViewSet, basename="session")

urlpatterns = [
    path("", include(router.urls)),
    path("sessions/<str:id>/messages/", MessagesView.as_view(), name="session-messages"),
    path("sessions/<str:id>/events/", EventsView.as_view(), name="session-events"),
    path("cache/metrics/", CacheMetricsView.as_view(), name="cache-metrics"),
    path("health/", HealthView.as_view(), name="health"),
    re_path(r"^(?P<path>(?:sessions|cache|health)(?:/.*)?)$", not_found),
]
