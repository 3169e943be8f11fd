"""What most projects look like; each host below changes what is its own."""

from __future__ import annotations

import os
from typing import Any

import environ

env = environ.Env()

SECRET_KEY = "only-for-tests-" + "0" * 50
DEBUG = False
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "django_filters",
    "cache_layer",
    "agent_sessions",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
ROOT_URLCONF = "tests.projects.urls"
DATABASES: dict[str, dict[str, Any]] = {"default": env.db_url("DATABASE_URL")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
CACHES: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "cache_layer.backends.ResilientCache", "KEY_PREFIX": "host"}
}
if os.environ.get("REDIS_URL"):
    CACHES["default"]["LOCATION"] = os.environ["REDIS_URL"]
STATIC_URL = "static/"
USE_TZ = True
LOGGING_CONFIG = None
SILENCED_SYSTEM_CHECKS = ["cache_layer.I101"]
REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"],
}

#: Where the tour finds things.
TOUR_API = "/api/v1/"
TOUR_ADMIN = "/admin/"
#: The tenant in which the API works.
TOUR_TENANT = ""
#: A module with functions of the host's: see tests.projects.tour.
TOUR_HOOKS = ""
