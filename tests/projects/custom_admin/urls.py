from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("backstage/", admin.site.urls),
    path("api/v1/", include("agent_sessions.api.urls")),
]
