"""The admin in the clothes of django-unfold."""

from tests.projects.base import *  # noqa: F403
from tests.projects.base import INSTALLED_APPS

INSTALLED_APPS = ["unfold", *INSTALLED_APPS]
