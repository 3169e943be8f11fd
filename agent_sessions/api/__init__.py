"""The REST API of agent_sessions: mount `agent_sessions.api.urls`. Needs the extra `api`."""
