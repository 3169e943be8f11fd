"""The example project for servers of its own: passwords checked quickly, the poll as asked for."""

from __future__ import annotations

import os

from example_project.settings import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
LOGGING_CONFIG = None
AGENT_SESSIONS_MAX_MESSAGES = None
AGENT_SESSIONS_EVENTS_POLL_SECONDS = float(os.environ.get("POLL_SECONDS", "0.25"))
