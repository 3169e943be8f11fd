"""The Django app."""

from __future__ import annotations

from contextlib import suppress

from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _


class CacheLayerConfig(AppConfig):
    """Registers the system checks, and loads Redis's client where it is used."""

    name = "cache_layer"
    verbose_name = _("Cache")

    def ready(self) -> None:
        """Register the checks, watch for commits, and import Redis's client if an entry uses it."""
        from cache_layer import checks
        from cache_layer.functions.transactions import watch_connections

        checks.register()
        watch_connections()
        if any(
            entry.get("LOCATION") and str(entry.get("BACKEND", "")).startswith("cache_layer.")
            for entry in settings.CACHES.values()
        ):
            from cache_layer.backends import import_client

            # The import takes half a second, which the first call of the process would wait for.
            with suppress(ImproperlyConfigured):
                import_client()
