"""Celery forks its workers, and ends tasks that take too long by an exception in between."""

import os

from tests.projects.base import *  # noqa: F403

CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL", "memory://")
CELERY_RESULT_BACKEND = os.environ.get("REDIS_URL", "cache+memory://")
CELERY_TASK_DEFAULT_QUEUE = os.environ.get("CELERY_QUEUE", "prefork")
# A task that does not notice its soft limit is killed.
CELERY_TASK_TIME_LIMIT = 60
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
TOUR_HOOKS = "tests.projects.prefork.hooks"
