"""The OpenAPI schema of the API. Imported only where drf-spectacular is installed."""

from agent_sessions.api.openapi.schema import ApiSchema

__all__ = ["ApiSchema"]
