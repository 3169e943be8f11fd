"""The example project's settings, made quick and quiet for tests.

DATABASE_URL, REDIS_URL and CELERY_BROKER_URL choose the services as they do in the project;
TEST_USER_MODEL=uuid swaps in a user model with a UUID key.
"""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("SECRET_KEY", "only-for-tests-" + "0" * 50)
os.environ.setdefault("DEBUG", "0")
os.environ.setdefault("DJANGO_READ_DOT_ENV", "0")

from example_project.settings import *  # noqa: F403
from example_project.settings import DATABASES, INSTALLED_APPS

if os.environ.get("TEST_USER_MODEL") == "uuid":
    INSTALLED_APPS = [*INSTALLED_APPS, "tests.users"]
    AUTH_USER_MODEL = "users.UUIDUser"

# Whatever REDIS_URL says, the ambient cache of a test is private memory: tests that are about
# Redis ask for it with the redis_url or redis_server fixture.
CACHES = {
    "default": {
        "BACKEND": "cache_layer.backends.ResilientCache",
        "KEY_PREFIX": "agent_service",
        "TIMEOUT": 300,
    }
}
# A busy machine is not an outage. Tests of outages ask for the default_timeouts fixture.
CACHE_LAYER_OPERATION_TIMEOUT = CACHE_LAYER_CONNECT_TIMEOUT = 10.0
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # A file, because an in-memory database cannot be shared by threads and processes.
    folder = tempfile.mkdtemp(prefix="agent-sessions-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    DATABASES["default"]["TEST"] = {"NAME": f"{folder}/test.sqlite3"}

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
SECURE_SSL_REDIRECT = False
LOGGING_CONFIG = None
