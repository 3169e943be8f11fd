from __future__ import annotations

from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView

urlpatterns = [
    path("", include("tests.projects.urls")),
    path("api/schema/", SpectacularAPIView.as_view()),
]
