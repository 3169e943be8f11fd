from __future__ import annotations

from django.db import models

from agent_sessions.models import Session


class TeamSession(Session):
    """A session of a team, with a plan that it pays by."""

    team = models.CharField(max_length=50)
    plan = models.CharField(max_length=20, default="free")
