"""The viewset is registered on the host's own router, beside its own."""

from tests.projects.base import *  # noqa: F403

ROOT_URLCONF = "tests.projects.own_router.urls"
TOUR_API = "/rest/"
