"""The application's role may use tables and create nothing; another one has migrated."""

import os

from tests.projects.base import *  # noqa: F403
from tests.projects.base import DATABASES, env

if os.environ.get("HOST_MIGRATES") != "1":
    DATABASES["default"] = env.db_url("LIMITED_DATABASE_URL")
TOUR_HOOKS = "tests.projects.limited_role.hooks"
