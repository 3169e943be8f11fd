"""An admin site of the host's own takes the place of Django's."""

from tests.projects.base import *  # noqa: F403
from tests.projects.base import INSTALLED_APPS

INSTALLED_APPS = [
    "tests.projects.custom_admin.site.BackstageConfig" if app == "django.contrib.admin" else app
    for app in INSTALLED_APPS
]
ROOT_URLCONF = "tests.projects.custom_admin.urls"
TOUR_ADMIN = "/backstage/"
