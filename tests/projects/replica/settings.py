"""Reads go to a replica: a second database that follows by itself, a moment late."""

from tests.projects.base import *  # noqa: F403
from tests.projects.base import DATABASES, env

DATABASES["replica"] = env.db_url("REPLICA_DATABASE_URL")
DATABASE_ROUTERS = ["tests.projects.replica.router.Router"]
TOUR_HOOKS = "tests.projects.replica.hooks"
