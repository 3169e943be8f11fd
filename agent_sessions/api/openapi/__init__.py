"""What the OpenAPI schema says beyond the code. Imported where drf-spectacular is installed.

Views know nothing of it: drf-spectacular puts these documented classes in their place.
"""

from agent_sessions.api.openapi import components, sessions, views

__all__ = ["components", "sessions", "views"]
