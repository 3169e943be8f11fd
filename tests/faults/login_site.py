"""A site with logins, for a server's workers: settings, views and application in one module.

The environment says where its Redis and its database are, and which session engine it has.
"""

from __future__ import annotations

import os

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path

ENGINES = {"cache_layer.sessions": "raise", "django.contrib.sessions.backends.cached_db": "memory"}

settings.configure(
    SECRET_KEY="only-for-tests-" + "0" * 50,
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "cache_layer",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["SITE_DATABASE"]}
    },
    CACHES={
        "default": {
            "BACKEND": "cache_layer.backends.ResilientCache",
            "LOCATION": os.environ["SITE_REDIS"],
            "OPTIONS": {"ON_OUTAGE": ENGINES[os.environ["SITE_ENGINE"]]},
        }
    },
    SESSION_ENGINE=os.environ["SITE_ENGINE"],
)
django.setup()

from django.contrib.auth import get_user_model, login  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402


def enter(request: HttpRequest, name: str) -> HttpResponse:
    user = get_user_model().objects.get_or_create(username=name)[0]
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return HttpResponse(name)


def who(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{request.user.get_username()} {os.getpid()}")


urlpatterns = [path("enter/<str:name>/", enter), path("who/", who)]
application = get_wsgi_application()
