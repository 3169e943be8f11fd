"""The app configuration: registers the system checks and what follows a migration."""

from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class AgentSessionsConfig(AppConfig):
    """Agent sessions."""

    name = "agent_sessions"
    verbose_name = _("Agent sessions")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks and what follows a migration."""
        from agent_sessions import append_function, checks  # noqa: F401

        post_migrate.connect(append_function.create_if_missing, sender=self)
