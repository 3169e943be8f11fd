"""The statuses of a session and the roles of a message."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class SessionStatus(models.TextChoices):
    """The state of a session."""

    ACTIVE = "active", _("active")
    PAUSED = "paused", _("paused")
    COMPLETED = "completed", _("completed")
    FAILED = "failed", _("failed")
    ARCHIVED = "archived", _("archived")


class MessageRole(models.TextChoices):
    """The author of a message."""

    SYSTEM = "system", _("system")
    DEVELOPER = "developer", _("developer")
    USER = "user", _("user")
    ASSISTANT = "assistant", _("assistant")
    TOOL = "tool", _("tool")


#: Roles of providers' formats beside ``MessageRole``: of Gemini, OpenAI and AG-UI.
PROVIDER_ROLES = ("model", "function", "activity", "reasoning")

#: What may expire.
OPEN_STATUSES = (SessionStatus.ACTIVE, SessionStatus.PAUSED)

#: The statuses that a new message reopens, and that old sessions must have to be purged.
FINISHED_STATUSES = (SessionStatus.COMPLETED, SessionStatus.FAILED)
