"""The example project with tokens, and with empty views to compare the API with."""

from benchmarks.settings import *  # noqa: F403
from benchmarks.settings import DATABASES, INSTALLED_APPS
from example_project.settings import REST_FRAMEWORK, env

INSTALLED_APPS = [*INSTALLED_APPS, "rest_framework.authtoken"]
ROOT_URLCONF = "benchmarks.api_urls"
# Checking a password is slow on purpose, and would hide everything else.
REST_FRAMEWORK = {
    **REST_FRAMEWORK,
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.TokenAuthentication"],
}
# Connections stay open, as in production: per thread under WSGI, in a pool under ASGI.
DATABASES["default"]["CONN_MAX_AGE"] = 0 if env.bool("DATABASE_POOL", default=False) else 60
# What is measured is the API, not how it turns callers away.
AGENT_SESSIONS_READ_RATE = AGENT_SESSIONS_WRITE_RATE = None
