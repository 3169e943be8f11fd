"""Users have UUID keys, and sessions have a field of the host's."""

from tests.projects.base import *  # noqa: F403
from tests.projects.base import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.users", "tests.projects.uuid_subclass.teams"]
AUTH_USER_MODEL = "users.UUIDUser"
TOUR_HOOKS = "tests.projects.uuid_subclass.hooks"
