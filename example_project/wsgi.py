"""The WSGI application, which `manage.py runserver` uses too."""

from __future__ import annotations

import os

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")

# A large site lets its web server or CDN answer for the static files; here one process does all.
application = StaticFilesHandler(get_wsgi_application())
