"""The API is behind captured arguments, of which one is the tenant, in a namespace of its own."""

from tests.projects.base import *  # noqa: F403

ROOT_URLCONF = "tests.projects.captured_mount.urls"
AGENT_SESSIONS_API_TENANT = "tests.projects.captured_mount.hooks.tenant_of"
TOUR_API = "/acme/api/v7/agents/"
TOUR_TENANT = "acme"
TOUR_HOOKS = "tests.projects.captured_mount.hooks"
