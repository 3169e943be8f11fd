from __future__ import annotations

from django.contrib import admin
from django.http import HttpResponse
from django.urls import include, path

api = (
    [path("agents/", include("agent_sessions.api.urls"))],
    "api",
)
# Names that a host may well have already.
own = [
    path("health/", lambda request: HttpResponse("fine"), name="health"),
    path("logins/", lambda request: HttpResponse("fine"), name="session-list"),
]

urlpatterns = [
    path("admin/", admin.site.urls),
    path("<slug:tenant>/api/<str:version>/", include(api, namespace="v7")),
    *own,
]
