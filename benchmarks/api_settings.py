"""The example project with tokens, and with empty views beside the API to measure it against."""

from benchmarks.settings import *  # noqa: F403
from benchmarks.settings import DATABASES, INSTALLED_APPS
from example_project.settings import REST_FRAMEWORK, env

INSTALLED_APPS = [*INSTALLED_APPS, "rest_framework.authtoken"]
ROOT_URLCONF = "benchmarks.api_urls"
# A password is checked slowly on purpose: that would be all there is to see.
REST_FRAMEWORK = {
    **REST_FRAMEWORK,
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.TokenAuthentication"],
}
# Connections are kept, as in production: by threads under WSGI, in a pool under ASGI.
DATABASES["default"]["CONN_MAX_AGE"] = 0 if env.bool("DATABASE_POOL", default=False) else 60
