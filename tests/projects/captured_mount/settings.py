"""The API is behind captured arguments and in a namespace of the host's."""

from tests.projects.base import *  # noqa: F403

ROOT_URLCONF = "tests.projects.captured_mount.urls"
TOUR_API = "/acme/api/v7/agents/"
