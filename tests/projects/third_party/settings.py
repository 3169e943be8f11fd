"""Apps that keep what they know on the alias of the cache."""

from tests.projects.base import *  # noqa: F403
from tests.projects.base import INSTALLED_APPS, MIDDLEWARE

INSTALLED_APPS = [*INSTALLED_APPS, "axes", "waffle", "constance", "django_ratelimit"]
MIDDLEWARE = [*MIDDLEWARE, "waffle.middleware.WaffleMiddleware", "axes.middleware.AxesMiddleware"]
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AXES_HANDLER = "axes.handlers.cache.AxesCacheHandler"
AXES_FAILURE_LIMIT = 3
CONSTANCE_BACKEND = "constance.backends.database.DatabaseBackend"
CONSTANCE_DATABASE_CACHE_BACKEND = "default"
CONSTANCE_CONFIG = {"GREETING": ("hello", "what is said first")}
SILENCED_SYSTEM_CHECKS = ["cache_layer.I101", "django_ratelimit.E003", "django_ratelimit.W001"]
SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"
TOUR_HOOKS = "tests.projects.third_party.hooks"
