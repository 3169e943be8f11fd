"""Signals of the cache layer."""

from __future__ import annotations

from typing import Final

from django.dispatch import Signal

#: Sent once when a cache turns from Redis to memory and once when it turns back.
#:
#: ``sender`` is the backend class. ``location`` names the server without its password, ``state``
#: is ``"memory"`` or ``"redis"``, ``reason`` says why Redis is not used ("" when it is), and
#: ``since`` is an aware datetime. Receivers run in the thread that noticed the change; exceptions
#: that they raise are logged.
cache_state_changed: Final = Signal()
