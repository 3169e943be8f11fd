"""The app configuration: registers system checks and receivers of signals."""

from __future__ import annotations

from django.apps import AppConfig
from django.conf import settings
from django.db.models.signals import post_migrate, pre_delete
from django.utils.translation import gettext_lazy as _


class AgentSessionsConfig(AppConfig):
    """Agent sessions."""

    name = "agent_sessions"
    verbose_name = _("Agent sessions")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks, and the receivers of migrations and of new messages."""
        from agent_sessions import checks, notifications  # noqa: F401
        from agent_sessions.models import Session
        from agent_sessions.postgresql import functions
        from agent_sessions.repository import connections  # noqa: F401
        from agent_sessions.repository.erasure import audit_before_delete
        from agent_sessions.repository.locking import lock_before_delete

        pre_delete.connect(lock_before_delete, sender=Session)
        pre_delete.connect(audit_before_delete, sender=settings.AUTH_USER_MODEL)
        post_migrate.connect(functions.create_missing, sender=self)
