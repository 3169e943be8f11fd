"""The app configuration: registers the system checks, and who tells of new messages."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class AgentSessionsConfig(AppConfig):
    """Agent sessions."""

    name = "agent_sessions"
    verbose_name = _("Agent sessions")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks, and that other processes are told of new messages."""
        from agent_sessions import checks, news  # noqa: F401
