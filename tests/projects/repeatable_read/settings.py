"""The server's default isolation is repeatable read, whatever clients ask for."""

from tests.projects.base import *  # noqa: F403

TOUR_HOOKS = "tests.projects.contended"
