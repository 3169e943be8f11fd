"""Everybody commits for themselves."""

from tests.projects.base import *  # noqa: F403
from tests.projects.base import DATABASES

DATABASES["default"]["AUTOCOMMIT"] = False
TOUR_HOOKS = "tests.projects.manual_commit.hooks"
