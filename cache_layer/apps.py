"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class CacheLayerConfig(AppConfig):
    """Registers the system checks."""

    name = "cache_layer"
    verbose_name = _("Cache")

    def ready(self) -> None:
        """Make ``manage.py check`` look at the cache's configuration."""
        from cache_layer import checks

        checks.register()
