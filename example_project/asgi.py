"""The ASGI application: `uvicorn example_project.asgi:application`."""

from __future__ import annotations

import os

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")

# A large site lets its web server or CDN answer for the static files; here one process does all.
application = ASGIStaticFilesHandler(get_asgi_application())
