"""Local times without a zone, in one that has summer time."""

from tests.projects.base import *  # noqa: F403

USE_TZ = False
TIME_ZONE = "Europe/Berlin"
TOUR_HOOKS = "tests.projects.naive_times.hooks"
